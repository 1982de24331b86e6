//! Several servers at once.

use std::sync::Barrier;

use weir_store::{ClickHouseStore, FlowStore, Outcome};

use super::{bytes, bytes_of, content, open};
use crate::support::{batch, clickhouse_options, commit, engine};

const SERVERS: u64 = 8;
const BATCHES: u64 = 12;

#[test]
fn a_batch_at_eight_servers_at_once_counts_once() {
    let Some(engine) = engine("one batch at eight servers") else { return };
    let database = engine.name();
    drop(open(&database));
    let stores: Vec<ClickHouseStore> = (0..SERVERS).map(|_| open(&database)).collect();
    let together = Barrier::new(stores.len());
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                for number in 1..=BATCHES {
                    let flows = content(number);
                    together.wait();
                    let outcome = commit(store, "n1", number, &flows, &[]);
                    assert!(
                        matches!(outcome, Outcome::Committed | Outcome::AlreadyCommitted),
                        "{outcome}"
                    );
                }
            });
        }
    });
    for store in &stores {
        assert_eq!(bytes(store), bytes_of(1..=BATCHES));
        assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(1, BATCHES)]);
    }
    assert_eq!(stores[0].audit(0..u64::from(u32::MAX)).unwrap(), []);
}

/// Each server commits its share of one epoch, and knows of the others' in the end.
#[test]
fn numbers_that_others_committed_are_seen() {
    let Some(engine) = engine("an epoch at two servers") else { return };
    let database = engine.name();
    let stores = [open(&database), open(&database)];
    // Far more holes than an epoch may have, were the other server's numbers not seen.
    for number in 1..=140 {
        let store = &stores[usize::try_from(number % 2).unwrap()];
        assert_eq!(commit(store, "n1", number, &content(number), &[]), Outcome::Committed);
    }
    for store in &stores {
        assert_eq!(commit(store, "n1", 77, &content(77), &[]), Outcome::AlreadyCommitted);
        assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(1, 140)]);
        assert_eq!(bytes(store), bytes_of(1..=140));
    }
}

#[test]
fn servers_that_start_together_make_the_tables_once() {
    let Some(engine) = engine("eight servers starting") else { return };
    let database = engine.name();
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    ClickHouseStore::open(clickhouse_options(&database)).map(drop)
                })
            })
            .collect();
        for opened in opening {
            opened.join().unwrap().unwrap();
        }
    });
    assert_eq!(database.run("SELECT count() FROM schema_version").unwrap(), "1\n");
    let store = open(&database);
    let flows = content(1);
    assert_eq!(store.commit(&[batch("n1", 1, &flows, &[])]).unwrap(), [Outcome::Committed]);
    assert_eq!(bytes(&store), bytes_of([1]));
}
