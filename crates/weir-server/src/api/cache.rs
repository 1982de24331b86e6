//! Equal questions are answered once.
//!
//! Whoever asks what somebody else is asking waits for that answer; whoever asks it a moment later
//! gets it again, unless the store has taken something new in between.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::problem::{Kind, Problem};

/// How long an answer is repeated at most: relative times go on even where nothing new came.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Answers that are held.
const MAX_ANSWERS: usize = 64;
/// Bytes of answers, and of the questions they belong to, that are held.
const MAX_BYTES: usize = 16 << 20;

/// A serialised answer, or why there is none.
pub(super) type Answer = Result<Bytes, Problem>;

/// Answers by question.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

/// An answer that is there, or on its way.
#[derive(Debug)]
struct Slot {
    /// The state of the store that it was asked of.
    version: u64,
    asked: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

impl Slot {
    fn is_current(&self, version: u64, now: Instant) -> bool {
        let is_repeatable = match &*self.answer.borrow() {
            None => self.answer.has_changed().is_ok(),
            Some(Ok(_)) => now.duration_since(self.asked) < MAX_AGE,
            Some(Err(_)) => false,
        };
        self.version == version && is_repeatable
    }

    fn bytes(&self) -> usize {
        match &*self.answer.borrow() {
            Some(Ok(body)) => body.len(),
            _ => 0,
        }
    }
}

impl Cache {
    /// The answer to `question`, asked of the store as it is at `version`. `compute` finds it, and
    /// goes on when whoever asked first has gone: others may wait for it.
    pub(super) async fn answer<F>(
        &self,
        question: String,
        version: u64,
        compute: impl FnOnce() -> F,
    ) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut receiver = self.receiver(question, version, compute);
        match receiver.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err(gone())),
            Err(_computing_ended) => Err(gone()),
        }
    }

    fn receiver<F>(
        &self,
        question: String,
        version: u64,
        compute: impl FnOnce() -> F,
    ) -> watch::Receiver<Option<Answer>>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&question).filter(|slot| slot.is_current(version, now)) {
            return slot.answer.clone();
        }
        make_room(&mut slots, version, now);
        let (sender, receiver) = watch::channel(None);
        let slot = Slot { version, asked: now, answer: receiver.clone() };
        slots.insert(question.clone(), slot);
        drop(slots);

        let computing = compute();
        let slots = Arc::clone(&self.slots);
        tokio::spawn(async move {
            let answer = computing.await;
            sender.send_replace(Some(answer));
            let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
            if bytes(&slots) > MAX_BYTES {
                slots.remove(&question);
            }
        });
        receiver
    }
}

/// Removes what will not be repeated any more, then the oldest. What is on its way is only removed
/// from here: whoever waits for it still gets it.
fn make_room(slots: &mut HashMap<String, Slot>, version: u64, now: Instant) {
    slots.retain(|_, slot| slot.is_current(version, now));
    while slots.len() >= MAX_ANSWERS || bytes(slots) > MAX_BYTES {
        let oldest = slots.iter().min_by_key(|(_, slot)| slot.asked);
        let Some(question) = oldest.map(|(question, _)| question.clone()) else { return };
        slots.remove(&question);
    }
}

fn bytes(slots: &HashMap<String, Slot>) -> usize {
    slots.iter().map(|(question, slot)| question.len() + slot.bytes()).sum()
}

fn gone() -> Problem {
    Problem::new(Kind::Internal, "the answer was lost on its way: please report this")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Asks, and counts how often the answer was computed.
    async fn ask(
        cache: &Cache,
        question: &str,
        version: u64,
        computed: &Arc<AtomicUsize>,
    ) -> Answer {
        let computed = Arc::clone(computed);
        let compute = || async move {
            let number = computed.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Bytes::from(format!("{number}")))
        };
        cache.answer(question.to_owned(), version, compute).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_repeated_until_something_new_came_or_a_second_passed() {
        let (cache, computed) = (Cache::default(), Arc::default());
        let (one, other) =
            tokio::join!(ask(&cache, "a", 1, &computed), ask(&cache, "a", 1, &computed));
        assert_eq!((one.unwrap(), other.unwrap()), ("0".into(), "0".into()));
        assert_eq!(ask(&cache, "a", 1, &computed).await.unwrap(), "0");
        assert_eq!(ask(&cache, "b", 1, &computed).await.unwrap(), "1");
        assert_eq!(ask(&cache, "a", 2, &computed).await.unwrap(), "2");
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(ask(&cache, "a", 2, &computed).await.unwrap(), "3");
    }

    #[tokio::test]
    async fn an_error_is_not_repeated() {
        let cache = Cache::default();
        let fail = || async { Err(Problem::new(Kind::Busy, "wait")) };
        assert!(cache.answer("a".to_owned(), 1, fail).await.is_err());
        let succeed = || async { Ok(Bytes::from_static(b"x")) };
        assert_eq!(cache.answer("a".to_owned(), 1, succeed).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_computing_ended_without_an_answer() {
        let cache = Cache::default();
        let dead = || async { panic!("on purpose") };
        let problem = cache.answer("a".to_owned(), 1, dead).await.unwrap_err();
        assert_eq!(problem.status, 500);
        let succeed = || async { Ok(Bytes::from_static(b"x")) };
        assert_eq!(cache.answer("a".to_owned(), 1, succeed).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn neither_many_nor_large_answers_pile_up() {
        let cache = Cache::default();
        for number in 0..1_000 {
            let body = Bytes::from(vec![0; MAX_BYTES / 3]);
            cache.answer(number.to_string(), 1, || async { Ok(body) }).await.unwrap();
            let slots = cache.slots.lock().unwrap();
            assert!(slots.len() <= 4);
        }
        let cache = Cache::default();
        for number in 0..1_000 {
            cache.answer(number.to_string(), 1, || async { Ok(Bytes::new()) }).await.unwrap();
            assert!(cache.slots.lock().unwrap().len() <= MAX_ANSWERS);
        }
    }
}
