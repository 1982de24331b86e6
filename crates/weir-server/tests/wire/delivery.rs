//! Batches arrive once, whatever happens to streams, agents and the server.

use std::time::Duration;

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use weir_flow::WallTime;
use weir_flow::time::SECOND;
use weir_proto::pb::{self, from_agent, from_server};
use weir_proto::{Fact, Packer};
use weir_server::wire::{Denial, WireLimits};

use crate::support::{NOON, Said, World, batch, frame, greeting, limits, message};

const EPOCH: u128 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_before_its_answers_is_gone_on_with_and_nothing_counts_twice() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let all = 1..=40_u64;
    // Each stream breaks after a few batches without a look at the answers.
    for _ in 0..5 {
        let (talk, welcome) = agent.greet("n1", EPOCH).await;
        let known = |number: u64| {
            welcome.committed.iter().any(|range| (range.first..=range.last).contains(&number))
        };
        for sequence in all.clone().filter(|number| !known(*number)).take(12) {
            let batch = batch(EPOCH, sequence, sequence);
            talk.say(message(from_agent::Message::Batch(batch))).await;
        }
    }
    let (mut talk, _) = agent.greet("n1", EPOCH).await;
    for sequence in all.clone() {
        assert_eq!(talk.deliver(batch(EPOCH, sequence, sequence)).await, Said::Committed);
    }
    assert_eq!(world.bytes(), all.clone().sum::<u64>());
    assert_eq!(world.queue.report().counts.committed, 40);

    // And over a restart.
    drop(talk);
    let dir = world.end();
    let world = World::on(dir, limits());
    let (mut talk, welcome) = world.agent("good-n1").greet("n1", EPOCH).await;
    assert_eq!(welcome.committed, [pb::Range { first: 1, last: 40 }]);
    for sequence in all {
        assert_eq!(talk.deliver(batch(EPOCH, sequence, sequence)).await, Said::Committed);
    }
    assert_eq!(world.bytes(), (1..=40_u64).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_at_once_are_committed_together() {
    let world = World::new();
    let mut agents = tokio::task::JoinSet::new();
    for node in 0..8_u128 {
        let dialler = world.agent(&format!("good-n{node}"));
        agents.spawn(async move {
            let (mut talk, _) = dialler.greet(&format!("n{node}"), node + 1).await;
            for sequence in 1..=50 {
                let batch = batch(node + 1, sequence, 1);
                talk.say(message(from_agent::Message::Batch(batch))).await;
            }
            let mut answered = Vec::new();
            for _ in 0..50 {
                let (sequence, said) = talk.answer().await;
                assert_eq!(said, Said::Committed);
                answered.push(sequence);
            }
            answered.sort_unstable();
            assert!(answered.into_iter().eq(1..=50));
        });
    }
    while let Some(agent) = agents.join_next().await {
        agent.unwrap();
    }
    assert_eq!(world.bytes(), 400);
    let report = world.queue.report();
    assert_eq!(report.counts.committed, 400);
    assert!(report.commits < 400, "{} commits", report.commits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_a_goodbye_and_its_answers() {
    let life = Duration::from_millis(400);
    let world = World::with(WireLimits { life_min: life, life_max: life, ..limits() });
    let (mut talk, _) = world.agent("good-n1").greet("n1", EPOCH).await;
    let mut sequence = 0;
    let (mut answered, mut goodbye) = (0, false);
    loop {
        if !goodbye {
            sequence += 1;
            let batch = batch(EPOCH, sequence, 1);
            // The stream may end while this waits for its turn.
            drop(talk.says.send(message(from_agent::Message::Batch(batch))).await);
        }
        match talk.next().await {
            Ok(from_server::Message::Answer(_)) => answered += 1,
            Ok(from_server::Message::Goodbye(_)) => goodbye = true,
            Ok(other) => panic!("{other:?}"),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Ok, "{status}");
                break;
            }
        }
    }
    assert!(goodbye && answered > 0);
    assert!(world.bytes() >= answered, "whatever was answered is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_has_said_all_hears_all_answers() {
    let world = World::new();
    let (mut talk, _) = world.agent("good-n1").greet("n1", EPOCH).await;
    for sequence in 1..=30 {
        talk.say(message(from_agent::Message::Batch(batch(EPOCH, sequence, 1)))).await;
    }
    let (says, _) = tokio::sync::mpsc::channel(1);
    drop(std::mem::replace(&mut talk.says, says));
    for _ in 0..30 {
        assert_eq!(talk.answer().await.1, Said::Committed);
    }
    assert_eq!(talk.end().await.code(), tonic::Code::Ok);
    assert_eq!(world.bytes(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_shut_out_is_gone_from_its_stream_and_who_cannot_be_asked_about_stays() {
    let world = World::with(WireLimits { identify_every: Duration::from_millis(50), ..limits() });
    let (mut talk, _) = world.agent("good-n1").greet("n1", EPOCH).await;
    world.tokens.away.store(true, Ordering::Relaxed);
    for sequence in 1..=5 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(talk.deliver(batch(EPOCH, sequence, 1)).await, Said::Committed);
    }
    world.tokens.away.store(false, Ordering::Relaxed);
    world.tokens.revoked.store(true, Ordering::Relaxed);
    let status = talk.end().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    assert_eq!(world.counts.denied(Denial::Unauthenticated), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_of_one_node_the_younger_counts() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let (mut older, _) = agent.greet("n1", 1).await;
    assert_eq!(older.deliver(batch(1, 1, 1)).await, Said::Committed);
    // Born 30 s after noon: batches of the older one were sealed at noon, and later.
    let born = (NOON + 70) * SECOND;
    let young = pb::Hello { epoch_born_nanos: born, ..greeting("n1", 2) };
    let mut younger = agent.open(vec![message(from_agent::Message::Hello(young))]).await.unwrap();
    younger.next().await.unwrap();
    // The fence stands at the server's now (61 s after noon), because nobody is born in the future.
    assert_eq!(older.deliver(batch(1, 2, 1)).await, Said::Committed, "its backlog");
    let late = Packer::new().unwrap().pack(3, &frame(1, 3, 1, 30)).unwrap();
    match older.deliver(late).await {
        Said::Refused(why) => assert!(why.contains("has taken over"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.counts.fenced(), 1);
    assert_eq!(younger.deliver(batch(2, 1, 1)).await, Said::Committed);
    assert_eq!(world.bytes(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_arrive_whole_and_clocks_are_compared() {
    let world = World::new();
    let (mut talk, welcome) = world.agent("good-n1").greet("n1", EPOCH).await;
    let fact = |number: u32| Fact {
        address: IpAddr::from(number.to_be_bytes()),
        from: WallTime(u64::from(number)),
        to: None,
        own: number == 0,
    };
    let facts: Vec<Fact> = (0..5_000).map(fact).collect();
    for part in Fact::messages(&facts, true).chain(Fact::messages(&facts[..1], false)) {
        talk.say(message(from_agent::Message::Facts(part))).await;
    }
    let ahead = 3 * SECOND;
    let ping = pb::Ping {
        now_nanos: welcome.now_nanos + ahead,
        heard_nanos: welcome.now_nanos,
        held_nanos: 0,
    };
    talk.say(message(from_agent::Message::Ping(ping))).await;
    assert!(matches!(talk.next().await.unwrap(), from_server::Message::Pong(_)));
    let status = pb::Status { json: br#"{"state":"reading","interval_seconds":5}"#.to_vec() };
    talk.say(message(from_agent::Message::Status(status))).await;
    assert_eq!(talk.deliver(batch(EPOCH, 1, 1)).await, Said::Committed);

    let heard = world.heard.0.lock().unwrap();
    let told: Vec<_> = heard.iter().map(|it| (it.complete, it.facts.len())).collect();
    assert_eq!(told, [(true, 5_000), (false, 1)]);
    assert_eq!(heard[0].facts, facts);
    let node = world.board.nodes(NOON).remove(0);
    assert_eq!(node.clock_ahead_seconds, Some(3.0));
    assert_eq!(node.agent_version.as_deref(), Some("0.1.0"));
}
