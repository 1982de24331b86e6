//! Looking for newer lists, every day.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::{Instant, timeout};
use weir_flow::ranges::{Provider, Ranges};

use super::compact::Edition;
use super::fetch::{Fetcher, Urls};
use super::shelf::{Origin, Settings, Standing, dropped, load, save, saved_at};

/// How often the operator's directory is looked into and it is asked what is due.
const LOOK: Duration = Duration::from_mins(1);
/// A list this old is looked for anew.
const DAY: Duration = Duration::from_hours(24);
/// After a failure.
const RETRY: Duration = Duration::from_hours(1);

/// Keeps the ranges up to date for as long as it is polled.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    urls: Option<Urls>,
    standing: Arc<ArcSwap<Standing>>,
    /// Downloads that could not be put into the cache.
    unsaved: Vec<Edition>,
    /// What was in the operator's directory: path, length, time of change.
    seen: Vec<(PathBuf, u64, SystemTime)>,
    outlook: Vec<Outlook>,
}

/// When a provider is asked next, and how it went.
#[derive(Debug)]
struct Outlook {
    provider: Provider,
    due: Instant,
    failures: u64,
    trouble: Option<String>,
}

impl Keeper {
    /// Loads what is on this machine. Newer lists are looked for at `urls`; without them, never.
    /// To be called within a runtime.
    pub fn open(settings: Settings, urls: Option<Urls>) -> (Self, Arc<Ranges>) {
        let (ranges, standing) = load(&settings, &[]);
        let now = Instant::now();
        let outlook = |provider| {
            let saved = settings.cache.as_deref().and_then(|cache| saved_at(cache, provider));
            let age = saved.and_then(|at| SystemTime::now().duration_since(at).ok());
            let wait = age.map_or(Duration::ZERO, |age| DAY.saturating_sub(age));
            Outlook { provider, due: now + wait, failures: 0, trouble: None }
        };
        let keeper = Self {
            outlook: Provider::ALL.into_iter().map(outlook).collect(),
            seen: settings.dir.as_deref().map(in_directory).unwrap_or_default(),
            standing: Arc::new(ArcSwap::from_pointee(standing)),
            unsaved: Vec::new(),
            settings,
            urls,
        };
        keeper.tell();
        (keeper, Arc::new(ranges))
    }

    /// What is in use, as it changes.
    pub fn standing(&self) -> Arc<ArcSwap<Standing>> {
        Arc::clone(&self.standing)
    }

    /// Looks for newer lists until `stop`, and gives the ranges to `publish` when they change. May
    /// be dropped at any time: what is on disk stays whole.
    pub async fn keep(
        mut self,
        stop: impl Future<Output = ()> + Send,
        mut publish: impl FnMut(Arc<Ranges>) + Send,
    ) {
        let mut stop = pin!(stop);
        let fetcher = self.urls.take().and_then(|urls| {
            let fetcher = Fetcher::new(urls);
            fetcher.map_err(|error| tracing::warn!(%error, "ranges are not refreshed")).ok()
        });
        loop {
            let mut changed = self.directory_changed().await;
            if let Some(fetcher) = &fetcher {
                changed |= self.fetch_what_is_due(fetcher).await;
            }
            if changed && let Some(ranges) = self.reload().await {
                publish(ranges);
            }
            if timeout(LOOK, &mut stop).await.is_ok() {
                return;
            }
        }
    }

    async fn directory_changed(&mut self) -> bool {
        let Some(dir) = self.settings.dir.clone() else { return false };
        let Ok(seen) = tokio::task::spawn_blocking(move || in_directory(&dir)).await else {
            return false;
        };
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }

    /// True when there is a newer list.
    async fn fetch_what_is_due(&mut self, fetcher: &Fetcher) -> bool {
        let mut changed = false;
        for at in 0..self.outlook.len() {
            let Outlook { provider, due, .. } = self.outlook[at];
            if due > Instant::now() || self.operator_has(provider) {
                continue;
            }
            let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
            let fetched = fetcher.fetch(provider, self.day_of(provider), today).await;
            let outlook = &mut self.outlook[at];
            match fetched {
                Ok(edition) => {
                    outlook.trouble = None;
                    outlook.due = Instant::now() + DAY + jitter();
                    if let Some(edition) = edition {
                        let prefixes = edition.list.entries().len();
                        tracing::info!(provider = provider.name(), prefixes, "ranges refreshed");
                        self.put(edition).await;
                        changed = true;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "ranges not refreshed; the list at hand is used");
                    outlook.trouble = Some(error.to_string());
                    outlook.failures += 1;
                    outlook.due = Instant::now() + RETRY + jitter();
                }
            }
        }
        let standing = self.with_outlook(Standing::clone(&self.standing.load()));
        self.standing.store(Arc::new(standing));
        changed
    }

    fn with_outlook(&self, mut standing: Standing) -> Standing {
        for (source, outlook) in standing.sources.iter_mut().zip(&self.outlook) {
            source.failures = outlook.failures;
            source.refresh_trouble.clone_from(&outlook.trouble);
        }
        standing
    }

    fn operator_has(&self, provider: Provider) -> bool {
        let standing = self.standing.load();
        standing
            .sources
            .iter()
            .any(|source| source.provider == provider && source.origin == Some(Origin::Directory))
    }

    fn day_of(&self, provider: Provider) -> Option<jiff::civil::Date> {
        let standing = self.standing.load();
        standing.sources.iter().find(|source| source.provider == provider)?.as_of
    }

    /// Puts a download into the cache, or holds it where there is none.
    async fn put(&mut self, edition: Edition) {
        self.unsaved.retain(|other| other.list.provider != edition.list.provider);
        let Some(cache) = self.settings.cache.clone() else {
            self.unsaved.push(edition);
            return;
        };
        let saved = tokio::task::spawn_blocking(move || (save(&cache, &edition), edition)).await;
        if let Ok((Err(error), edition)) = saved {
            let cache = self.settings.cache.as_deref().unwrap_or_else(|| "".as_ref());
            tracing::warn!(cache = %cache.display(), %error, "refreshed ranges are not cached");
            self.unsaved.push(edition);
        }
    }

    async fn reload(&self) -> Option<Arc<Ranges>> {
        let (settings, unsaved) = (self.settings.clone(), self.unsaved.clone());
        let loaded = tokio::task::spawn_blocking(move || load(&settings, &unsaved)).await;
        let (ranges, standing) = loaded.ok()?;
        self.standing.store(Arc::new(self.with_outlook(standing)));
        self.tell();
        Some(Arc::new(ranges))
    }

    fn tell(&self) {
        let standing = self.standing.load();
        let noted = standing.sources.iter().filter(|source| !source.note.is_empty());
        let noted: Vec<String> =
            noted.map(|source| format!("{} ({})", source.provider.name(), source.note)).collect();
        if !noted.is_empty() {
            let ranges = noted.join(", ");
            tracing::warn!(ranges, "cloud ranges are not the published ones: see docs/ranges.md");
        }
        for source in &standing.sources {
            let provider = source.provider.name();
            if let Some(trouble) = &source.trouble {
                tracing::warn!(provider, trouble, "ranges");
            }
            tracing::debug!(provider, prefixes = source.prefixes, origin = ?source.origin, "ranges");
        }
    }
}

fn in_directory(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let files = Provider::ALL.into_iter().filter_map(|provider| dropped(dir, provider));
    let stamped = files.filter_map(|path| {
        let file = std::fs::metadata(&path).ok()?;
        Some((path, file.len(), file.modified().ok()?))
    });
    stamped.collect()
}

/// Up to a quarter of an hour, so that the servers of the world do not ask at once.
fn jitter() -> Duration {
    Duration::from_secs(RandomState::new().hash_one(0) % (15 * 60))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const AWS: &str = r#"{"createDate": "2026-01-31-0", "prefixes": [
        {"ip_prefix": "203.0.113.0/24", "region": "NAME", "service": "EC2"}]}"#;

    fn region(ranges: &Ranges) -> Option<String> {
        let range = ranges.lookup("203.0.113.9".parse().unwrap())?;
        range.region.as_deref().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_download_is_published_kept_for_the_next_start_and_a_failure_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirror = listener.local_addr().unwrap();
        let router = Router::new().route("/aws", get(AWS));
        drop(tokio::spawn(async move { axum::serve(listener, router).await }));
        let urls = Urls {
            aws: format!("http://{mirror}/aws"),
            gcp: format!("http://{mirror}/nothing"),
            google: format!("http://{mirror}/nothing"),
            azure: format!("http://{mirror}/nothing"),
        };
        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join("ranges");
        let settings = Settings { cache: Some(cache.clone()), ..Settings::default() };

        let (keeper, before) = Keeper::open(settings.clone(), Some(urls));
        assert_eq!(region(&before), None);
        let standing = keeper.standing();
        let (publish, mut published) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let kept = keeper.keep(stopped, move |ranges| publish.try_send(ranges).unwrap());
        let kept = tokio::spawn(kept);
        assert_eq!(region(&published.recv().await.unwrap()).as_deref(), Some("name"));
        drop(stop);
        kept.await.unwrap();

        let standing = standing.load();
        let [aws, gcp, ..] = &standing.sources[..] else { panic!("four sources") };
        assert_eq!((aws.origin, aws.failures), (Some(Origin::Download), 0));
        assert_eq!((gcp.origin, gcp.failures), (Some(Origin::Embedded), 1));
        assert!(gcp.refresh_trouble.as_deref().unwrap().contains("answered 404"));

        let (keeper, after) = Keeper::open(settings, None);
        assert_eq!(region(&after).as_deref(), Some("name"));
        // It is of today: nobody need be asked before tomorrow.
        let wait = keeper.outlook[0].due.saturating_duration_since(Instant::now());
        assert!(wait > DAY / 2, "{wait:?}");
    }

    #[tokio::test]
    async fn a_file_dropped_into_the_directory_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings { dir: Some(home.path().to_owned()), ..Settings::default() };
        let (mut keeper, _) = Keeper::open(settings, None);
        assert!(!keeper.directory_changed().await);
        std::fs::write(home.path().join("ip-ranges.json"), AWS).unwrap();
        assert!(keeper.directory_changed().await);
        assert_eq!(region(&keeper.reload().await.unwrap()).as_deref(), Some("name"));
        assert!(keeper.operator_has(Provider::Aws));
        assert!(!keeper.directory_changed().await);
    }
}
