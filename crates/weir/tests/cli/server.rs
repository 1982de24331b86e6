//! `weir server` with either store: what it refuses, and what it does while ClickHouse is away.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use weir_lab::clickhouse::{Engine, Faults};

use super::{ask, printed, refused, weir};

const TRIAL: [&str; 4] = ["--no-kubernetes", "--insecure-plaintext", "--data-dir", "/data"];

fn output(command: &mut Command) -> std::process::Output {
    command.output().expect("weir was built with this test")
}

#[test]
fn several_servers_on_an_embedded_store_are_refused_at_start() {
    let said = refused(&output(weir(&["server", "--replicas", "2"]).args(TRIAL)));
    assert!(said.starts_with("2 error:") && said.contains("--clickhouse-url"), "{said}");
}

#[test]
fn commands_about_clickhouse_ask_for_its_address() {
    for words in [&["server", "migrate"][..], &["server", "rebuild"], &["server", "grants"]] {
        let said = refused(&output(&mut weir(words)));
        assert!(said.starts_with("2 error: this is about ClickHouse"), "{said}");
    }
}

#[test]
fn rights_are_printed_for_the_user_that_was_named() {
    let url = ["--clickhouse-url", "https://ch:8443", "--clickhouse-database", "prod"];
    let mut command = weir(&["server", "grants", "--clickhouse-user", "me"]);
    let text = printed(&output(command.args(url)));
    assert!(text.contains("GRANT SELECT, INSERT ON `prod`.* TO `me`;"), "{text}");
}

#[test]
fn a_password_is_printed_nowhere() {
    let mut command = weir(&["config", "check-server", "--clickhouse-url", "https://ch:8443"]);
    let output = output(command.args(TRIAL).env("WEIR_CLICKHOUSE_PASSWORD", "hunter2"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("https://ch:8443"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_directory_whose_flows_are_in_clickhouse_says_whom_to_ask() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("flows-in-clickhouse"), "").expect("it can be written");
    for question in ["top", "status"] {
        let said = refused(&ask(directory.path(), &[question]));
        assert!(said.contains("keeps its flows in ClickHouse: ask the server"), "{said}");
    }
}

/// A server, and what it says.
struct Server {
    child: Child,
    lines: Receiver<String>,
    api: u16,
    health: u16,
}

impl Server {
    fn start(clickhouse: &str, database: &str, directory: &std::path::Path) -> Self {
        // Free a moment ago; a test that lost the race would say so.
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
            listener.local_addr().expect("it listens").port()
        };
        let (api, health) = (free(), free());
        let mut command = weir(&["server", "--no-kubernetes", "--insecure-plaintext"]);
        command.args(["--no-range-refresh", "--ingest", "127.0.0.1:0"]);
        command.args(["--listen", &format!("127.0.0.1:{api}")]);
        command.args(["--metrics", &format!("127.0.0.1:{health}")]);
        command.args(["--clickhouse-url", clickhouse, "--clickhouse-database", database]);
        command.arg("--data-dir").arg(directory).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("weir was built with this test");
        let said = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let (says, lines) = mpsc::sync_channel(1_024);
        thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|line| says.send(line))
        });
        Self { child, lines, api, health }
    }

    #[expect(clippy::panic, reason = "a test that waited in vain should say for what")]
    fn waits_to_say(&self, text: &str) {
        let patience = Instant::now() + Duration::from_mins(1);
        let mut said = Vec::new();
        loop {
            let left = patience.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never said {text:?}: {said:#?}"));
            if line.contains(text) {
                return;
            }
            said.push(line);
        }
    }

    fn asked(port: u16, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(agent);
        let url = format!("http://127.0.0.1:{port}{path}");
        let mut response = agent.get(&url).call().expect("weir answers");
        let body = response.body_mut().read_to_string().expect("an answer is text");
        (response.status().as_u16(), body)
    }

    fn health(&self, path: &str) -> (u16, String) {
        Self::asked(self.health, path)
    }

    fn api(&self, path: &str) -> (u16, String) {
        Self::asked(self.api, &format!("/api/v1/{path}"))
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().expect("there is kill");
        assert!(asked.success(), "it runs");
        let patience = Instant::now() + Duration::from_mins(1);
        while self.child.try_wait().expect("it is a child").is_none() {
            assert!(Instant::now() < patience, "it does not end");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn clickhouse_may_be_away_at_the_start_and_later() {
    let engine = Engine::for_test("a server on ClickHouse").expect("the engine begins");
    let Some(engine) = engine.filter(|engine| !engine.is_server()) else { return };
    let database = engine.name();
    let faults = Faults::before(&engine).expect("there are ports");
    let directory = tempfile::tempdir().expect("a temporary directory");
    faults.go_away();
    let server = Server::start(faults.url(), database.name(), directory.path());
    server.waits_to_say("waiting for the store, agents are not let in: ");
    let (live, ready) = (server.health("/live"), server.health("/ready"));
    assert_eq!((live.0, ready.0), (200, 503), "{ready:?}");
    assert!(ready.1.contains("the store is waited for"), "{ready:?}");
    assert!(server.health("/metrics").1.contains("weir_store_up{use=\"write\"} 0"));

    faults.clear();
    server.waits_to_say("agents deliver to");
    assert_eq!(server.health("/ready").0, 200);
    assert!(server.health("/metrics").1.contains("weir_store_up{use=\"write\"} 1"));
    let (status, text) = server.api("status");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\"store_error\":null") && !text.contains("\"store\":null"), "{text}");
    assert_eq!(server.api("top").0, 200);

    faults.go_away();
    let (status, text) = server.api("series");
    assert!(status == 503 && text.contains("urn:weir:problem:store-away"), "{status} {text}");
    let (status, text) = server.api("status");
    assert!(status == 200 && text.contains("\"store\":null"), "{status} {text}");
    assert!(text.contains("\"reason\":\"unreachable\""), "{text}");
    assert_eq!(server.api("connections").0, 200, "what is live goes on");
    assert_eq!(server.health("/ready").0, 200, "agents are still let in");
    server.stop();
}

#[test]
fn tables_are_made_by_a_command_and_a_server_that_may_not_waits_for_nobody() {
    let engine = Engine::for_test("weir server migrate").expect("the engine begins");
    let Some(engine) = engine.filter(|engine| engine.user().is_none()) else { return };
    let database = engine.name();
    let place = ["--clickhouse-url", engine.url(), "--clickhouse-database", database.name()];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = weir(&["server", "--no-kubernetes", "--insecure-plaintext"]);
    command.args(["--listen", "none", "--metrics", "none", "--ingest", "127.0.0.1:0"]);
    command.args(place).arg("--clickhouse-no-migrate").arg("--data-dir").arg(directory.path());
    let said = String::from_utf8_lossy(&output(&mut command).stderr).into_owned();
    assert!(said.contains("error: ") && said.contains("weir server migrate"), "{said}");

    for did in ["made, with schema version", "up to date already"] {
        let text = printed(&output(weir(&["server", "migrate"]).args(place)));
        assert!(text.contains(did), "{text}");
    }
    let rebuild = output(weir(&["server", "rebuild", "--since", "2h"]).args(place));
    let text = String::from_utf8_lossy(&rebuild.stdout).into_owned();
    let said = String::from_utf8_lossy(&rebuild.stderr).into_owned();
    assert!(text.contains("hours were compared"), "{text} {said}");
}
