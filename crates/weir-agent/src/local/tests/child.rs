//! Sockets of another process: this test binary again, in a cgroup of its own or as nobody.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;

/// What the child is to do; absent in the test process itself.
const TASK: &str = "WEIR_TEST_TASK";
const ENTRY: &str = "local::tests::child::entry_of_the_child";
/// Before each line that is meant for the parent, among the test runner's own.
const MARK: &str = "child: ";
/// The user nobody.
const NOBODY: u32 = 65_534;

fn is_root(what: &str) -> bool {
    let root = effective_uid() == Some(0);
    assert!(root || std::env::var_os("CI").is_none(), "{what} needs root, in CI too");
    if !root {
        println!("SKIPPED: {what} needs root");
    }
    root
}

/// A running child and the line that it said first.
struct Running {
    child: Child,
    said: String,
    /// The child ends when this is closed.
    stdin: Option<ChildStdin>,
    /// Held, so that what the child's test runner says at the end finds a reader.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command, task: &str) -> Self {
        let command = command.args([ENTRY, "--exact", "--nocapture"]).env(TASK, task);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.find_map(|line| {
            let line = line.ok()?;
            line.split_once(MARK).map(|(_, said)| said.to_owned())
        });
        Self { child, said: said.expect("the child says something"), stdin, _lines: lines }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None;
        self.child.wait().unwrap();
    }
}

/// Does what [`TASK`] says, where it says something.
#[test]
fn entry_of_the_child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (verb, operand) = task.split_once(' ').unwrap();
    match verb {
        "join" => {
            fs::write(Path::new(operand).join("cgroup.procs"), "0").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            println!("{MARK}{}", listener.local_addr().unwrap());
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        "name" => {
            let own = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut directory = refreshed();
            // What is not found is searched for once more.
            directory.refresh(now()).unwrap();
            let named = [own.local_addr().unwrap(), operand.parse().unwrap()].map(|listener| {
                let peer = "127.0.0.1:1".parse().unwrap();
                let question = question(Side::Destination, Protocol::TCP, listener, peer);
                let endpoint = directory.resolve(&question);
                format!("{} {:?}", endpoint.name(), endpoint.unresolved)
            });
            println!("{MARK}{}", named.join(", "));
        }
        other => panic!("unknown task {other}"),
    }
}

/// A cgroup that is removed in the end.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn a_socket_is_named_by_the_cgroup_in_which_it_was_made() {
    if !is_root("making a cgroup") {
        return;
    }
    let mut directory = refreshed();
    let Some(mount) = directory.cgroups.mount().map(Path::to_owned) else {
        assert!(std::env::var_os("CI").is_none(), "no unified cgroup hierarchy in CI");
        println!("SKIPPED: no unified cgroup hierarchy is mounted here");
        return;
    };
    let unit = format!("weir-test-{}.service", std::process::id());
    let cgroup = Cgroup(mount.join(&unit));
    fs::create_dir(&cgroup.0).unwrap();
    let running = Running::start(
        Command::new(std::env::current_exe().unwrap()),
        &format!("join {}", cgroup.0.display()),
    );
    let listener: SocketAddr = running.said.parse().unwrap();
    // A connection that this process opened to it.
    let stream = TcpStream::connect(listener).unwrap();
    directory.refresh(now()).unwrap();
    let of = |side, own, peer| directory.resolve(&question(side, Protocol::TCP, own, peer));
    let source = stream.local_addr().unwrap();
    let destination = of(Side::Destination, listener, source);
    assert_eq!(destination.unit.as_deref(), Some(unit.as_str()), "{destination:?}");
    assert_eq!(destination.id(), format!("host/box/{unit}"));
    assert_eq!(of(Side::Source, source, listener).name(), own_name());
    drop(running);
}

#[test]
fn without_privilege_others_are_marked_and_own_sockets_named() {
    if !is_root("becoming nobody") {
        return;
    }
    // Where nobody can execute it, which is not so below every target directory.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("other-test");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();

    let of_root = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(&binary);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let running = Running::start(command, &format!("name {}", of_root.local_addr().unwrap()));
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
    let expected = match cgroup::owner_of_process(&cgroup) {
        // Both are in this unit or container, and their sockets' cgroup says so to everybody.
        Some(_) => format!("{0} None, {0} None", own_name()),
        None => "other-test None, box Some(NotPermitted)".to_owned(),
    };
    assert_eq!(running.said, expected);
}
