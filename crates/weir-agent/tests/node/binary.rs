//! The shipped binary.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::space::{ready, run};
use crate::until;

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> (Output, String) {
    let output = agent(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// An agent at work, killed when dropped.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    fn new(spool: &Path, more: &[&str]) -> Self {
        let usual = [
            "--node=n1",
            "--server=127.0.0.1:1",
            "--insecure-plaintext",
            "--interval=200ms",
            "--spool",
            spool.to_str().unwrap(),
        ];
        let mut child = agent(&[&usual[..], more].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (into, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                into.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, said }
    }

    fn wait_for(&self, words: &str) {
        until(words, || self.said.lock().unwrap().contains(words));
    }

    fn terminate(&mut self) -> i32 {
        let pid = self.child.id();
        run(&format!("kill -TERM {pid}"));
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    answer
}

#[test]
fn help_teaches() {
    let (output, _) = output(&["--help"]);
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn what_is_wrong_is_said_at_once_and_ends_with_2() {
    let (output, said) = output(&["--interval=5", "--server", "weir"]);
    assert_eq!(output.status.code(), Some(2));
    for expected in ["node: is needed", "server (flag)", "interval (flag)", "nothing says who"] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn check_prints_what_results_and_where_it_came_from() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("agent.yaml");
    fs::write(&file, "node: n1\nserver: weir:8884\ninsecure_plaintext: true\n").unwrap();
    let mut command = agent(&["check", "--interval", "9s", "--config", file.to_str().unwrap()]);
    let output = command.env("METRICS_PORT", "9100").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for expected in ["# file, line 1", "interval: 9s", "# flag", "0.0.0.0:9100", "env METRICS_PORT"]
    {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    assert!(output.status.success());
}

#[test]
fn it_reads_says_how_it_is_and_stops_when_told() {
    if !ready("the agent") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("spool");
    let metrics = ["--metrics=127.0.0.1:8883", "--set-sysctls", "--activate-conntrack"];
    let mut agent = Running::new(&spool, &metrics);
    agent.wait_for("INSECURE");
    agent.wait_for("new spool");
    agent.wait_for("no way to the server");
    until("it is ready", || get(8883, "/ready").starts_with("HTTP/1.1 200"));
    let ready = get(8883, "/ready");
    assert!(ready.contains("batches wait in the spool"), "{ready}");
    assert!(get(8883, "/live").contains("reading"));
    let metrics = get(8883, "/metrics");
    assert!(metrics.contains("\nweir_agent_connected 0\n"), "{metrics}");
    assert!(metrics.contains("\nweir_agent_reading 1\n"), "{metrics}");
    assert!(get(8883, "/other").starts_with("HTTP/1.1 404"));

    // A second one waits, alive and not ready, and takes over.
    let second = Running::new(&spool, &["--metrics=127.0.0.1:8893"]);
    second.wait_for("another agent on this node holds the spool");
    assert!(get(8893, "/live").starts_with("HTTP/1.1 200"));
    assert!(get(8893, "/ready").contains("another agent"));
    assert_eq!(agent.terminate(), 0);
    agent.wait_for("stopped");
    second.wait_for("spool found");
    until("the second is ready", || get(8893, "/ready").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_kernel_that_does_not_count_is_a_state_and_no_crash() {
    if !ready("the agent") {
        return;
    }
    run("sysctl -qw net.netfilter.nf_conntrack_acct=0");
    let directory = TempDir::new().unwrap();
    let more = ["--metrics=127.0.0.1:8883", "--activate-conntrack"];
    let agent = Running::new(&directory.path().join("spool"), &more);
    agent.wait_for("no bytes are counted on this node");
    until("it says so", || get(8883, "/ready").contains("nf_conntrack_acct is 0"));
    assert!(get(8883, "/metrics").contains("\nweir_agent_accounting 0\n"));
    run("sysctl -qw net.netfilter.nf_conntrack_acct=1");
    until("and that it counts again", || !get(8883, "/ready").contains("nf_conntrack_acct"));
}
