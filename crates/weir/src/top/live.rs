//! The screen of `weir top`: nodes, talkers and connections as they are now.
//!
//! [`show`] runs the loop: keys and answers go into [`app::App`], which says what to ask next
//! ([`wants::Wants`]); [`feed`] asks on a thread of its own; [`draw`] turns the state into a
//! picture.

mod app;
mod banners;
mod columns;
mod cursor;
mod draw;
mod feed;
mod filter_line;
mod layout;
mod messages;
mod picker;
mod talkers;
mod terminal;
mod text;
mod theme;
mod wants;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ratatui::crossterm::event::{self, Event};
use weir_agent::clock;
use weir_flow::Field;
use weir_server::Answers;

use self::app::{After, App};
use self::feed::Feed;
use self::terminal::Screen;
use self::theme::Theme;

use crate::render::Style;

pub(crate) use messages::Messages;

/// At most thirty pictures a second.
const BETWEEN_PICTURES: Duration = Duration::from_millis(33);
/// Answers and signals are looked for this often.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Keys that are taken before the next picture: a terminal that sends without end is drawn too.
const MOST_EVENTS: usize = 256;

/// What is shown, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Time between two questions for the live connections.
    pub(crate) refresh: Duration,
    /// Who answers, for the title: `this machine`, or an address.
    pub(crate) place: String,
    /// The filter to begin with: in the filter language, or a search word. Check it before with
    /// [`check_filter`]: one that cannot be read filters nothing.
    pub(crate) filter: String,
    /// The fields talkers are grouped by to begin with; empty: by source and destination.
    pub(crate) by: Vec<Field>,
    /// Totals are of this long.
    pub(crate) since: Duration,
    /// Whether colours are used.
    pub(crate) colour: bool,
}

impl Options {
    /// For weir on this machine, with everything as it usually is.
    pub(crate) fn here(refresh: Duration) -> Self {
        let style = Style::choose(true, std::env::var_os("NO_COLOR").as_deref());
        Self {
            refresh,
            place: "this machine".to_owned(),
            filter: String::new(),
            by: Vec::new(),
            since: Duration::from_mins(10),
            colour: style == Style::Coloured,
        }
    }
}

/// Why the screen closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody pressed `q`.
    Quit,
    /// `stopping` was set.
    Stopped,
}

/// Says what is wrong with a filter that is to be [`Options::filter`].
pub(crate) fn check_filter(text: &str) -> Result<(), weir_flow::filter::FilterError> {
    filter_line::read(text).map(drop)
}

/// Shows the screen until somebody quits or `stopping` is set, then prints `messages`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "whoever has a screen shown has no further use for them"
)]
pub(crate) fn show(
    answers: Arc<dyn Answers>,
    options: Options,
    stopping: &AtomicBool,
    messages: Messages,
) -> anyhow::Result<Ended> {
    let ended = run(answers, &options, stopping, &messages);
    // With stderr closed there is nobody to tell.
    drop(messages.flush(&mut io::stderr()));
    ended
}

fn run(
    answers: Arc<dyn Answers>,
    options: &Options,
    stopping: &AtomicBool,
    messages: &Messages,
) -> anyhow::Result<Ended> {
    let theme = Theme::new(options.colour, theme::is_unicode(|name| std::env::var(name).ok()));
    let feed = Feed::start(answers, options.refresh).context("start the thread that asks")?;
    let mut screen = Screen::take().context("take the terminal; weir top needs one")?;
    let size = screen.terminal().size().context("ask for the terminal's size")?;
    let mut app = App::new(options, size.width, size.height);
    let mut wanted = app.wants();
    feed.want(wanted.clone());

    let begun = Instant::now();
    let mut next_picture = begun;
    let mut is_changed = true;
    let mut pictures = Pictures::default();
    loop {
        let awake = Awake::now();
        if stopping.load(Ordering::Relaxed) {
            return Ok(Ended::Stopped);
        }
        if !Screen::is_ours() {
            bail!("a part of weir failed, see above");
        }
        is_changed |= app.tick(begun.elapsed());
        while let Some(answer) = feed.next() {
            app.fresh(answer);
            is_changed = true;
        }
        is_changed |= app.message(messages.last());
        if app.wants() != wanted {
            wanted = app.wants();
            feed.want(wanted.clone());
        }
        let now = Instant::now();
        if is_changed && now >= next_picture {
            let terminal = screen.terminal();
            terminal.draw(|frame| draw::draw(frame, &app, theme)).context("draw the screen")?;
            next_picture = now + BETWEEN_PICTURES;
            is_changed = false;
            pictures.add(&awake);
        }
        let wait = if is_changed {
            next_picture.saturating_duration_since(now).min(BETWEEN_LOOKS)
        } else {
            BETWEEN_LOOKS
        };
        if !Screen::wait(wait).context("wait for keys")? {
            return Ok(Ended::Stopped);
        }
        match take_events(&mut app)? {
            None => {}
            Some(After::GoOn) => is_changed = true,
            Some(After::Quit) => return Ok(Ended::Quit),
            Some(After::Suspend) => {
                screen.suspend().context("suspend weir")?;
                let size = screen.terminal().size().context("ask for the terminal's size")?;
                app.resize(size.width, size.height);
                is_changed = true;
            }
        }
    }
}

/// When a round of the loop began, by the clock and in CPU time.
struct Awake {
    at: Instant,
    cpu_nanos: u64,
}

impl Awake {
    fn now() -> Self {
        Self { at: Instant::now(), cpu_nanos: clock::thread_cpu_nanos() }
    }
}

/// How long pictures took, answers taken in included; the log tells it when the screen closes.
#[derive(Default)]
struct Pictures {
    count: u32,
    total: Duration,
    longest: Duration,
    /// CPU time of the dearest: on a busy machine others take part in the longest.
    dearest: Duration,
}

impl Pictures {
    fn add(&mut self, awake: &Awake) {
        let took = awake.at.elapsed();
        let cpu = clock::thread_cpu_nanos().saturating_sub(awake.cpu_nanos);
        self.count += 1;
        self.total += took;
        self.longest = self.longest.max(took);
        self.dearest = self.dearest.max(Duration::from_nanos(cpu));
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        tracing::debug!(
            pictures = self.count,
            mean_ms = milliseconds(self.total / self.count.max(1)),
            longest_ms = milliseconds(self.longest),
            dearest_cpu_ms = milliseconds(self.dearest),
            "the screen closes"
        );
    }
}

/// Takes all keys that are there. `None`: there were none.
fn take_events(app: &mut App) -> anyhow::Result<Option<After>> {
    let is_there = || match event::poll(Duration::ZERO) {
        // A signal came; the loop looks what it was.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        other => other.context("look for keys"),
    };
    let mut taken = None;
    let mut size = None;
    for _ in 0..MOST_EVENTS {
        if !is_there()? {
            break;
        }
        taken = Some(After::GoOn);
        match event::read().context("read a key")? {
            Event::Key(key) => match app.key(key) {
                After::GoOn => {}
                after => return Ok(Some(after)),
            },
            Event::Resize(width, height) => size = Some((width, height)),
            _ => {}
        }
    }
    // Of many sizes in a row the last one counts.
    if let Some((width, height)) = size {
        app.resize(width, height);
    }
    Ok(taken)
}
