//! Following one kind of object: list, watch, and begin again when something breaks.
//!
//! Lists are streamed where the API can (one object in memory at a time), else paged. A list that
//! stands still is given up and begun again; a watch that stands still is resumed by the client
//! library, which notices silence itself.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::book::Told;
use super::objects::Object;

/// Objects of a page.
const PAGE: u32 = 500;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A watch is resumed after this time, whether or not it said anything, so that one that stands
    /// still does not go unnoticed.
    pub watch_seconds: u32,
    /// A list that says nothing for this long is given up.
    pub patience: Duration,
    /// The first wait after something failed; it doubles up to [`Pace::longest_wait`].
    pub first_wait: Duration,
    /// The longest wait after something failed.
    pub longest_wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            watch_seconds: 55,
            patience: Duration::from_secs(20),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// Why a list was given up.
enum Ended {
    /// It is to be asked for in pages.
    InPages,
    /// It is to be begun again.
    Again,
}

/// Follows all objects of a kind.
#[expect(clippy::infinite_loop, reason = "it goes on for as long as it is polled")]
pub(super) async fn follow<K: Told>(shared: &Shared, client: Client, pace: Pace) {
    let api: Api<Object<K>> = Api::all(client);
    let (mut streams, mut waits) = (true, Waits::new(pace));
    loop {
        let config = Config::default().timeout(pace.watch_seconds);
        let config = if streams { config.streaming_lists() } else { config.page_size(PAGE) };
        match watch::<K>(shared, api.clone(), config, pace, &mut waits, streams).await {
            Ended::InPages => {
                tracing::info!(resource = K::PLURAL, "no streaming lists here: listing in pages");
                streams = false;
            }
            Ended::Again => {}
        }
    }
}

async fn watch<K: Told>(
    shared: &Shared,
    api: Api<Object<K>>,
    config: Config,
    pace: Pace,
    waits: &mut Waits,
    streams: bool,
) -> Ended {
    let mut events = pin!(watcher::watcher(api, config));
    let (mut is_listed, mut list) = (false, None);
    loop {
        // A watch may be silent for days; a list may not.
        let event = if is_listed {
            events.next().await
        } else {
            match timeout(pace.patience, events.next()).await {
                Ok(event) => event,
                // It began, and never says that it is complete.
                Err(_silence) if streams && list.is_some() => return Ended::InPages,
                Err(_silence) => {
                    let silence = pace.patience.as_secs();
                    shared.failed::<K>(format!("the API says nothing for {silence} s"));
                    sleep(waits.next()).await;
                    return Ended::Again;
                }
            }
        };
        match event {
            // The watch that brings a list ends after its time, and this list is longer than that.
            Some(Ok(Event::Init)) if streams && !is_listed && list.is_some() => {
                return Ended::InPages;
            }
            Some(Ok(event)) => {
                match &event {
                    Event::Init => (is_listed, list) = (false, Some(shared.begin_list::<K>())),
                    Event::InitDone => is_listed = true,
                    Event::Apply(_) | Event::Delete(_) | Event::InitApply(_) => {}
                }
                if is_listed {
                    waits.reset();
                }
                shared.take(event, list.unwrap_or_default());
            }
            Some(Err(error)) if streams && refuses_to_stream(&error) => return Ended::InPages,
            Some(Err(error)) => {
                shared.failed::<K>(explain::<K>(&error));
                if is_gone(&error) {
                    is_listed = false;
                }
                if !is_listed {
                    list = None;
                }
                sleep(waits.next()).await;
            }
            None => return Ended::Again,
        }
    }
}

/// A server without streaming lists answers 422, an old one 400.
fn refuses_to_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status))
        if matches!(status.code, 400 | 422))
}

fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// What went wrong, and what to do about it.
fn explain<K: Told>(error: &watcher::Error) -> String {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return super::chain(error);
    };
    match source {
        kube::Error::Api(status) if status.code == 403 => format!(
            "weir may not read {resource}: give its service account a ClusterRole with \
             apiGroups [\"{group}\"], resources [\"{resource}\"], verbs [\"list\", \"watch\"]",
            resource = K::PLURAL,
            group = K::GROUP,
        ),
        kube::Error::Api(status) if status.code == 401 => {
            "the API does not know weir's credentials: check the kubeconfig, or the pod's service \
             account"
                .to_owned()
        }
        other => super::chain(other),
    }
}

/// Waits that double, each somewhere between a half and the whole of its length, so that many
/// servers do not come back together.
struct Waits {
    pace: Pace,
    failures: u32,
    random: RandomState,
}

impl Waits {
    fn new(pace: Pace) -> Self {
        Self { pace, failures: 0, random: RandomState::new() }
    }

    fn reset(&mut self) {
        self.failures = 0;
    }

    fn next(&mut self) -> Duration {
        let doubled = self.pace.first_wait.saturating_mul(1 << self.failures.min(16));
        let longest = doubled.min(self.pace.longest_wait);
        self.failures = self.failures.saturating_add(1);
        let share = self.random.hash_one(self.failures) % 1_024;
        longest / 2 + longest.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 2_048.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_begin_again() {
        let pace = Pace::default();
        let mut waits = Waits::new(pace);
        for doubled in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let wait = waits.next().as_secs_f64();
            assert!((doubled / 2.0..=doubled).contains(&wait), "{wait} of {doubled}");
        }
        waits.reset();
        assert!(waits.next() <= pace.first_wait);
    }
}
