//! The same on ClickHouse's engine.

use std::sync::Arc;
use std::thread;

use weir_flow::ingest::Answer;
use weir_lab::clickhouse::{Database, Engine};
use weir_store::{ClickHouseOptions, ClickHouseStore, Password};

use super::support::{EPOCH, NOW, agent, all, frame, server};

fn store(database: &Database) -> Arc<ClickHouseStore> {
    let engine = database.engine();
    let options = ClickHouseOptions {
        user: engine.user().map(str::to_owned),
        password: engine.password().map(|it| Password::new(it.to_owned())),
        expire: false,
        ..ClickHouseOptions::new(database.url(), database.name())
    };
    Arc::new(ClickHouseStore::open(options).unwrap())
}

#[test]
fn one_batch_to_several_servers_at_once_counts_once() {
    let Some(engine) = Engine::for_test("several servers on ClickHouse").unwrap() else { return };
    let database = engine.name();
    let stores: Vec<_> = (0..3).map(|_| store(&database)).collect();
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(move || {
                let mut server = server(store);
                for sequence in 1..=6 {
                    // A quarrel about who was first is settled at the next try.
                    let answer = (0..5)
                        .map(|_| server.accept(&agent("n1"), &frame(sequence, 10), NOW))
                        .find(|answer| !matches!(answer, Answer::Retry { .. }));
                    assert_eq!(answer, Some(Answer::Committed), "{sequence}");
                }
            });
        }
    });
    assert_eq!(all(&*stores[0]), (60, 6));
    let mut later = server(&stores[1]);
    later.refresh(EPOCH, NOW);
    assert_eq!(later.committed(EPOCH).unwrap().spans(), [(1, 6)]);
}
