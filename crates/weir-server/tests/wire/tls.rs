//! Certificates that change while agents deliver.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Authority, Dialler, PATIENCE, Said, World, batch, logged, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_traffic_and_nothing_is_lost() {
    let world = World::new();
    let agent = world.agent("good-n1");
    let (mut talk, _) = agent.greet("n1", 1).await;
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        batch(1, sequence, 1)
    };
    assert_eq!(talk.deliver(next()).await, Said::Committed);

    // A key that is not the certificate's: the old pair stays, and it is said.
    let younger = Authority::new();
    let (certificate, key) = younger.issue(&["weir-server"]);
    fs::write(world.dir.path().join("tls.crt"), "no certificate").unwrap();
    until("the broken file is noticed", || logged().contains("the old ones stay"));
    assert_eq!(talk.deliver(next()).await, Said::Committed);
    let (mut other, _) = agent.greet("n1", 1).await;
    assert_eq!(other.deliver(next()).await, Said::Committed);

    fs::write(world.dir.path().join("tls.crt"), certificate).unwrap();
    fs::write(world.dir.path().join("tls.key"), key).unwrap();
    fs::write(world.dir.path().join("agents.crt"), &younger.pem).unwrap();
    let renewed = Dialler { roots: vec![younger.pem.clone()], ..agent.clone() };
    let begun = Instant::now();
    let channel = loop {
        if let Ok(channel) = renewed.channel().await {
            break channel;
        }
        assert!(begun.elapsed() < PATIENCE, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    drop(channel);
    assert_eq!(talk.deliver(next()).await, Said::Committed, "an open stream goes on");
    let (mut fresh, _) = renewed.greet("n1", 1).await;
    assert_eq!(fresh.deliver(next()).await, Said::Committed);

    // Agents' certificates are now the younger authority's.
    let by_certificate =
        |issued| Dialler { certificate: Some(issued), header: None, ..renewed.clone() };
    let (mut known, _) = by_certificate(younger.issue(&["n2.agents.weir"])).greet("n2", 2).await;
    assert_eq!(known.deliver(batch(2, 1, 1)).await, Said::Committed);
    let stranger = by_certificate(world.authority.issue(&["n2.agents.weir"]));
    let refused = match stranger.open(vec![crate::support::hello("n2", 2)]).await {
        Ok(mut talk) => talk.end().await,
        Err(status) => status,
    };
    assert_ne!(refused.code(), tonic::Code::Ok);
    assert_eq!(world.bytes(), 6);
}
