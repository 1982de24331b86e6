//! A machine of a test's own: a network namespace, a data directory, traffic over loopback.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Everything it made is removed with it.
pub(crate) struct Machine {
    pub(crate) space: String,
    directory: TempDir,
    data: PathBuf,
    disks: Mutex<Vec<PathBuf>>,
}

impl Machine {
    /// `None`, loudly, where this process may not; in CI that is a failure.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0");
        assert!(root || std::env::var_os("CI").is_none(), "weir up is tested as root in CI");
        if !root {
            std::io::stderr().write_all(b"SKIPPED: weir up needs root\n").unwrap();
            return None;
        }
        let space = format!("wfault-{}-{name}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &space]));
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        let machine = Self { space, directory, data, disks: Mutex::default() };
        machine.run("ip", &["link", "set", "lo", "up"]);
        Some(machine)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn set_data(&mut self, data: PathBuf) {
        self.data = data;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A small disk, unmounted with the machine.
    pub(crate) fn disk(&self, kib: u32) -> PathBuf {
        let path = self.path(&format!("disk{}", self.disks.lock().unwrap().len()));
        fs::create_dir(&path).unwrap();
        let size = format!("size={kib}k");
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "weir-test"]).arg(&path));
        self.disks.lock().unwrap().push(path.clone());
        path
    }

    /// A program in the namespace.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space, program]).args(arguments);
        command.env("WEIR_LOG", "warn").env_remove("WEIR_DATA_DIR");
        command
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        succeed(&mut self.command(program, arguments))
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_weir"), arguments)
    }

    /// `weir up`, once it reads.
    pub(crate) fn up(&self, arguments: &[&str]) -> Up {
        let mut command = self.weir(&["up", "--plain", "--interval", "1s", "--cpu-budget", "50%"]);
        command.args(arguments).arg("--data-dir").arg(&self.data);
        let up = Up::start(command, &self.path("weir.log"));
        let pid = up.pid();
        until("weir reads", || {
            let Some(status) = self.try_status() else { return false };
            let node = &status["nodes"][0];
            node["state"] == "reading" && node["pid"] == pid
        });
        up
    }

    /// `weir up` that must fail by itself; what it says.
    pub(crate) fn fails(&self, data: &Path) -> String {
        let mut command = self.weir(&["up", "--activate-conntrack", "--data-dir"]);
        let output = command.arg(data).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    pub(crate) fn tables(&self) -> String {
        self.run("nft", &["list", "tables"])
    }

    fn try_status(&self) -> Option<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["query", "status", "-o", "json", "--data-dir"]).arg(&self.data);
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    /// What weir says of this machine.
    pub(crate) fn node(&self) -> Value {
        self.status()["nodes"][0].clone()
    }

    /// Bytes stored, both directions.
    pub(crate) fn stored(&self) -> u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["query", "top", "--by", "protocol", "--since", "1h", "--limit", "0"]);
        let output = command.args(["-o", "json", "--data-dir"]).arg(&self.data).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = answer["rows"].as_array().unwrap().iter();
        let of = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
        rows.map(|row| of(row, "bytes_sent") + of(row, "bytes_received")).sum()
    }

    /// Entries outlive the test, so that the table's counters are the truth.
    pub(crate) fn keep_entries(&self) {
        for name in ["udp_timeout", "udp_timeout_stream"] {
            self.run("sysctl", &["-qw", &format!("net.netfilter.nf_conntrack_{name}=3600")]);
        }
    }

    /// As many datagrams as asked for, each from a socket of its own and answered.
    pub(crate) fn carry(&self, datagrams: u32, bytes: u32) {
        const TALK: &str = "
import socket, sys
count, size = int(sys.argv[1]), int(sys.argv[2])
answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answers.bind(('127.0.0.1', 0))
for _ in range(count):
    asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asks.settimeout(5)
    asks.sendto(b'x' * size, answers.getsockname())
    text, who = answers.recvfrom(65536)
    answers.sendto(text, who)
    asks.recv(65536)
";
        let (datagrams, bytes) = (datagrams.to_string(), bytes.to_string());
        self.run("python3", &["-c", TALK, &datagrams, &bytes]);
    }

    /// What conntrack itself has counted by now.
    pub(crate) fn counted_by_the_kernel(&self) -> u64 {
        let table = self.run("conntrack", &["-L"]);
        let counted = table.split_whitespace().filter_map(|word| word.strip_prefix("bytes="));
        counted.map(|bytes| bytes.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for disk in self.disks.lock().unwrap().iter() {
            drop(Command::new("umount").arg("-l").arg(disk).status());
        }
        drop(Command::new("ip").args(["netns", "del", &self.space]).status());
    }
}

/// A running `weir up`; killed when dropped.
pub(crate) struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// `ip netns exec` and `setpriv` become the program they start.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .is_ok_and(|stat| !stat.contains(") Z"))
    }

    /// SIGTERM; must end with 0. What it said.
    pub(crate) fn stop(mut self) -> String {
        succeed(Command::new("kill").args(["-TERM", &self.pid().to_string()]));
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(0), "{}", self.said());
                    return self.said();
                }
                None if Instant::now() > deadline => panic!("it does not end: {}", self.said()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// kill -9, while something goes on.
    pub(crate) fn kill_while(mut self, act: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let acting = scope.spawn(act);
            thread::sleep(Duration::from_millis(150));
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            acting.join().unwrap();
        });
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
