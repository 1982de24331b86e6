//! A screen over a pipeline of this process, and finding one that runs already.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use weir_conntrack::capability;
use weir_server::answer::{NodeStatus, State};
use weir_server::moment;
use weir_server::{AnswerError, Answers};
use weir_store::{Retention, SqliteStore};

use super::live;
use crate::args::{TopArgs, UsageError};
use crate::data_dir;
use crate::location::{BaseUrl, Location};
use crate::remote::Remote;
use crate::say::{self, say};
use crate::station::{Door, Plan, Station};

/// Where `weir up` answers unless told otherwise.
const USUAL_API: &str = "http://127.0.0.1:8885";
/// How long it may take to find out whether a weir answers.
const PROBE: Duration = Duration::from_secs(2);
/// CPU time for reading that somebody who watches is worth, as a share of one core.
const CPU_BUDGET: f64 = 0.04;
/// Nothing is kept longer than a screen shows.
const RETENTION: Retention = Retention { ten_seconds: 3_600, minute: 86_400, hour: 86_400 };
/// Memory, where there is such a directory: what is kept there is gone with the process.
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "weir-top-";

/// Shows a station until somebody quits or `stopping`; then stops it.
pub(crate) fn watch(
    station: Station,
    options: live::Options,
    stopping: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let query = station.query();
    let messages = live::Messages::default();
    let to_screen = say::to_screen(messages.clone());
    let reader = {
        let stopping = Arc::clone(stopping);
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let ended = station.run(None, &stopping);
            // If it failed, the screen has nothing left to show.
            stopping.store(true, Ordering::Release);
            ended
        })
    }
    .context("start the reader")?;
    let shown = live::show(query, options, stopping, messages);
    drop(to_screen);
    stopping.store(true, Ordering::Release);
    say("stopping: one last look, and what was read goes to the store");
    let read = reader.join().unwrap_or_else(|_panic| {
        Err(anyhow::anyhow!("the reader panicked; what it had read is in the spool"))
    });
    read?;
    shown.map(drop)
}

/// Watches this machine's sockets, for whoever may not read conntrack.
pub(crate) fn sockets(interval: Duration, stopping: &Arc<AtomicBool>) -> anyhow::Result<()> {
    passing(Door::Sockets, &Watch::plain(interval), stopping)
}

/// What of `weir top`'s arguments a passing station needs.
struct Watch {
    options: live::Options,
    interval: Duration,
    activate_conntrack: bool,
    set_sysctls: bool,
}

impl Watch {
    fn plain(interval: Duration) -> Self {
        let options = live::Options::here(interval);
        Self { options, interval, activate_conntrack: false, set_sysctls: false }
    }
}

/// `weir top`: attaches to a weir that runs, else reads by itself and keeps nothing.
pub(super) fn run(args: &TopArgs, stopping: &Arc<AtomicBool>) -> anyhow::Result<()> {
    if let Err(error) = live::check_filter(&args.filter) {
        let shown = error.render(&args.filter);
        return Err(UsageError(format!("invalid value for '--filter <FILTER>'\n{shown}")).into());
    }
    let mut options = live::Options::here(args.interval);
    options.filter.clone_from(&args.filter);
    options.by.clone_from(&args.by);
    options.since = args.since;
    if let Some((remote, place)) = whom(args)? {
        options.place = place;
        let messages = live::Messages::default();
        let _to_screen = say::to_screen(messages.clone());
        return live::show(Arc::new(remote), options, stopping, messages).map(drop);
    }
    let door = match Door::of(&args.conntrack) {
        Door::Netlink if !capability::net_admin()? => Door::Sockets,
        door => door,
    };
    let TopArgs { interval, activate_conntrack, set_sysctls, .. } = *args;
    let watch = Watch { options, interval, activate_conntrack, set_sysctls };
    passing(door, &watch, stopping)
}

/// A station whose data lives as long as somebody watches.
fn passing(door: Door, watch: &Watch, stopping: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let directory = Passing::make()?;
    let plan = Plan {
        data_dir: directory.0.path().to_owned(),
        retention: RETENTION,
        interval: watch.interval,
        cpu_budget: CPU_BUDGET,
        door,
        activate_conntrack: watch.activate_conntrack,
        set_sysctls: watch.set_sysctls,
    };
    let station = Station::open(&plan, stopping)?;
    self::watch(station, watch.options.clone(), stopping)
}

/// A data directory that goes with the process.
struct Passing(TempDir);

impl Passing {
    fn make() -> anyhow::Result<Self> {
        let usual = std::env::temp_dir();
        let places = [Path::new(MEMORY), &usual];
        for place in places {
            sweep(place);
        }
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let make = |place: &&Path| {
            tempfile::Builder::new()
                .prefix(&prefix)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(place)
        };
        match make(&places[0]).or_else(|_| make(&places[1])) {
            Ok(directory) => Ok(Self(directory)),
            Err(error) => {
                Err(error).with_context(|| format!("make a directory in {}", usual.display()))
            }
        }
    }
}

/// Removes what a killed one left.
fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let age = entry.metadata().and_then(|about| about.modified()).map(|at| at.elapsed());
        // One that is being made has no lock yet.
        let is_old = age.is_ok_and(|age| age.is_ok_and(|age| age > Duration::from_mins(1)));
        // Whoever still uses it holds its lock, in whatever container that is.
        if is_ours && is_old && matches!(SqliteStore::writer_of(entry.path()), Ok(None)) {
            // Somebody else's cannot be removed, and is not ours to complain about.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// The weir to attach to, and what to call it; `None` where none runs.
fn whom(args: &TopArgs) -> anyhow::Result<Option<(Remote, String)>> {
    match args.location.as_deref().map(|text| Location::parse(text, &[])).transpose()? {
        Some(Location::Url(url)) => Ok(Some(remote(url))),
        Some(Location::Directory(path)) => {
            let url = api_of(&path)?.with_context(|| {
                format!(
                    "no weir that answers runs on {}; start one with weir up --data-dir, or ask \
                     what is kept there with weir query",
                    path.display()
                )
            })?;
            Ok(Some(remote(url)))
        }
        // Its own door, or its own reading, was asked for.
        None if args.standalone || Door::of(&args.conntrack) != Door::Netlink => Ok(None),
        None => Ok(running_here()),
    }
}

/// The `weir up` of this machine, if one answers.
fn running_here() -> Option<(Remote, String)> {
    let usual_dir = std::env::var_os("WEIR_DATA_DIR").map(PathBuf::from);
    let said = data_dir::choose(usual_dir).ok().and_then(|path| api_of(&path).ok().flatten());
    let usual = BaseUrl::parse(USUAL_API).ok();
    let now = moment::now_seconds();
    said.into_iter().chain(usual).find(|url| answers(url, now)).map(remote)
}

/// True where a weir answers, if only that it is busy.
fn answers(url: &BaseUrl, now: u64) -> bool {
    let asked = Remote::within(url.clone(), PROBE).status(now..now + 1);
    matches!(asked, Ok(_) | Err(AnswerError::Busy(_)))
}

/// Where the weir of a data directory answers.
fn api_of(data_dir: &Path) -> anyhow::Result<Option<BaseUrl>> {
    let file: PathBuf = data_dir.join("status.json");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let status: NodeStatus =
        serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
    // One that was killed said last that it runs, and somebody else may answer there by now.
    if status.state == State::Stopped || SqliteStore::writer_of(data_dir)?.is_none() {
        return Ok(None);
    }
    Ok(status.api.and_then(|url| BaseUrl::parse(&url).ok()))
}

fn remote(url: BaseUrl) -> (Remote, String) {
    let place = url.as_str().to_owned();
    (Remote::new(url), place)
}
