//! Answers of any length: read, printed and forgotten part by part.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_flow::{EndpointField, Field, Side};
use weir_server::answer::{
    AnswerError, Answers, Cell, FlowsPage, FlowsQuestion, Report, SeriesQuestion,
};
use weir_server::moment;

use super::progress::Progress;
use crate::args::{FlowsArgs, SeriesArgs};
use crate::render::{self, Pages, Shown};
use crate::signals;

/// Rows that are asked for at a time: what is held of a long list, here and there.
const PAGE_ROWS: usize = 1_000;
/// Steps in the first part of a series.
const FIRST_STEPS: u64 = 360;
/// A part that brings fewer rows is followed by a longer one.
const FEW_ROWS: usize = 5_000;
/// The longest windows that are kept, seconds: where parts end, steps of every length end.
const LONGEST_WINDOW: u64 = 3_600;

/// Lists flows page by page.
pub(super) fn flows(args: FlowsArgs, answers: &dyn Answers) -> anyhow::Result<()> {
    let FlowsArgs { selection, step, sort, limit, cursor, output } = args;
    let range = selection.range(moment::now_seconds())?;
    let filter = selection.filter()?;
    let stopping = signals::stop()?;
    let mut progress = Progress::new(range.clone());
    let mut question =
        FlowsQuestion { range, filter, step_seconds: step, sort, limit: None, cursor };
    let mut left = super::at_most(limit);
    render::to_stdout(|out, style| {
        let mut pages = Pages::new(output.output, style, &is_in_flow_table, out);
        loop {
            question.limit = match sort {
                // Sorted by a sum, a list has no pages.
                Some(_) => left,
                None => Some(left.map_or(PAGE_ROWS, |left| left.min(PAGE_ROWS))),
            };
            let FlowsPage { report, next_cursor } =
                answers.flows(&question).map_err(|error| cut_off(error, &question))?;
            pages.page(&report)?;
            progress.advance(report.rows.len(), last_time(&report));
            left = left.map(|left| left.saturating_sub(report.rows.len()));
            let Some(cursor) = next_cursor.filter(|_| left != Some(0)) else {
                return Ok(pages.finish(report.more)?);
            };
            if question.cursor.as_ref() == Some(&cursor) {
                let problem = "the list of flows does not go on: its next page is the last one";
                return Err(AnswerError::Failed(problem.to_owned()).into());
            }
            question.cursor = Some(cursor);
            if stopping.load(Ordering::Relaxed) {
                let stopped = AnswerError::Failed("stopped".to_owned());
                return Err(cut_off(stopped, &question));
            }
        }
    })
}

/// Says how to go on where a part of the list came already.
fn cut_off(error: AnswerError, question: &FlowsQuestion) -> anyhow::Error {
    let Some(cursor) = &question.cursor else { return error.into() };
    let hint = format!(
        "the list is cut off here; the same command with --cursor {} goes on",
        Shown(cursor)
    );
    anyhow::Error::new(error).context(hint)
}

/// Sums step by step, a part of the range after the other.
pub(super) fn series(args: SeriesArgs, answers: &dyn Answers) -> anyhow::Result<()> {
    let SeriesArgs { selection, by, step, limit, output } = args;
    let range = selection.range(moment::now_seconds())?;
    let filter = selection.filter()?;
    let limit = super::at_most(limit);
    let question = SeriesQuestion { by, range, filter, step_seconds: step, limit };
    if limit.is_some() {
        return Ok(render::print(&answers.series(&question)?, output.output)?);
    }
    let stopping = signals::stop()?;
    let mut parts = Parts::new(question, answers);
    render::to_stdout(|out, style| {
        let mut pages = Pages::new(output.output, style, &|_| true, out);
        while let Some(report) = parts.next(&stopping)? {
            pages.page(&report)?;
        }
        Ok(pages.finish(false)?)
    })
}

/// A series in parts that end where steps end, so that they sum to what the whole would.
struct Parts<'a> {
    answers: &'a dyn Answers,
    question: SeriesQuestion,
    /// What is left of the range.
    rest: Range<u64>,
    steps: u64,
    /// True once a part came, and with it the step that the store has.
    has_begun: bool,
    progress: Progress,
}

impl<'a> Parts<'a> {
    fn new(question: SeriesQuestion, answers: &'a dyn Answers) -> Self {
        let rest = question.range.clone();
        let progress = Progress::new(rest.clone());
        Self { answers, question, rest, steps: FIRST_STEPS, has_begun: false, progress }
    }

    fn next(&mut self, stopping: &AtomicBool) -> Result<Option<Report>, AnswerError> {
        while !self.rest.is_empty() {
            if stopping.load(Ordering::Relaxed) {
                let from = moment::rfc3339(self.rest.start);
                let problem = format!("stopped; --since {from} goes on");
                return Err(AnswerError::Failed(problem));
            }
            if let Some(report) = self.ask()? {
                return Ok(Some(report));
            }
        }
        Ok(None)
    }

    /// Asks for the next part; nothing where it has to be asked for again in another length.
    fn ask(&mut self) -> Result<Option<Report>, AnswerError> {
        let end = self.end_of_part();
        self.question.range = self.rest.start..end;
        let report = match self.answers.series(&self.question) {
            Ok(report) if !report.more => report,
            // Too much for one answer is not too much for two.
            Ok(_) | Err(AnswerError::Question(_) | AnswerError::Busy(_)) if self.steps > 1 => {
                self.steps /= 4;
                return Ok(None);
            }
            Ok(report) => report,
            Err(error) => return Err(error),
        };
        let step = report.step_seconds.unwrap_or(self.question.step_seconds);
        if !self.has_begun && step != self.question.step_seconds {
            // Only longer steps are kept this far back, and so they are from here on.
            self.question.step_seconds = step;
            return Ok(None);
        }
        self.has_begun = true;
        self.rest.start = end;
        if report.rows.len() < FEW_ROWS {
            self.steps = self.steps.saturating_mul(4);
        }
        self.progress.advance(report.rows.len(), end);
        Ok(Some(report))
    }

    fn end_of_part(&self) -> u64 {
        let Range { start, end } = self.rest;
        let step = self.question.step_seconds.max(1);
        let unit = if self.steps > 1 { step * (LONGEST_WINDOW / divisor(step)) } else { step };
        let wanted = step.saturating_mul(self.steps.max(1));
        let length = wanted.checked_next_multiple_of(unit).unwrap_or(u64::MAX - u64::MAX % unit);
        (start - start % unit).saturating_add(length).min(end)
    }
}

/// The greatest common divisor of a step and the longest window.
fn divisor(step: u64) -> u64 {
    let (mut left, mut right) = (step, LONGEST_WINDOW);
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// The time of the last row.
fn last_time(report: &Report) -> u64 {
    match report.rows.last().and_then(|row| row.first()) {
        Some(Cell::Time(seconds)) => *seconds,
        _ => report.until,
    }
}

/// A table has no room for everything; JSON and CSV have.
fn is_in_flow_table(field: Field) -> bool {
    matches!(
        field,
        Field::Endpoint(Side::Source | Side::Destination, EndpointField::Name)
            | Field::DestinationPort
            | Field::Protocol
            | Field::Service
            | Field::Class
    )
}
