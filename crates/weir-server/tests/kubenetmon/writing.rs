//! How rows are written: together, again, and last of all at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_server::kubenetmon::{Dropped, Options};

use crate::support::{Sink, book, observation, open, options};

#[test]
fn an_insert_that_fails_is_tried_again_with_the_same_token() {
    let sink = Arc::<Sink>::default();
    sink.failures.store(2, Ordering::Relaxed);
    let door = open(options(sink.clone(), book()));
    door.report(vec![observation(1)]).unwrap();
    door.until("it is kept", |counts| counts.rows() == 2);
    let counts = door.counts();
    assert_eq!((counts.retries(), counts.error()), (2, None));
    let tokens = sink.tokens.lock().unwrap();
    assert!(tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert!(tokens[0].is_some());
}

#[test]
fn one_that_keeps_failing_is_dropped_and_counted_and_the_next_has_another_token() {
    let sink = Arc::<Sink>::default();
    sink.failures.store(5, Ordering::Relaxed);
    let door = open(options(sink.clone(), book()));
    door.report(vec![observation(1), observation(2)]).unwrap();
    door.until("they are given up", |counts| counts.dropped(Dropped::InsertFailed) == 2);
    assert!(door.counts().error().is_some());
    door.report(vec![observation(3)]).unwrap();
    door.until("the next is kept", |counts| counts.rows() == 2);
    let tokens = sink.tokens.lock().unwrap();
    assert_eq!(tokens.len(), 6);
    assert_ne!(tokens[4], tokens[5]);
    assert_eq!(door.counts().error(), None);
}

#[test]
fn rows_wait_for_others_until_there_are_enough() {
    let sink = Arc::<Sink>::default();
    let hour = Duration::from_hours(1);
    let door =
        open(Options { batch_rows: 1_000, batch_time: hour, ..options(sink.clone(), book()) });
    for port in 0..10 {
        door.report((0..50).map(|one| observation(1 + port * 50 + one)).collect()).unwrap();
    }
    door.until("one insert", |counts| counts.rows() == 1_000);
    assert_eq!(sink.inserts.lock().unwrap().len(), 1);
}

/// What was answered and waits for others is not lost when the server ends.
#[test]
fn what_waits_is_written_at_the_end() {
    let sink = Arc::<Sink>::default();
    let hour = Duration::from_hours(1);
    let door = open(Options { batch_time: hour, ..options(sink, book()) });
    door.report((1..=300).map(observation).collect()).unwrap();
    let counts = door.counts();
    door.running.stop();
    assert_eq!((counts.rows(), counts.streams_now()), (600, 0));
    assert_eq!(Dropped::ALL.map(|why| counts.dropped(why)), [0, 0, 0]);
}

#[test]
fn an_end_with_the_table_away_is_an_end() {
    let sink = Arc::<Sink>::default();
    sink.failures.store(u32::MAX, Ordering::Relaxed);
    let mut options = options(sink.clone(), book());
    options.limits.retry_wait = Duration::from_hours(1);
    let door = open(options);
    door.report(vec![observation(1)]).unwrap();
    door.until("it was tried", |counts| counts.error().is_some());
    let counts = door.counts();
    door.running.stop();
    assert_eq!(counts.dropped(Dropped::InsertFailed), 1);
    assert_eq!(sink.tokens.lock().unwrap().len(), 2);
}
