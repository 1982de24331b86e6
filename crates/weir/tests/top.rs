//! `weir top` and the unprivileged `weir up` against the real kernel. What needs root runs in a
//! network namespace of its own, which ends with the test's thread.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_conntrack::tracking::Tracking;
use weir_conntrack::{capability, sysctl};

/// IPv4 and UDP headers.
const UDP_HEADERS: u64 = 28;
/// Whom nothing belongs to.
const NOBODY: &str = "65534";

#[test]
fn known_transfers_have_their_bytes_and_directions() {
    if !namespace() {
        return;
    }
    assert!(sysctl::enable().refused.is_empty());
    Tracking::open().unwrap().install().unwrap();
    let (udp_from, udp_to) = udp((3, 100), (2, 1_000));
    let tcp = tcp(100_000, 5_000);

    let answer = json(&top(&["-o", "json", "--limit", "0"]));
    assert_eq!(answer["source"], "conntrack");
    assert_eq!(answer["complete"], true, "{answer:#}");
    assert!(answer["reason"].is_null());
    let interval = answer["interval_seconds"].as_f64().unwrap();
    assert!((1.0..3.0).contains(&interval), "{interval}");

    let connection = find(&answer, udp_from, udp_to.port());
    assert_eq!(connection["protocol"], "udp");
    assert_eq!(connection["bytes_sent"], 3 * (100 + UDP_HEADERS));
    assert_eq!(connection["bytes_received"], 2 * (1_000 + UDP_HEADERS));
    assert_eq!(connection["bytes_sent_per_second"], 0);
    assert_eq!(connection["destination.address"], "127.0.0.1");
    assert!(connection["age_seconds"].is_u64(), "{connection:#}");

    let connection = find(&answer, tcp.source, tcp.destination.port());
    assert_eq!(connection["state"], "ESTABLISHED");
    assert!((100_000..120_000).contains(&number(connection, "bytes_sent")), "{connection:#}");
    assert!((5_000..9_000).contains(&number(connection, "bytes_received")), "{connection:#}");
    // Both sockets are this test's, which is neither a unit nor a container of its own, unless
    // whatever runs it is.
    assert_eq!(connection["source.name"], connection["destination.name"]);
    assert_eq!(connection["source.kind"], "host");
    drop(tcp);
}

#[test]
fn a_rate_is_what_was_sent_in_a_second() {
    if !namespace() {
        return;
    }
    assert!(sysctl::enable().refused.is_empty());
    Tracking::open().unwrap().install().unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (from, to) = (sender.local_addr().unwrap(), receiver.local_addr().unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let sending = thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let begun = Instant::now();
            let mut packets = 0_u32;
            while !done.load(Ordering::Acquire) {
                sender.send_to(&[0; 972], to).unwrap();
                packets += 1;
                thread::sleep(Duration::from_millis(5));
            }
            f64::from(packets) * 1_000.0 / begun.elapsed().as_secs_f64()
        }
    });
    thread::sleep(Duration::from_millis(100));
    let answer = json(&top(&["-o", "json"]));
    done.store(true, Ordering::Release);
    let expected = sending.join().unwrap();

    let connection = find(&answer, from, to.port());
    #[expect(clippy::cast_precision_loss, reason = "compared with a tolerance")]
    let rate = number(connection, "bytes_sent_per_second") as f64;
    assert!((0.6..1.6).contains(&(rate / expected)), "{rate} B/s measured, {expected} B/s sent");
    assert_eq!(connection["bytes_received_per_second"], 0);
    assert_eq!(answer["connections"][0], *connection, "the busiest comes first");
}

#[test]
fn a_service_is_shown_beside_its_backend() {
    if !namespace() {
        return;
    }
    run("ip", &["address", "add", "10.244.0.1/32", "dev", "lo"]);
    run("ip", &["route", "add", "10.96.0.0/16", "dev", "lo"]);
    assert!(sysctl::enable().refused.is_empty());
    let listener = TcpListener::bind("10.244.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap();
    run("nft", &["add table ip wtop"]);
    run("nft", &["add chain ip wtop out { type nat hook output priority -100; }"]);
    let rule = format!(
        "add rule ip wtop out ip daddr 10.96.0.10 tcp dport 80 dnat to 10.244.0.1:{}",
        backend.port()
    );
    run("nft", &[&rule]);
    let mut source = TcpStream::connect("10.96.0.10:80").unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    source.write_all(&vec![1; 50_000]).unwrap();
    accepted.read_exact(&mut vec![0; 50_000]).unwrap();

    let answer = json(&top(&["-o", "json", "--limit", "0"]));
    let connection = find(&answer, source.local_addr().unwrap(), backend.port());
    assert_eq!(connection["service"], "10.96.0.10:80");
    assert_eq!(connection["destination.address"], "10.244.0.1");
    assert_eq!(connection["port_name"], "http");
    assert!((50_000..60_000).contains(&number(connection, "bytes_sent")), "{connection:#}");

    let table = String::from_utf8(top(&[]).stdout).unwrap();
    assert!(table.contains("10.96.0.10:80"), "{table}");
    let csv = String::from_utf8(top(&["-o", "csv"]).stdout).unwrap();
    assert!(csv.starts_with("source,protocol,source.id,"), "{csv}");
    assert!(csv.lines().nth(1).is_some_and(|line| line.starts_with("conntrack,tcp,")), "{csv}");
}

#[test]
fn idle_tracking_and_missing_accounting_are_said_with_their_remedy() {
    if !namespace() {
        return;
    }
    fs::write("/proc/sys/net/netfilter/nf_conntrack_acct", "0").unwrap();
    let output = top(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("weir up --activate-conntrack"), "{said}");
    assert!(said.contains("sysctl -w net.netfilter.nf_conntrack_acct=1"), "{said}");

    // Now it tracks, and still does not count.
    Tracking::open().unwrap().install().unwrap();
    let (from, to) = udp((3, 100), (0, 0));
    let answer = json(&top(&["-o", "json"]));
    assert_eq!(answer["complete"], false);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("nf_conntrack_acct=1"), "{reason}");
    assert!(!reason.contains("--activate-conntrack"), "{reason}");
    let connection = find(&answer, from, to.port());
    for column in ["bytes_sent", "bytes_received", "bytes_sent_per_second"] {
        assert!(connection[column].is_null(), "{column}: {connection:#}");
    }
    let table = String::from_utf8(top(&[]).stdout).unwrap();
    let line = table.lines().find(|line| line.contains("unreplied")).unwrap();
    assert_eq!(line.matches(" ?").count(), 5, "rates, totals and age: {line}");
}

#[test]
fn without_privilege_sockets_are_shown_and_said_to_be_all() {
    let weir = Nobody::new();
    let tcp = tcp(30_000, 4_000);
    let output = weir.command(&["top", "--once", "-o", "json", "--limit", "0"]).output().unwrap();
    let answer = json(&output);
    assert_eq!(answer["source"], "sockets");
    assert_eq!(answer["complete"], false);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("TCP sockets") && reason.contains("setcap"), "{reason}");
    let connection = find(&answer, tcp.source, tcp.destination.port());
    assert_eq!(connection["bytes_sent"], 30_000);
    assert_eq!(connection["bytes_received"], 4_000);
    assert_eq!(connection["destination.address"], "127.0.0.1");

    let output = weir.command(&["top", "--once"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("payload") && said.contains("CAP_NET_ADMIN"), "{said}");
    let output = weir.command(&["top", "--once", "-o", "csv"]).output().unwrap();
    let csv = String::from_utf8(output.stdout).unwrap();
    assert!(csv.lines().skip(1).all(|line| line.starts_with("sockets,tcp,")), "{csv}");
    drop(tcp);
}

#[test]
fn up_without_privilege_shows_sockets_until_it_is_stopped() {
    let weir = Nobody::new();
    let tcp = tcp(20_000, 10);
    let mut up = weir
        .command(&["up", "--plain", "--interval", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(3_500));
    run("kill", &["-TERM", &up.id().to_string()]);
    let status = up.wait().unwrap();
    let (mut shown, mut said) = (String::new(), String::new());
    up.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert!(shown.matches("live only").count() >= 2, "{shown}");
    assert!(shown.contains("nothing is stored") && shown.contains("CAP_NET_ADMIN"), "{shown}");
    assert!(shown.contains(&format!(":{}", tcp.destination.port())), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    drop(tcp);
}

/// `weir` as a user without privilege. Root's own program may lie where nobody can reach it, so
/// it is copied.
struct Nobody {
    program: PathBuf,
    directory: Option<tempfile::TempDir>,
}

impl Nobody {
    fn new() -> Self {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_weir"));
        if !capability::net_admin().unwrap() {
            return Self { program: built, directory: None };
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("weir");
        fs::copy(built, &program).unwrap();
        Self { program, directory: Some(directory) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.directory.is_some() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
            command.arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        command.args(arguments).current_dir("/").env("HOME", "/nonexistent");
        command
    }
}

fn top(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["top", "--once"])
        .args(arguments)
        .env_remove("WEIR_OUTPUT")
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["complete"], said.is_empty(), "said on stderr as well: {said}");
    answer
}

/// The one connection from this source to this port.
fn find(answer: &Value, source: SocketAddr, port: u16) -> &Value {
    let connections = answer["connections"].as_array().unwrap();
    let found: Vec<&Value> = connections
        .iter()
        .filter(|connection| {
            connection["source.address"] == source.ip().to_string()
                && connection["source.port"] == source.port()
                && connection["destination.port"] == port
        })
        .collect();
    assert_eq!(found.len(), 1, "one from {source} to port {port} in {answer:#}");
    found[0]
}

fn number(connection: &Value, column: &str) -> u64 {
    connection[column].as_u64().expect(column)
}

/// So many packets of so many bytes there and back.
fn udp(there: (u64, usize), back: (u64, usize)) -> (SocketAddr, SocketAddr) {
    let destination = UdpSocket::bind("127.0.0.1:0").unwrap();
    let source = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (from, to) = (source.local_addr().unwrap(), destination.local_addr().unwrap());
    for _ in 0..there.0 {
        source.send_to(&vec![1; there.1], to).unwrap();
    }
    for _ in 0..back.0 {
        destination.send_to(&vec![2; back.1], from).unwrap();
    }
    (from, to)
}

/// An open TCP connection on loopback that has carried a known payload.
struct Tcp {
    source: SocketAddr,
    destination: SocketAddr,
    _sockets: (TcpListener, TcpStream, TcpStream),
}

fn tcp(there: usize, back: usize) -> Tcp {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = listener.local_addr().unwrap();
    let mut opener = TcpStream::connect(destination).unwrap();
    let source = opener.local_addr().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    opener.write_all(&vec![1; there]).unwrap();
    accepted.read_exact(&mut vec![0; there]).unwrap();
    accepted.write_all(&vec![2; back]).unwrap();
    opener.read_exact(&mut vec![0; back]).unwrap();
    Tcp { source, destination, _sockets: (listener, opener, accepted) }
}

/// Moves this thread, and what it starts from now on, into a network namespace of its own with
/// loopback up. Without root the test passes untested and says so; where `CI=true` that is refused.
fn namespace() -> bool {
    if !capability::net_admin().unwrap() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "these tests must run as root in CI");
        // Written past the test harness, which would swallow it.
        let loud = b"SKIPPED: NOT ROOT, weir top was not tested against conntrack\n";
        std::io::stderr().write_all(loud).unwrap();
        return false;
    }
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes a number and changes nothing in this process's memory.
    let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    run("ip", &["link", "set", "lo", "up"]);
    true
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
