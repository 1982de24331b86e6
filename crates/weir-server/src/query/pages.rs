//! Flows page by page, in the order of time.
//!
//! A page is read step by step instead of all at once: a slice of the range that begins with one
//! minute's worth of steps and grows while it brings little, so that what is held at a time depends
//! on the page and not on the range. Slices end where steps end, and so sum to what the whole range
//! would have summed to.

use std::ops::Range;
use std::time::{Duration, Instant};

use weir_flow::Field;
use weir_store::{Cell, FlowQuery, FlowStore, Measure, Order, StoreError, Table};

use super::cursor::{Cursor, digest};
use super::from_store;
use crate::answer::{AnswerError, FlowsPage, FlowsQuestion, Report};

/// Steps in the first slice.
const FIRST_STEPS: u64 = 6;

/// A slice that brings less than a page divided by this is followed by one this much longer.
const GROWTH: u64 = 4;

/// How long finding one page may take: somebody waits, and others want to ask, too.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most rows of one step among which the last row of the page before is looked for.
const MAX_ROWS_OF_STEP: usize = 100_000;

/// All of a flow's fields. Ids and the IP version follow from the rest, yet whoever reads the
/// answer should not have to work them out.
fn key_fields() -> Vec<Field> {
    Field::all().collect()
}

/// The flows of a slice of the question's range, one by one.
pub(super) fn query(question: &FlowsQuestion, range: Range<u64>, step_seconds: u64) -> FlowQuery {
    FlowQuery {
        range,
        filter: question.filter.clone(),
        group_by: key_fields(),
        bucket_seconds: Some(step_seconds),
        measures: Measure::ALL.to_vec(),
        order: Order::Keys,
        limit: None,
    }
}

/// The page after the question's cursor; without one, the first.
pub(super) fn page(
    store: &dyn FlowStore,
    question: &FlowsQuestion,
) -> Result<FlowsPage, AnswerError> {
    let mut reading = Reading::begin(store, question)?;
    let deadline = Instant::now() + PATIENCE;
    while reading.wants_more() {
        if Instant::now() > deadline {
            return Err(AnswerError::Busy(
                "finding the flows of this page took too long: ask for a shorter range".to_owned(),
            ));
        }
        reading.read_slice()?;
    }
    Ok(reading.finish())
}

/// A page that is being read.
struct Reading<'a> {
    store: &'a dyn FlowStore,
    question: &'a FlowsQuestion,
    limit: usize,
    /// Where the page began.
    began: u64,
    /// What is left of the range.
    rest: Range<u64>,
    /// Length of the steps: as asked for at first, then as the store has it.
    step_seconds: u64,
    slice_steps: u64,
    /// How many rows of the first step stood on pages before.
    before: usize,
    page: Option<Table>,
}

impl<'a> Reading<'a> {
    fn begin(store: &'a dyn FlowStore, question: &'a FlowsQuestion) -> Result<Self, AnswerError> {
        let mut reading = Self {
            store,
            question,
            limit: question.limit.unwrap_or(usize::MAX),
            began: question.range.start,
            rest: question.range.clone(),
            step_seconds: question.step_seconds.max(1),
            slice_steps: FIRST_STEPS,
            before: 0,
            page: None,
        };
        if let Some(text) = &question.cursor {
            let cursor = Cursor::read(text).ok_or_else(|| {
                let hint = "not a cursor: take next_cursor of the page before as it is";
                AnswerError::Question(hint.to_owned())
            })?;
            reading.resume(cursor)?;
        }
        Ok(reading)
    }

    /// One row more than the page holds tells whether there is another page.
    fn wants_more(&self) -> bool {
        let is_over = self.page.is_some() && self.rest.is_empty();
        !is_over && self.page.as_ref().is_none_or(|page| page.rows.len() <= self.limit)
    }

    /// Finds the row that the cursor points at, and takes what follows it in its step.
    fn resume(&mut self, cursor: Cursor) -> Result<(), AnswerError> {
        self.rest = cursor.from..cursor.end;
        self.began = cursor.from;
        self.step_seconds = cursor.step_seconds;
        let slice = cursor.from..self.end_of_steps(1);
        let take = self.limit.saturating_add(1);
        // Where it stood before, as nearly always; else among all of its step.
        let near = cursor.rank.saturating_add(1).saturating_add(take);
        for limit in [near.min(MAX_ROWS_OF_STEP), MAX_ROWS_OF_STEP] {
            let query = FlowQuery {
                limit: Some(limit),
                ..query(self.question, slice.clone(), cursor.step_seconds)
            };
            let mut table = self.store.query(&query).map_err(from_store)?;
            if table.bucket_seconds != Some(cursor.step_seconds) {
                return Err(AnswerError::CursorGone);
            }
            let place = table.rows.iter().position(|row| self.digest(row) == cursor.digest);
            let after = place.map_or(0, |place| table.rows.len() - place - 1);
            if table.more && after < take {
                continue;
            }
            let place = place.ok_or(AnswerError::CursorGone)?;
            table.rows.drain(..=place);
            self.before = place + 1;
            self.rest.start = slice.end;
            self.page = Some(table);
            return Ok(());
        }
        Err(AnswerError::Question(format!(
            "one step has more than {MAX_ROWS_OF_STEP} flows, too many for pages: ask for shorter \
             steps or a narrower filter"
        )))
    }

    fn read_slice(&mut self) -> Result<(), AnswerError> {
        let slice = self.rest.start..self.end_of_steps(self.slice_steps);
        let held = self.page.as_ref().map_or(0, |page| page.rows.len());
        let wanted = self.limit.saturating_add(1) - held;
        let query = FlowQuery {
            limit: Some(wanted),
            ..query(self.question, slice.clone(), self.step_seconds)
        };
        let table = match self.store.query(&query) {
            // Too much for one slice is not too much for the page.
            Err(StoreError::TooManyGroups { .. } | StoreError::TooLarge { .. })
                if self.slice_steps > 1 =>
            {
                self.slice_steps = (self.slice_steps / GROWTH).max(1);
                return Ok(());
            }
            other => other.map_err(from_store)?,
        };
        let step_seconds = table.bucket_seconds.unwrap_or(self.step_seconds);
        if step_seconds != self.step_seconds {
            // Only longer steps are kept this far back. Slices must end where those end.
            if self.page.is_some() {
                return Err(AnswerError::Busy(
                    "what was asked for was thinned out just now: ask again".to_owned(),
                ));
            }
            self.step_seconds = step_seconds;
            return Ok(());
        }
        // At least one, or a small page would look through an empty past step by step.
        let few = (wanted / usize::try_from(GROWTH).unwrap_or(usize::MAX)).max(1);
        if table.rows.len() < few {
            self.slice_steps = self.slice_steps.saturating_mul(GROWTH);
        }
        self.rest.start = slice.end;
        self.append(table);
        Ok(())
    }

    fn append(&mut self, table: Table) {
        let Some(page) = &mut self.page else {
            self.page = Some(table);
            return;
        };
        page.window_seconds = page.window_seconds.min(table.window_seconds);
        if !table.covers.is_empty() {
            if page.covers.is_empty() {
                page.covers.start = table.covers.start;
            }
            page.covers.end = table.covers.end;
        }
        page.rows.extend(table.rows);
    }

    fn finish(self) -> FlowsPage {
        let next_cursor = self.next_cursor();
        let mut page = self.page.expect("reading goes on until there is a page");
        page.rows.truncate(self.limit);
        page.more = next_cursor.is_some();
        if page.more {
            page.covers.end = page.covers.end.max(self.rest.end);
        }
        FlowsPage { report: Report::from_table(&page), next_cursor }
    }

    /// Points at the page's last row, where rows follow it.
    fn next_cursor(&self) -> Option<String> {
        let rows = &self.page.as_ref()?.rows;
        if rows.len() <= self.limit {
            return None;
        }
        let last = rows.get(self.limit.checked_sub(1)?)?;
        let step = bucket(last)?;
        let same_step = rows[..self.limit].iter().rev().take_while(|row| bucket(row) == Some(step));
        let before = if step <= self.began { self.before } else { 0 };
        let cursor = Cursor {
            from: step.max(self.began),
            step_seconds: self.step_seconds,
            end: self.rest.end,
            rank: same_step.count() - 1 + before,
            digest: self.digest(last),
        };
        Some(cursor.write())
    }

    fn digest(&self, row: &[Cell]) -> u128 {
        let key = row.len() - Measure::ALL.len().min(row.len());
        digest(&self.question.filter, self.question.step_seconds, &row[..key])
    }

    /// The end of so many steps from here on, as far as the range goes.
    fn end_of_steps(&self, steps: u64) -> u64 {
        let Range { start, end } = self.rest;
        let first = start - start % self.step_seconds;
        first.saturating_add(self.step_seconds.saturating_mul(steps)).min(end)
    }
}

/// The step a row is in.
fn bucket(row: &[Cell]) -> Option<u64> {
    match row.first() {
        Some(Cell::Time(start)) => Some(*start),
        _ => None,
    }
}
