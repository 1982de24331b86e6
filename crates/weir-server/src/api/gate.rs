//! Only so much is computed at once, and only so many wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// Lets a few in at a time.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    patience: Duration,
}

impl Gate {
    /// Lets `places` in at once and `waiting` wait, each for `patience` at most.
    pub(super) fn new(places: usize, waiting: usize, patience: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(waiting)),
            patience,
        }
    }

    /// A place; it is free again when what is returned is dropped.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let busy = || Problem::new(Kind::Busy, "too many questions at once: ask again in a second");
        let _waiting = self.waiting.try_acquire().map_err(|_full| busy())?;
        match timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(busy()),
        }
    }

    /// Runs `work` on a thread that may block, once there is a place.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.enter().await?;
        let working = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        working.await.unwrap_or_else(|error| {
            tracing::error!(%error, "answering a question failed");
            let detail = "answering failed; weir's log says more: please report this";
            Err(Problem::new(Kind::Internal, detail))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_are_let_in_some_wait_the_others_are_sent_away() {
        let gate = Gate::new(2, 1, Duration::from_secs(5));
        let (one, _two) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.enter().await.unwrap_err().status, 503);
        drop(one);
        let _three = waiting.await.unwrap().unwrap();
        // Nobody leaves: patience ends.
        assert_eq!(gate.enter().await.unwrap_err().status, 503);
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_frees_the_place() {
        let gate = Gate::new(1, 0, Duration::ZERO);
        let panics = || -> Result<(), Problem> { panic!("on purpose") };
        assert_eq!(gate.run(panics).await.unwrap_err().status, 500);
        assert_eq!(gate.run(|| Ok(7)).await.unwrap(), 7);
    }
}
