//! A store that is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::sleep;
use weir_flow::Filter;
use weir_flow::ingest::Answer;
use weir_server::answer::TopQuestion;
use weir_server::query::Board;
use weir_server::wire::{Queue, QueueLimits};
use weir_server::{AnswerError, Answers as _, Attended, Clock, Query, StoreState};
use weir_store::{FlowStore, Measure};

use super::support::{Hosts, NOON, NOW, Told, agent, all, frame, server};

fn clock() -> Clock {
    Arc::new(|| NOW)
}

#[test]
fn one_batch_looks_whether_the_store_is_back_and_the_others_wait() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let ingest = server(&store);
    let (queue, thread) =
        Queue::start::<Hosts>(ingest, QueueLimits::default(), clock(), Box::new(|| {})).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.is_away.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for sequence in 1..=50 {
            match queue.take(agent("n1"), frame(sequence, 1)).await {
                Answer::Retry { after, reason } => {
                    assert!(reason.contains("connection refused"), "{reason}");
                    waits.push(after);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(store.tries.load(Ordering::Relaxed), 1, "one try told all there is to know");
        assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1)), "{waits:?}");
        waits.dedup();
        assert!(waits.len() > 10, "not all at the same time: {waits:?}");
        assert_eq!(queue.report().counts.retried, 50);

        store.is_away.store(false, Ordering::Relaxed);
        for sequence in 1..=3 {
            // As an agent does.
            while let Answer::Retry { after, .. } =
                queue.take(agent("n1"), frame(sequence, 10)).await
            {
                sleep(after).await;
            }
        }
    });
    assert_eq!((store.tries.load(Ordering::Relaxed), all(&*store)), (4, (30, 3)));
    queue.close();
    thread.join();
}

#[test]
fn what_the_store_cannot_take_holds_up_nothing_else() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let mut ingest = server(&store);
    store.poison.store(2, Ordering::Relaxed);
    let prepared = [1, 2, 3].map(|sequence| {
        ingest
            .prepare(&agent("n1"), &frame(sequence, 10), NOW)
            .unwrap_or_else(|it| panic!("{it:?}"))
    });
    let answers = ingest.commit(prepared.into());
    assert!(matches!(
        &answers[..],
        [Answer::Committed, Answer::Retry { reason, .. }, Answer::Committed]
            if reason.contains("Code: 48")
    ));
    assert_eq!((ingest.failure(), all(&*store)), (None, (20, 2)));
    // Alone it is no outage either, until nothing else goes for a while.
    for tries in 1..=3 {
        let alone = ingest.accept(&agent("n1"), &frame(2, 10), NOW);
        assert!(matches!(alone, Answer::Retry { .. }));
        assert_eq!(ingest.failure().is_some(), tries == 3, "{tries}");
    }
}

#[test]
fn a_group_is_not_taken_apart_where_the_store_is_away() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let mut ingest = server(&store);
    let prepared = [1, 2, 3].map(|sequence| {
        ingest
            .prepare(&agent("n1"), &frame(sequence, 10), NOW)
            .unwrap_or_else(|it| panic!("{it:?}"))
    });
    store.is_away.store(true, Ordering::Relaxed);
    assert_eq!(ingest.commit(prepared.into()).len(), 3);
    assert_eq!(store.tries.load(Ordering::Relaxed), 1);
}

#[test]
fn the_status_says_since_when_and_why_and_questions_are_told_to_come_again() {
    let directory = TempDir::new().unwrap();
    let store = Told::open(directory.path());
    let state = Arc::new(StoreState::new(clock()));
    let attended: Arc<dyn FlowStore> =
        Arc::new(Attended::new(Arc::clone(&store) as Arc<dyn FlowStore>, Arc::clone(&state)));
    let query = Query::new(attended, Arc::default(), Arc::new(Board::new(None)), clock())
        .with_store_state(Arc::clone(&state));
    let range = NOON..NOON + 60;
    let status = query.status(range.clone()).unwrap();
    assert!(status.store.is_some() && status.store_error.is_none());

    store.is_away.store(true, Ordering::Relaxed);
    let question = TopQuestion {
        by: Vec::new(),
        range: range.clone(),
        filter: Filter::All,
        sort: Measure::Bytes,
        limit: None,
    };
    for _ in 0..2 {
        match query.top(&question) {
            Err(AnswerError::Away(why)) => assert!(why.contains("connection refused"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let status = query.status(range).unwrap();
    let trouble = status.store_error.unwrap();
    assert_eq!((status.store, trouble.reason.as_str()), (None, "unreachable"));
    assert!(trouble.since.starts_with("2024-10-04T12:01:01"), "{}", trouble.since);
    assert_eq!(state.errors(), [("unreachable", trouble.failures)].into());
    assert_eq!(trouble.failures, 1, "whoever asked next was told without asking");
}
