//! The state of the screen: keys and answers in, questions and a picture out. No clock, no
//! terminal, no network.

mod cluster;
mod keys;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ratatui::layout::Rect;
use weir_flow::{Field, Filter};
use weir_server::answer::{
    ConnectionRow, ConnectionSort, Connections, ConnectionsQuestion, RateRow, Rates, RatesQuestion,
    Report, Status,
};

use super::Options;
use super::banners::{Losses, banners};
use super::columns::Column;
use super::cursor::{Cursor, Rows};
use super::filter_line::{self, FilterLine, Read, quoted};
use super::layout::{self, Areas, Needs};
use super::picker::Picker;
use super::talkers::{self, Talker};
use super::wants::{Answer, Part, SeriesWant, StatusWant, TopWant, Wants};

/// What `[` and `]` go through, seconds.
const SINCE: [u64; 5] = [60, 600, 3_600, 21_600, 86_400];
/// States that are remembered for the list of them.
const MOST_STATES: usize = 32;
/// Readings of the selected connection that are kept.
const MOST_TRACED: usize = 240;
/// Nodes whose sums are asked for.
const MOST_NODES: usize = 1_000;
/// Rows asked for at least.
const LEAST_ROWS: usize = 200;
/// Windows of rows begin at multiples of this, so that a key is not a question each time.
const WINDOW_STEP: usize = 100;
/// Rows that an answer has at most.
const MOST_ROWS: usize = 10_000;

/// The pane that has the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    Nodes,
    Talkers,
    #[default]
    Connections,
}

/// What stands over the rest.
#[derive(Clone, Debug)]
pub(super) enum Overlay {
    /// The keys, from this line on.
    Help(usize),
    Picker(Picker),
}

/// Who speaks to whom is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scope {
    /// One machine's weir of itself.
    #[default]
    Machine,
    /// Agents, processes of their own.
    Cluster,
}

/// Only one version of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IpVersions {
    #[default]
    Both,
    Four,
    Six,
}

/// A group whose connections are shown.
#[derive(Clone, Debug)]
pub(super) struct Drill {
    pub(super) values: Vec<Option<String>>,
    pub(super) by: Vec<Field>,
    filter: Filter,
}

/// Nobody answers.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) since: Duration,
    pub(super) retry_at: Duration,
}

/// Rates of the selected connection while it was selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    id: String,
    at: Option<String>,
    pub(super) rates: VecDeque<(Option<f64>, Option<f64>)>,
}

/// Whether the screen goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Quit,
    Suspend,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) place: String,
    pub(super) size: Rect,
    /// Since the start.
    pub(super) now: Duration,
    pub(super) focus: Focus,
    pub(super) overlay: Option<Overlay>,
    pub(super) line: Option<FilterLine>,
    /// The filter in use, as it was written, and what it means.
    pub(super) filter_text: String,
    pub(super) filter: Read,
    /// The filter before it was edited.
    before: Option<(String, Read)>,
    filters: Vec<String>,
    groups: Vec<Vec<Field>>,
    group: usize,
    scope: Scope,
    pub(super) node: Option<String>,
    pub(super) drill: Option<Drill>,
    pub(super) sort: ConnectionSort,
    pub(super) state: Option<String>,
    pub(super) states: BTreeSet<String>,
    pub(super) names: bool,
    pub(super) ip: IpVersions,
    pub(super) paused: bool,
    pub(super) since_seconds: u64,
    pub(super) columns: [bool; Column::ALL.len()],
    details: Option<bool>,
    pub(super) node_cursor: Cursor,
    pub(super) talker_cursor: Cursor,
    pub(super) connection_cursor: Cursor,
    pub(super) status: Option<Status>,
    pub(super) connections: Option<Connections>,
    /// The question that the connections answer.
    answered: ConnectionsQuestion,
    pub(super) nodes: Vec<RateRow>,
    rates: Option<Rates>,
    top: Option<Report>,
    pub(super) talkers: Vec<Talker>,
    pub(super) talkers_more: bool,
    pub(super) series: Option<Report>,
    pub(super) trace: Trace,
    pub(super) trouble: Option<Trouble>,
    pub(super) refused: BTreeMap<Part, String>,
    pub(super) losses: Losses,
    /// The newest line of somebody else.
    pub(super) message: Option<String>,
}

impl App {
    /// Before anything is known. A filter that cannot be read is the caller's to refuse.
    pub(super) fn new(options: &Options, width: u16, height: u16) -> Self {
        let mut groups = talkers::presets();
        let mut by = options.by.clone();
        by.truncate(talkers::MOST_FIELDS);
        let group = match groups.iter().position(|group| *group == by) {
            Some(place) => place,
            None if by.is_empty() => 0,
            None => {
                groups.insert(0, by);
                0
            }
        };
        let all = Read { filter: Filter::All, became: None };
        Self {
            place: options.place.clone(),
            size: Rect::new(0, 0, width, height),
            now: Duration::ZERO,
            focus: Focus::default(),
            overlay: None,
            line: None,
            filter_text: options.filter.clone(),
            filter: filter_line::read(&options.filter).unwrap_or(all),
            before: None,
            filters: Vec::new(),
            groups,
            group,
            scope: Scope::default(),
            node: None,
            drill: None,
            sort: ConnectionSort::default(),
            state: None,
            states: ["ESTABLISHED", "TIME_WAIT"].map(str::to_owned).into(),
            names: true,
            ip: IpVersions::default(),
            paused: false,
            since_seconds: options.since.as_secs().max(1),
            columns: Column::usual(false),
            details: None,
            node_cursor: Cursor::default(),
            talker_cursor: Cursor::default(),
            connection_cursor: Cursor::default(),
            status: None,
            connections: None,
            answered: ConnectionsQuestion::default(),
            nodes: Vec::new(),
            rates: None,
            top: None,
            talkers: Vec::new(),
            talkers_more: false,
            series: None,
            trace: Trace::default(),
            trouble: None,
            refused: BTreeMap::new(),
            losses: Losses::default(),
            message: None,
        }
    }

    pub(super) fn resize(&mut self, width: u16, height: u16) {
        self.size = Rect::new(0, 0, width, height);
        self.follow();
    }

    /// The newest line of somebody else. True where it is another one.
    pub(super) fn message(&mut self, message: Option<String>) -> bool {
        let is_new = message != self.message;
        if is_new {
            self.message = message;
            self.follow();
        }
        is_new
    }

    /// Time goes by. True where the picture changes with it.
    pub(super) fn tick(&mut self, now: Duration) -> bool {
        let is_new_second = now.as_secs() != self.now.as_secs();
        self.now = now;
        let settled = self
            .line
            .as_mut()
            .and_then(|line| line.settled(now).map(|read| (line.text().to_owned(), read)));
        let is_settled = settled.is_some();
        if let Some((text, read)) = settled {
            self.use_filter(text, read);
        }
        is_settled || (self.trouble.is_some() && is_new_second)
    }

    fn use_filter(&mut self, text: String, read: Read) {
        if read != self.filter {
            self.talker_cursor.reset();
            self.connection_cursor.reset();
        }
        (self.filter_text, self.filter) = (text, read);
    }

    /// The fields that groups have.
    pub(super) fn by(&self) -> Vec<Field> {
        let by = &self.groups[self.group];
        if self.names { by.clone() } else { talkers::by_address(by) }
    }

    /// All questions whose answers are on the screen.
    pub(super) fn wants(&self) -> Wants {
        let filter = self.base_filter();
        let by = self.by();
        let series = self.areas().is_some_and(|areas| areas.details.is_some()).then(|| {
            let talker = self.talkers.get(self.talker_cursor.row())?;
            Some(SeriesWant {
                filter: filter.clone().and(talker.filter(&by)),
                since_seconds: self.since_seconds,
                step_seconds: (self.since_seconds / 60).next_multiple_of(10).max(10),
            })
        });
        Wants {
            status: StatusWant { since_seconds: self.since_seconds },
            connections: self.connections_question(&filter),
            rates: RatesQuestion { by: by.clone(), filter: filter.clone(), limit: talkers::LIMIT },
            nodes: RatesQuestion { by: vec![Field::Node], filter: Filter::All, limit: MOST_NODES },
            top: TopWant { by, filter, since_seconds: self.since_seconds, limit: talkers::LIMIT },
            series: series.flatten(),
            values: self.line.as_ref().and_then(FilterLine::wanted_values).cloned(),
            paused: self.paused,
        }
    }

    /// What groups and connections have in common: all but the group itself.
    fn base_filter(&self) -> Filter {
        let node = self.node.as_deref().map(|node| format!("node = {}", quoted(node)));
        let ip = match self.ip {
            IpVersions::Both => None,
            IpVersions::Four => Some("ip_version = 4".to_owned()),
            IpVersions::Six => Some("ip_version = 6".to_owned()),
        };
        [node, ip]
            .into_iter()
            .flatten()
            .filter_map(|text| Filter::parse(&text).ok())
            .fold(self.filter.filter.clone(), Filter::and)
    }

    fn connections_question(&self, base: &Filter) -> ConnectionsQuestion {
        let drill = self.drill.as_ref().map_or(Filter::All, |drill| drill.filter.clone());
        let page = self.page(Focus::Connections);
        let first = self.connection_cursor.first().saturating_sub(page);
        ConnectionsQuestion {
            node: None,
            filter: base.clone().and(drill),
            state: self.state.clone(),
            sort: self.sort,
            offset: first / WINDOW_STEP * WINDOW_STEP,
            limit: (3 * page + 2 * WINDOW_STEP)
                .next_multiple_of(WINDOW_STEP)
                .clamp(LEAST_ROWS, MOST_ROWS),
        }
    }

    /// Takes an answer; one to a question that is not asked any more is of no use.
    pub(super) fn fresh(&mut self, answer: Answer) {
        if let Answer::Unreachable { why, retry_seconds } = answer {
            let since = self.trouble.as_ref().map_or(self.now, |trouble| trouble.since);
            let retry_at = self.now + Duration::from_secs(retry_seconds);
            self.trouble = Some(Trouble { why, since, retry_at });
            return;
        }
        self.trouble = None;
        let wants = self.wants();
        match answer {
            Answer::Refused(part, why) => {
                self.refused.insert(part, why);
            }
            Answer::Status(status) => {
                self.refused.remove(&Part::Status);
                let lost = status.nodes.iter().map(|node| node.lost_events).sum();
                self.losses.note(lost, self.now);
                self.look_for_cluster(&status);
                self.status = Some(*status);
                self.add_silent_nodes();
            }
            Answer::Nodes(rates) => {
                self.refused.remove(&Part::Nodes);
                self.nodes = rates.rates;
                self.add_silent_nodes();
            }
            Answer::Connections(asked, connections) if asked == wants.connections => {
                self.refused.remove(&Part::Connections);
                self.take_connections(asked, connections);
            }
            Answer::Rates(asked, rates) if asked == wants.rates => {
                self.refused.remove(&Part::Rates);
                self.rates = Some(rates);
                self.merge();
            }
            Answer::Top(asked, report) if asked == wants.top => {
                self.refused.remove(&Part::Top);
                self.top = Some(report);
                self.merge();
            }
            Answer::Series(asked, report) if Some(&asked) == wants.series.as_ref() => {
                self.refused.remove(&Part::Series);
                self.series = Some(report);
            }
            Answer::Values(asked, values) => {
                self.refused.remove(&Part::Values);
                if let Some(line) = &mut self.line {
                    line.values(&asked, &values, self.now);
                }
            }
            Answer::Unreachable { .. }
            | Answer::Connections(..)
            | Answer::Rates(..)
            | Answer::Top(..)
            | Answer::Series(..) => {}
        }
        self.follow();
    }

    fn take_connections(&mut self, asked: ConnectionsQuestion, mut found: Connections) {
        found.connections.truncate(asked.limit);
        for state in found.connections.iter().filter_map(|row| row.state.as_ref()) {
            if self.states.len() < MOST_STATES && !self.states.contains(state) {
                self.states.insert(state.clone());
            }
        }
        self.answered = asked;
        self.connections = Some(found);
        self.follow();
        self.trace();
    }

    /// Notes the selected connection's rates, once per reading.
    fn trace(&mut self) {
        let Some(row) = self.selected_connection() else { return };
        let at = self.connections.as_ref().and_then(|connections| connections.at.clone());
        let rates = (row.bytes_sent_per_second, row.bytes_received_per_second);
        if self.trace.id != row.id {
            self.trace = Trace { id: row.id.clone(), ..Trace::default() };
        } else if self.trace.at == at {
            return;
        }
        self.trace.at = at;
        if self.trace.rates.len() == MOST_TRACED {
            self.trace.rates.pop_front();
        }
        self.trace.rates.push_back(rates);
    }

    /// Groups by other fields: what is known is of no use.
    fn forget_talkers(&mut self) {
        (self.rates, self.top, self.series) = (None, None, None);
        self.talker_cursor.reset();
        self.merge();
    }

    fn merge(&mut self) {
        self.talkers = talkers::merge(&self.by(), self.rates.as_ref(), self.top.as_ref());
        self.talkers_more = self.rates.as_ref().is_some_and(|rates| rates.more)
            || self.top.as_ref().is_some_and(|top| top.more);
    }

    /// Keeps every selection on something that is there.
    fn follow(&mut self) {
        let pages = [Focus::Nodes, Focus::Talkers, Focus::Connections].map(|f| self.page(f));
        self.node_cursor.follow(pages[0], &node_rows(&self.nodes));
        self.talker_cursor.follow(pages[1], &talker_rows(&self.talkers));
        let rows = connection_rows(self.connections.as_ref(), self.answered.offset);
        self.connection_cursor.follow(pages[2], &rows);
    }

    /// True while the connections shown answer an older question.
    pub(super) fn is_waiting(&self) -> bool {
        self.connections_question(&self.base_filter()) != self.answered
    }

    /// The connection in a row, where it is known.
    pub(super) fn connection(&self, row: usize) -> Option<&ConnectionRow> {
        let index = row.checked_sub(self.answered.offset)?;
        self.connections.as_ref()?.connections.get(index)
    }

    pub(super) fn selected_connection(&self) -> Option<&ConnectionRow> {
        self.connection(self.connection_cursor.row())
    }

    /// Connections that match, known or not.
    pub(super) fn matching(&self) -> usize {
        connection_rows(self.connections.as_ref(), self.answered.offset).total
    }

    /// Where everything is, where there is room for it.
    pub(super) fn areas(&self) -> Option<layout::Full> {
        match self.all_areas() {
            Areas::Full(full) => Some(full),
            Areas::Hint(_) | Areas::Compact(_) => None,
        }
    }

    pub(super) fn all_areas(&self) -> Areas {
        let needs = Needs {
            banners: banners(self).len(),
            bottom: if self.line.is_some() { 4 } else { 2 } + u16::from(self.message.is_some()),
            nodes_focused: self.focus == Focus::Nodes,
            details: self.details,
        };
        layout::areas(self.size, needs)
    }

    /// Rows of a pane that are in view.
    pub(super) fn page(&self, focus: Focus) -> usize {
        let areas = match self.all_areas() {
            Areas::Full(full) => full,
            Areas::Hint(area) | Areas::Compact(area) => {
                let banner = usize::from(!banners(self).is_empty());
                return usize::from(area.height).saturating_sub(banner).max(1);
            }
        };
        let rows = match focus {
            Focus::Nodes => areas.nodes.map_or(1, |area| layout::page(area, 0)),
            Focus::Talkers => areas.talkers.map_or(1, |area| layout::page(area, 1)),
            Focus::Connections => layout::page(areas.connections, 1),
        };
        rows.max(1)
    }
}

fn node_rows(nodes: &[RateRow]) -> Rows<'_, RateRow> {
    Rows { known: nodes, offset: 0, total: nodes.len(), id: |row| node_name(row).to_owned() }
}

fn talker_rows(talkers: &[Talker]) -> Rows<'_, Talker> {
    Rows { known: talkers, offset: 0, total: talkers.len(), id: Talker::id }
}

fn connection_rows(found: Option<&Connections>, offset: usize) -> Rows<'_, ConnectionRow> {
    let known = found.map_or(&[][..], |found| &found.connections);
    let matching = found.map_or(0, |found| found.matching);
    let total = usize::try_from(matching).unwrap_or(usize::MAX);
    Rows { known, offset, total, id: |row| row.id.clone() }
}

/// The node of a sum by node.
pub(super) fn node_name(row: &RateRow) -> &str {
    row.fields.get("node").and_then(Option::as_deref).unwrap_or("?")
}
