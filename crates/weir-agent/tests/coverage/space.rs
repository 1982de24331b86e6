//! Network namespaces without names: each lives as long as the thread that made it.

use std::io::{self, Write as _};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use weir_conntrack::capability;

type Task = Box<dyn FnOnce() + Send>;

/// A thread in a namespace, which does what it is told.
pub(crate) struct Space {
    /// The thread's id, by which `ip` finds the namespace.
    id: i32,
    tasks: SyncSender<Task>,
}

/// Puts the calling thread into a fresh namespace with loopback up; false, loudly, when this
/// process may not. In CI that is a failure.
pub(crate) fn ready(what: &str) -> bool {
    let root = capability::net_admin().unwrap();
    assert!(root || std::env::var_os("CI").is_none(), "{what} needs root, in CI too");
    if !root {
        say(&format!("SKIPPED: {what} needs root"));
        return false;
    }
    leave();
    run("ip link set lo up");
    true
}

/// Says something past the test harness, which would swallow it.
pub(crate) fn say(text: &str) {
    io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

impl Space {
    /// A new namespace with loopback up.
    pub(crate) fn new() -> Self {
        Self::in_thread(|| {
            leave();
            run("ip link set lo up");
        })
    }

    /// Another thread in the caller's namespace.
    pub(crate) fn current() -> Self {
        Self::in_thread(|| {})
    }

    fn in_thread(prepare: impl FnOnce() + Send + 'static) -> Self {
        let (tasks, waiting) = sync_channel::<Task>(8);
        let (tell, told) = sync_channel(1);
        thread::spawn(move || {
            prepare();
            tell.send(thread_id()).unwrap();
            for task in waiting {
                task();
            }
        });
        Self { id: told.recv().unwrap(), tasks }
    }

    /// Begins a task in the namespace; its result arrives later.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Receiver<T> {
        let (tell, told) = sync_channel(1);
        self.tasks.send(Box::new(move || tell.send(task()).unwrap())).unwrap();
        told
    }

    /// Runs a command there.
    pub(crate) fn run(&self, command: &str) {
        let command = command.to_owned();
        self.start(move || run(&command)).recv().unwrap();
    }

    /// Lays a wire from `device` here to `eth0` there.
    pub(crate) fn wire(&self, device: &str) {
        run(&format!("ip link add {device} type veth peer name eth0 netns {}", self.id));
        run(&format!("ip link set {device} up"));
        self.run("ip link set eth0 up");
    }
}

/// Runs a command, which must succeed, in the calling thread's namespace.
pub(crate) fn run(command: &str) {
    let output = Command::new("sh").args(["-c", &quoted(command)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}

/// `nft` has braces and semicolons of its own.
fn quoted(command: &str) -> String {
    match command.strip_prefix("nft ") {
        Some(rule) => format!("nft '{rule}'"),
        None => command.to_owned(),
    }
}

fn leave() {
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes a number and changes nothing in this process's memory.
    let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(code == 0, "cannot make a network namespace: {}", io::Error::last_os_error());
}

fn thread_id() -> i32 {
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes nothing and cannot fail.
    let id = unsafe { libc::gettid() };
    id
}
