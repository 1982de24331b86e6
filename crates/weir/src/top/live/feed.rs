//! Asks, on a thread of its own: a slow answer must not stop the keys.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use weir_flow::Field;
use weir_server::answer::{SeriesQuestion, TopQuestion};
use weir_server::{AnswerError, Answers, moment};
use weir_store::Measure;

use super::wants::{Answer, Part, SeriesWant, TopWant, ValuesWant, Wants};

/// Answers that may wait to be drawn.
const WAITING: usize = 2;
/// First and longest wait before somebody who did not answer is asked again, seconds.
const RETRY_SECONDS: (u64, u64) = (1, 10);
/// What is stored changes every ten seconds; half of that is soon enough.
const STORED_EVERY: Duration = Duration::from_secs(5);
/// Until the first reading there is nothing to show: it is looked for this often.
const UNREAD_EVERY: Duration = Duration::from_millis(100);
/// Values offered for the filter line.
const VALUES: usize = 50;

/// The screen's end of the feed.
#[derive(Debug)]
pub(super) struct Feed {
    wants: Sender<Wants>,
    /// To take back what is no longer wanted.
    outdated: Receiver<Wants>,
    answers: Receiver<Answer>,
}

impl Feed {
    /// Begins to ask; ends once the screen's end is dropped.
    pub(super) fn start(answers: Arc<dyn Answers>, refresh: Duration) -> std::io::Result<Self> {
        let (wants, wanted) = crossbeam_channel::bounded(1);
        let (found, finds) = crossbeam_channel::bounded(WAITING);
        let outdated = wanted.clone();
        let asker = Asker { answers, refresh, wanted, found };
        // Not waited for at the end: it may be in the middle of a request.
        thread::Builder::new().name("top-feed".to_owned()).spawn(move || asker.run())?;
        Ok(Self { wants, outdated, answers: finds })
    }

    /// What is wanted from now on; the newest counts.
    pub(super) fn want(&self, mut wants: Wants) {
        while let Err(TrySendError::Full(refused)) = self.wants.try_send(wants) {
            drop(self.outdated.try_recv());
            wants = refused;
        }
    }

    /// An answer, if one is there.
    pub(super) fn next(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

struct Asker {
    answers: Arc<dyn Answers>,
    refresh: Duration,
    wanted: Receiver<Wants>,
    found: Sender<Answer>,
}

/// The screen is gone.
struct Gone;

impl Asker {
    fn run(self) {
        let Ok(first) = self.wanted.recv() else { return };
        let mut wants = first;
        let mut due: [Option<Instant>; Part::ALL.len()] = [None; Part::ALL.len()];
        let mut retry = RETRY_SECONDS.0;
        loop {
            let pause = match self.ask_what_is_due(&wants, &mut due, retry) {
                Err(Gone) => return,
                Ok(Reached::No) => {
                    let pause = Duration::from_secs(retry);
                    retry = (retry * 2).min(RETRY_SECONDS.1);
                    due = [None; Part::ALL.len()];
                    pause
                }
                Ok(Reached::Yes) => {
                    retry = RETRY_SECONDS.0;
                    let next = if wants.paused { None } else { due.iter().flatten().min() };
                    next.map_or(Duration::from_hours(1), |at| at.duration_since(Instant::now()))
                }
            };
            match self.wanted.recv_timeout(pause) {
                Ok(newer) => {
                    for (part, due) in Part::ALL.into_iter().zip(&mut due) {
                        let is_resumed = wants.paused && !newer.paused;
                        if is_resumed || differs(part, &wants, &newer) {
                            *due = None;
                        }
                    }
                    wants = newer;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Asks everything that was never asked or is due again.
    fn ask_what_is_due(
        &self,
        wants: &Wants,
        due: &mut [Option<Instant>],
        retry_seconds: u64,
    ) -> Result<Reached, Gone> {
        for (part, due) in Part::ALL.into_iter().zip(due) {
            // Something newer is wanted: what is left of this may be of no use.
            if !self.wanted.is_empty() {
                return Ok(Reached::Yes);
            }
            let begun = Instant::now();
            if due.is_some_and(|due| wants.paused || due > begun) {
                continue;
            }
            let answer = match ask(&*self.answers, wants, part, moment::now_seconds()) {
                None => None,
                Some(Ok(answer)) => Some(answer),
                Some(Err(AnswerError::Unreachable(why))) => {
                    let answer = Answer::Unreachable { why, retry_seconds };
                    self.found.send(answer).or(Err(Gone))?;
                    return Ok(Reached::No);
                }
                Some(Err(error)) => Some(Answer::Refused(part, chain(&error))),
            };
            let is_unread = answer.as_ref().is_some_and(Answer::is_unread);
            *due = Some(begun + if is_unread { UNREAD_EVERY } else { self.every(part) });
            if let Some(answer) = answer {
                self.found.send(answer).or(Err(Gone))?;
            }
        }
        Ok(Reached::Yes)
    }

    fn every(&self, part: Part) -> Duration {
        match part {
            Part::Connections | Part::Rates | Part::Nodes | Part::Status => self.refresh,
            Part::Top | Part::Series => self.refresh.max(STORED_EVERY),
            // Asked once.
            Part::Values => Duration::from_hours(1),
        }
    }
}

enum Reached {
    Yes,
    No,
}

fn differs(part: Part, old: &Wants, new: &Wants) -> bool {
    match part {
        Part::Status => old.status != new.status,
        Part::Connections => old.connections != new.connections,
        Part::Rates => old.rates != new.rates,
        Part::Nodes => old.nodes != new.nodes,
        Part::Top => old.top != new.top,
        Part::Series => old.series != new.series,
        Part::Values => old.values != new.values,
    }
}

/// Asks one question, where it is wanted at all.
fn ask(
    answers: &dyn Answers,
    wants: &Wants,
    part: Part,
    now_seconds: u64,
) -> Option<Result<Answer, AnswerError>> {
    let range = |seconds: u64| now_seconds.saturating_sub(seconds)..now_seconds + 1;
    Some(match part {
        Part::Status => answers
            .status(range(wants.status.since_seconds))
            .map(|status| Answer::Status(Box::new(status))),
        Part::Connections => answers
            .connections(&wants.connections)
            .map(|found| Answer::Connections(wants.connections.clone(), found)),
        Part::Rates => {
            answers.rates(&wants.rates).map(|found| Answer::Rates(wants.rates.clone(), found))
        }
        Part::Nodes => answers.rates(&wants.nodes).map(Answer::Nodes),
        Part::Top => {
            let TopWant { by, filter, since_seconds, limit } = wants.top.clone();
            let range = range(since_seconds);
            let question =
                TopQuestion { by, range, filter, sort: Measure::Bytes, limit: Some(limit) };
            answers.top(&question).map(|report| Answer::Top(wants.top.clone(), report))
        }
        Part::Series => {
            let want = wants.series.as_ref()?;
            let SeriesWant { filter, since_seconds, step_seconds } = want.clone();
            let range = range(since_seconds);
            let question = SeriesQuestion { by: vec![], range, filter, step_seconds, limit: None };
            answers.series(&question).map(|report| Answer::Series(want.clone(), report))
        }
        Part::Values => {
            let want = wants.values.as_ref()?;
            values(answers, want).map(|values| Answer::Values(want.clone(), values))
        }
    })
}

fn values(answers: &dyn Answers, want: &ValuesWant) -> Result<Vec<String>, AnswerError> {
    let mut all = Vec::new();
    for field in &want.fields {
        all.extend(answers.values(Field::clone(field), &want.prefix, VALUES)?);
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(VALUES);
    Ok(all)
}

/// An error with its causes.
fn chain(error: &AnswerError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
