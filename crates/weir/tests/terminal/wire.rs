//! Two machines and a wire: weir runs on the near one.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::machine::Machine;

const TRAFFIC: &str = include_str!("traffic.py");

/// The machine with weir, and the one it talks to.
pub(crate) struct Wire {
    pub(crate) near: Machine,
    far: Machine,
}

impl Wire {
    /// `None` as for [`Machine::new`].
    pub(crate) fn new(name: &str) -> Option<Self> {
        let near = Machine::new(name)?;
        let far = Machine::new(&format!("{name}-far"))?;
        let ends = ["wire0", "type", "veth", "peer", "name", "wire0", "netns", &far.space];
        near.run("ip", &[&["link", "add"], &ends[..]].concat());
        for (machine, addresses) in [
            (&near, &["10.77.0.1/24", "fd77::1/64"][..]),
            (&far, &["10.77.0.2/24", "10.77.0.3/24", "10.77.0.4/24", "fd77::2/64"]),
        ] {
            machine.run("ip", &["link", "set", "wire0", "up"]);
            for address in addresses {
                // Without waiting whether somebody else has it.
                let nodad = address.contains(':').then_some("nodad");
                let words = ["address", "add", address, "dev", "wire0"];
                machine.run("ip", &words.into_iter().chain(nodad).collect::<Vec<_>>());
            }
        }
        Some(Self { near, far })
    }

    /// Long and short connections, UDP and IPv6, until stopped. What they are: `traffic.py`.
    pub(crate) fn traffic(&self) -> Traffic {
        let far = Half::start(&self.far, "answer");
        let near = Half::start(&self.near, "ask");
        Traffic { near: Some(near), _far: far }
    }
}

/// Running traffic; ends when dropped.
pub(crate) struct Traffic {
    near: Option<Half>,
    _far: Half,
}

impl Traffic {
    /// Ends all connections properly; the far end stays.
    pub(crate) fn stop(&mut self) {
        self.near = None;
    }
}

struct Half {
    child: Child,
    hold: Option<ChildStdin>,
}

impl Half {
    fn start(machine: &Machine, role: &str) -> Self {
        let mut command: Command = machine.command("python3", &["-c", TRAFFIC, role]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let hold = child.stdin.take();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{role}");
        Self { child, hold }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // It ends when its input does.
        self.hold = None;
        drop(self.child.wait());
    }
}
