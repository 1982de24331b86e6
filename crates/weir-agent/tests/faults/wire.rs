//! Delivery over the real wire: TLS, two lanes, servers that go away and servers that lie.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use weir_agent::Spool;
use weir_agent::facts::Facts;
use weir_agent::wire::{
    Server as Address, Speaker, StatusBoard, TlsFiles, Wire, WireConfig, WireStatus, WireWatch,
};
use weir_flow::batch::GapReason;

use crate::script::{Mood, World, until};
use crate::server::{Authority, Manner, Secured, Seen, Server};

/// A machine with its spool, a server, and what secures the way between them.
struct Stage {
    directory: TempDir,
    world: World,
    authority: Authority,
    seen: Arc<Mutex<Seen>>,
    watch: Arc<Mutex<Option<WireWatch>>>,
    board: StatusBoard,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let world = World::new(directory.path().join("spool"));
        let authority = Authority::new(&directory.path().join("pki"));
        let (seen, watch, board) = (Arc::default(), Arc::default(), StatusBoard::default());
        let stage = Self { directory, world, authority, seen, watch, board };
        // The baseline is made without a wire.
        stage.world.kernel(|kernel| (1..=10).for_each(|port| kernel.open(port)));
        stage.world.session();
        stage
    }

    fn secured(&self) -> Secured {
        let certificate = self.authority.sign("server", "localhost", 2090);
        Secured { certificate, clients: None }
    }

    fn serve(&self) -> Server {
        self.serve_at(([127, 0, 0, 1], 0).into(), &self.secured())
    }

    fn serve_at(&self, address: SocketAddr, secured: &Secured) -> Server {
        Server::start(address, &self.world.store, &self.seen, Some(secured))
    }

    fn tls(&self) -> TlsFiles {
        TlsFiles {
            authorities: Some(self.authority.file()),
            identity: None,
            server_name: Some("localhost".to_owned()),
        }
    }

    fn token(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("token");
        fs::write(&path, text).unwrap();
        path
    }

    fn config(&self, port: u16) -> WireConfig {
        WireConfig {
            server: Address { host: "127.0.0.1".to_owned(), port },
            node: "n1".to_owned(),
            tls: Some(self.tls()),
            token: Some(self.token("secret\n")),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
            drain: Duration::from_secs(5),
        }
    }

    fn way(&self, config: WireConfig) -> impl FnOnce(&Spool) -> Wire + Send {
        let (watch, board) = (Arc::clone(&self.watch), self.board.clone());
        move |spool: &Spool| {
            let speaker = Speaker {
                epoch: spool.epoch(),
                epoch_born: spool.epoch_born(),
                boot: spool.boot(),
            };
            let wire = Wire::new(config, speaker, Facts::default(), board);
            *watch.lock().unwrap() = Some(wire.status());
            wire
        }
    }

    fn status(&self) -> WireStatus {
        self.watch.lock().unwrap().as_ref().map(WireWatch::get).unwrap_or_default()
    }

    /// Runs an agent with this wire while `act` goes on; returns how long its stop took.
    fn while_running(&self, config: WireConfig, act: impl FnOnce()) -> Duration {
        // What an earlier agent said is not this one's word.
        *self.watch.lock().unwrap() = None;
        let (ended, took) = self.world.while_running_with(self.way(config), act);
        ended.unwrap();
        took
    }

    fn carry(&self, bytes: u64) {
        self.world.kernel(|kernel| (1..=10).for_each(|port| kernel.carry(port, bytes)));
    }

    fn total(&self) -> u64 {
        self.world.store(|store| store.total())
    }

    /// Waits until the agent says why it has no way to the server.
    fn error(&self) -> String {
        let error = || self.status().last_error;
        until("an error", || error().is_some());
        error().unwrap()
    }
}

#[test]
fn batches_status_and_identity_cross_the_wire() {
    let stage = Stage::new();
    let server = stage.serve();
    stage.board.put(b"{}".to_vec());
    stage.while_running(stage.config(server.address.port()), || {
        stage.carry(100);
        until("all is stored", || stage.total() == 10 * 200);
        until("the status came", || server.seen(|seen| !seen.statuses.is_empty()));
    });
    let status = stage.status();
    assert!(status.committed > 0 && status.wire_bytes < status.frame_bytes, "{status:?}");
    server.seen(|seen| {
        assert_eq!(seen.tokens, ["Bearer secret"]);
        assert_eq!(seen.facts, [(true, vec![])], "even an empty picture is one");
        assert!(seen.pings >= 1);
        let greeting = &seen.greetings[0];
        assert_eq!((greeting.node.as_str(), greeting.versions.clone()), ("n1", 1..=1));
        assert!(greeting.epoch_born <= greeting.now && greeting.epoch_born.0 > 0);
    });
    assert_eq!(stage.world.files("frames").len(), 0, "answered and covered: deleted");
}

#[test]
fn after_an_outage_live_data_overtakes_the_backlog_and_all_arrives_once() {
    let stage = Stage::new();
    let address = stage.serve().address;
    // The server is gone by now.
    let mut sent = 0;
    stage.while_running(stage.config(address.port()), || {
        for _ in 0..30 {
            stage.carry(10);
            sent += 10;
            let before = stage.world.status().undelivered;
            until("another batch waits", || stage.world.status().undelivered > before);
        }
        let backlog = stage.world.status().undelivered;
        assert!(backlog >= 30 && stage.total() == 0);
        // It takes its time, so that what is sealed now meets the backlog.
        stage.world.store(|store| store.mood = Mood::Retries(Duration::from_millis(20)));
        let server = stage.serve_at(address, &stage.secured());
        until("it is offered the backlog", || server.seen(|seen| !seen.order.is_empty()));
        stage.carry(7);
        sent += 7;
        let live = server.seen(|seen| seen.order[0]) + backlog;
        until("and what is live", || {
            server.seen(|seen| seen.order.iter().any(|sequence| *sequence >= live))
        });
        stage.world.store(|store| store.mood = Mood::Accepts);
        until("all is stored", || stage.total() == 10 * 2 * sent);
    });
    assert_eq!(stage.total(), 10 * 2 * sent);
    assert_eq!(stage.world.files("frames").len(), 0);
}

#[test]
fn a_server_that_comes_and_goes_counts_nothing_twice() {
    let stage = Stage::new();
    let mut server = stage.serve();
    let address = server.address;
    let mut sent = 0;
    stage.while_running(stage.config(address.port()), || {
        for round in 0..4 {
            // In every other round its answers are lost.
            let mood = if round % 2 == 0 { Mood::LosesAnswers } else { Mood::Accepts };
            stage.world.store(|store| store.mood = mood);
            stage.carry(100);
            sent += 100;
            let answers = || stage.world.store(|store| store.answers);
            let before = answers();
            until("it was asked", || answers() > before);
            drop(server);
            server = stage.serve_at(address, &stage.secured());
        }
        stage.world.store(|store| store.mood = Mood::Accepts);
        until("all is stored", || stage.total() >= 10 * 2 * sent);
    });
    assert_eq!(stage.total(), 10 * 2 * sent);
    assert!(stage.world.store(|store| store.known) > 0, "something was sent again");
}

#[test]
fn what_the_server_has_already_is_not_sent_again() {
    let stage = Stage::new();
    stage.world.store(|store| store.mood = Mood::LosesAnswers);
    stage.carry(100);
    stage.world.session();
    let waiting = u64::try_from(stage.world.files("frames").len()).unwrap();
    assert!(waiting > 0);
    stage.world.store(|store| store.mood = Mood::Accepts);
    let known = stage.world.store(|store| store.known);
    stage.seen.lock().unwrap().committed = vec![(1, 1_000)];
    let server = stage.serve();
    stage.while_running(stage.config(server.address.port()), || {
        until("it is settled", || stage.status().settled >= waiting);
    });
    assert_eq!(stage.total(), 10 * 200);
    assert_eq!(stage.world.store(|store| store.known), known);
}

#[test]
fn answers_nobody_asked_for_are_not_believed() {
    let stage = Stage::new();
    let server = stage.serve();
    server.seen(|seen| seen.manner = Manner::Presumes);
    stage.while_running(stage.config(server.address.port()), || {
        stage.carry(100);
        until("it lied", || stage.status().unknown_answers >= 2);
        assert_eq!(stage.status().committed, 0);
        server.seen(|seen| seen.manner = Manner::Honest);
        // The batch it never answered comes again with the next stream.
        until("all is stored", || stage.total() == 10 * 200);
    });
}

#[test]
fn a_server_that_says_too_much_or_nothing_is_left_and_tried_again() {
    for manner in [Manner::Rambles, Manner::Silent] {
        let stage = Stage::new();
        let server = stage.serve();
        server.seen(|seen| seen.manner = manner);
        let mut config = stage.config(server.address.port());
        config.answer_timeout = Duration::from_millis(500);
        stage.while_running(config, || {
            stage.carry(100);
            let error = stage.error();
            let expected = if manner == Manner::Silent { "no answer" } else { "the stream broke" };
            assert!(error.contains(expected), "{error}");
            server.seen(|seen| seen.manner = Manner::Honest);
            until("all is stored", || stage.total() == 10 * 200);
        });
    }
}

#[test]
fn goodbye_is_honoured_and_the_next_stream_goes_on() {
    let stage = Stage::new();
    let server = stage.serve();
    server.seen(|seen| seen.manner = Manner::Leaves);
    stage.while_running(stage.config(server.address.port()), || {
        for round in 1..=3 {
            stage.carry(100);
            until("it is stored", || stage.total() == round * 10 * 200);
        }
        until("streams followed each other", || stage.status().connections >= 3);
    });
    assert_eq!(stage.status().failures, 0, "{:?}", stage.status());
}

#[test]
fn batches_are_sealed_below_what_the_server_takes() {
    let stage = Stage::new();
    let server = stage.serve();
    server.seen(|seen| seen.max_records = 3);
    stage.while_running(stage.config(server.address.port()), || {
        until("it is connected", || stage.status().connected);
        let ticks = stage.world.status().ticks;
        until("a tick begins after that", || stage.world.status().ticks > ticks + 1);
        until("what was sealed before is settled", || stage.world.status().undelivered == 0);
        // The first batch told of all connections, before anybody said how much it may hold.
        let before = stage.status().refused;
        stage.carry(100);
        until("all is stored", || stage.total() == 10 * 200);
        assert_eq!(stage.status().refused, before);
    });
}

#[test]
fn a_batch_larger_than_the_server_takes_becomes_a_gap() {
    let stage = Stage::new();
    stage.world.store(|store| store.mood = Mood::Retries(Duration::from_millis(1)));
    stage.carry(100);
    stage.world.session();
    stage.world.store(|store| store.mood = Mood::Accepts);
    let server = stage.serve();
    server.seen(|seen| seen.max_records = 3);
    stage.while_running(stage.config(server.address.port()), || {
        until("it is declared", || {
            stage.world.store(|store| !store.gaps(GapReason::Refused).is_empty())
        });
    });
    let gaps = stage.world.store(|store| store.gaps(GapReason::Refused));
    assert_eq!((gaps[0].records, gaps[0].bytes), (10, 10 * 200), "{gaps:?}");
    assert!(!stage.world.files("quarantine").is_empty());
}

#[test]
fn who_cannot_prove_who_they_are_get_nothing_and_are_told_apart() {
    let stage = Stage::new();
    let other = Authority::new(&stage.directory.path().join("other"));
    let expired =
        Secured { certificate: stage.authority.sign("expired", "localhost", 2021), clients: None };
    let foreign = Secured { certificate: other.sign("foreign", "localhost", 2090), clients: None };
    let misnamed =
        Secured { certificate: stage.authority.sign("misnamed", "elsewhere", 2090), clients: None };
    for (secured, expected) in [
        (expired, "expired"),
        (foreign, "invalid peer certificate"),
        (misnamed, "not valid for name"),
    ] {
        let server = stage.serve_at(([127, 0, 0, 1], 0).into(), &secured);
        stage.while_running(stage.config(server.address.port()), || {
            let error = stage.error();
            assert!(error.contains(expected) && error.contains("--ca-file"), "{error}");
        });
        assert_eq!(server.seen(|seen| seen.clients), 0, "not a byte of a token");
    }
}

#[test]
fn a_denied_token_is_said_without_its_text_and_read_again_each_time() {
    let stage = Stage::new();
    let server = stage.serve();
    server.seen(|seen| seen.manner = Manner::Denies);
    stage.while_running(stage.config(server.address.port()), || {
        let error = stage.error();
        assert!(error.contains("unknown token") && error.contains("--token-file"), "{error}");
        assert!(!error.contains("secret") && !error.contains('\u{1b}'), "{error:?}");
        stage.token("rotated");
        server.seen(|seen| seen.manner = Manner::Honest);
        stage.carry(100);
        until("all is stored", || stage.total() == 10 * 200);
    });
    server.seen(|seen| assert_eq!(seen.tokens.last().unwrap(), "Bearer rotated"));
}

#[test]
fn certificates_change_under_way() {
    let stage = Stage::new();
    let clients = Some(stage.authority.file());
    let secured = Secured { clients, ..stage.secured() };
    let server = stage.serve_at(([127, 0, 0, 1], 0).into(), &secured);
    let address = server.address;
    let mut config = stage.config(address.port());
    config.token = None;
    let (certificate, key) = stage.authority.sign("node", "n1.agents.weir", 2021);
    config.tls = Some(TlsFiles { identity: Some((certificate, key)), ..stage.tls() });
    stage.while_running(config, || {
        until("an expired one is turned away", || stage.status().failures > 0);
        stage.authority.sign("node", "n1.agents.weir", 2090);
        stage.carry(100);
        until("a new one is taken", || stage.total() == 10 * 200);
        // Every authority and every certificate anew, as a rotation does.
        let next = Authority::new(&stage.directory.path().join("next"));
        let certificate = next.sign("server", "localhost", 2090);
        let (node, key) = next.sign("node", "n1.agents.weir", 2090);
        let pki = stage.directory.path().join("pki");
        fs::copy(next.file(), pki.join("ca.pem")).unwrap();
        fs::copy(node, pki.join("node.pem")).unwrap();
        fs::copy(key, pki.join("node.key")).unwrap();
        drop(server);
        let secured = Secured { certificate, clients: Some(next.file()) };
        let _server = stage.serve_at(address, &secured);
        stage.carry(50);
        until("and goes on", || stage.total() == 10 * 300);
    });
}

#[test]
fn a_stop_delivers_what_is_left_and_does_not_wait_for_a_server_that_is_gone() {
    let stage = Stage::new();
    let server = stage.serve();
    let address = server.address;
    stage.while_running(stage.config(address.port()), || {
        until("it is connected", || stage.status().connected);
        stage.carry(100);
    });
    assert_eq!(stage.total(), 10 * 200, "the last looks were delivered, too");
    drop(server);
    let took = stage.while_running(stage.config(address.port()), || stage.carry(100));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(stage.total(), 10 * 200);
    let _server = stage.serve_at(address, &stage.secured());
    stage.while_running(stage.config(address.port()), || {
        until("the rest came with the next start", || stage.total() == 10 * 400);
    });
}
