//! What the keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use weir_server::answer::ConnectionSort;

use super::{After, App, Drill, Focus, IpVersions, Overlay, SINCE};
use super::{connection_rows, node_name, node_rows, talker_rows};
use crate::top::live::cursor::Step;
use crate::top::live::filter_line::{self, FilterLine};
use crate::top::live::picker::{About, Item, Picker};
use crate::top::live::talkers;

/// Filters that Up and Down bring back.
const MOST_FILTERS: usize = 50;

impl App {
    /// Takes a key.
    pub(in crate::top::live) fn key(&mut self, key: KeyEvent) -> After {
        if key.kind == KeyEventKind::Release {
            return After::GoOn;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return After::Quit,
                KeyCode::Char('z') => return After::Suspend,
                KeyCode::Char('u') if self.line.is_some() => {}
                _ => return After::GoOn,
            }
        }
        let after = if self.line.is_some() {
            self.line_key(key);
            After::GoOn
        } else if self.overlay.is_some() {
            self.overlay_key(key.code)
        } else {
            self.screen_key(key.code)
        };
        self.follow();
        after
    }

    fn screen_key(&mut self, key: KeyCode) -> After {
        match key {
            KeyCode::Char('q') => return After::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.go(Step::Up),
            KeyCode::Down | KeyCode::Char('j') => self.go(Step::Down),
            KeyCode::PageUp => self.go(Step::PageUp),
            KeyCode::PageDown => self.go(Step::PageDown),
            KeyCode::Home => self.go(Step::First),
            KeyCode::End => self.go(Step::Last),
            KeyCode::Right | KeyCode::Tab => self.focus = next(self.focus),
            // The one after the next of three is the one before.
            KeyCode::Left | KeyCode::BackTab => self.focus = next(next(self.focus)),
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Char('c') => self.clear(),
            KeyCode::Char('/' | 'p') => {
                self.before = Some((self.filter_text.clone(), self.filter.clone()));
                self.line = Some(FilterLine::new(&self.filter_text));
            }
            KeyCode::Char('t') => self.sort_by(match self.sort {
                ConnectionSort::State => ConnectionSort::Rate,
                _ => ConnectionSort::State,
            }),
            KeyCode::Char('s') => self.next_sort(1),
            KeyCode::Char('S') => self.next_sort(ConnectionSort::ALL.len() - 1),
            KeyCode::Char('f') => self.next_state(),
            KeyCode::Char('n') => {
                self.names = !self.names;
                self.forget_talkers();
            }
            KeyCode::Char('v') => {
                self.ip = match self.ip {
                    IpVersions::Both => IpVersions::Four,
                    IpVersions::Four => IpVersions::Six,
                    IpVersions::Six => IpVersions::Both,
                }
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('[') => self.since(|step, current| step < current),
            KeyCode::Char(']') => self.since(|step, current| step > current),
            KeyCode::Char('g') => {
                self.group = (self.group + 1) % self.groups.len();
                self.forget_talkers();
            }
            other => self.open(other),
        }
        After::GoOn
    }

    /// Keys that open something over the rest.
    fn open(&mut self, key: KeyCode) {
        self.overlay = match key {
            KeyCode::Char('G') => Some(Overlay::Picker(Picker::fields(&self.groups[self.group]))),
            KeyCode::Char('C') => Some(Overlay::Picker(Picker::columns(&self.columns))),
            KeyCode::Char('F') => {
                Some(Overlay::Picker(Picker::states(&self.states, self.state.as_deref())))
            }
            KeyCode::Char('h' | '?') => Some(Overlay::Help(0)),
            _ => return,
        };
    }

    fn go(&mut self, step: Step) {
        let page = self.page(self.focus);
        match self.focus {
            Focus::Nodes => self.node_cursor.go(step, page, &node_rows(&self.nodes)),
            Focus::Talkers => self.talker_cursor.go(step, page, &talker_rows(&self.talkers)),
            Focus::Connections => {
                let rows = connection_rows(self.connections.as_ref(), self.answered.offset);
                self.connection_cursor.go(step, page, &rows);
                self.trace();
            }
        }
    }

    fn enter(&mut self) {
        match self.focus {
            Focus::Nodes => {
                let selected = self.nodes.get(self.node_cursor.row()).map(node_name);
                self.node =
                    selected.filter(|name| self.node.as_deref() != Some(name)).map(str::to_owned);
                self.connection_cursor.reset();
            }
            Focus::Talkers => {
                let by = self.by();
                let Some(talker) = self.talkers.get(self.talker_cursor.row()) else { return };
                let filter = talker.filter(&by);
                self.drill = Some(Drill { values: talker.values.clone(), by, filter });
                self.connection_cursor.reset();
                self.focus = Focus::Connections;
            }
            Focus::Connections => {
                let is_shown = self.areas().is_some_and(|areas| areas.details.is_some());
                self.details = Some(!is_shown);
            }
        }
    }

    fn clear(&mut self) {
        if self.drill.take().is_some() | self.node.take().is_some() {
            self.connection_cursor.reset();
        }
    }

    fn sort_by(&mut self, sort: ConnectionSort) {
        self.sort = sort;
        self.connection_cursor.reset();
    }

    fn next_sort(&mut self, steps: usize) {
        let all = ConnectionSort::ALL;
        let at = all.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        self.sort_by(all[(at + steps) % all.len()]);
    }

    fn next_state(&mut self) {
        let next = match self.state.as_deref() {
            None => Some("ESTABLISHED"),
            Some("ESTABLISHED") => Some("TIME_WAIT"),
            Some(_) => None,
        };
        self.state = next.map(str::to_owned);
        self.connection_cursor.reset();
    }

    /// Goes to the nearest length of time that is so.
    fn since(&mut self, is_so: impl Fn(u64, u64) -> bool) {
        let current = self.since_seconds;
        let steps = SINCE.into_iter().filter(|step| is_so(*step, current));
        if let Some(step) = steps.min_by_key(|step| step.abs_diff(current)) {
            self.since_seconds = step;
            (self.top, self.series) = (None, None);
            self.merge();
        }
    }

    fn overlay_key(&mut self, key: KeyCode) -> After {
        let Some(overlay) = &mut self.overlay else { return After::GoOn };
        match (key, overlay) {
            (KeyCode::Char('q'), _) => return After::Quit,
            (KeyCode::Esc | KeyCode::Char('c'), _)
            | (KeyCode::Enter | KeyCode::Char('h' | '?'), Overlay::Help(_)) => self.overlay = None,
            (KeyCode::Up | KeyCode::Char('k'), Overlay::Help(line)) => {
                *line = line.saturating_sub(1);
            }
            (KeyCode::Down | KeyCode::Char('j'), Overlay::Help(line)) => {
                *line = (*line + 1).min(crate::top::live::draw::HELP_LINES);
            }
            (KeyCode::Up | KeyCode::Char('k'), Overlay::Picker(picker)) => picker.up(),
            (KeyCode::Down | KeyCode::Char('j'), Overlay::Picker(picker)) => picker.down(),
            (KeyCode::Char(' '), Overlay::Picker(picker)) => picker.toggle(),
            (KeyCode::Enter, Overlay::Picker(_)) => self.pick(),
            _ => {}
        }
        After::GoOn
    }

    /// Takes what was chosen from a list.
    fn pick(&mut self) {
        let Some(Overlay::Picker(mut picker)) = self.overlay.take() else { return };
        match picker.about {
            About::State => {
                picker.toggle();
                if let Some(Item::State(state)) = picker.chosen().next() {
                    self.state.clone_from(state);
                    self.connection_cursor.reset();
                }
            }
            About::Columns => {
                for (index, shown) in self.columns.iter_mut().enumerate() {
                    *shown = picker.chosen.contains(&index);
                }
            }
            About::Fields => {
                let fields = picker.chosen().filter_map(|item| match item {
                    Item::Field(field) => Some(*field),
                    Item::Column(_) | Item::State(_) => None,
                });
                let by: Vec<_> = fields.collect();
                if by.is_empty() {
                    return;
                }
                let place = self.groups.iter().position(|group| *group == by);
                self.group = place.unwrap_or_else(|| {
                    // One place for what is put together by hand.
                    let presets = talkers::presets().len().max(talkers::cluster_presets().len());
                    self.groups.truncate(presets + 1);
                    self.groups.push(by);
                    self.groups.len() - 1
                });
                self.forget_talkers();
            }
        }
    }

    fn line_key(&mut self, key: KeyEvent) {
        let now = self.now;
        let Some(line) = &mut self.line else { return };
        match key.code {
            KeyCode::Enter => self.finish_line(),
            KeyCode::Esc => {
                self.line = None;
                if let Some((text, read)) = self.before.take() {
                    self.use_filter(text, read);
                }
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => line.clear(now),
            KeyCode::Char(character) => line.insert(character, now),
            KeyCode::Backspace => line.backspace(now),
            KeyCode::Delete => line.delete(now),
            KeyCode::Left => line.left(),
            KeyCode::Right => line.right(),
            KeyCode::Home => line.home(),
            KeyCode::End => line.end(),
            KeyCode::Tab => line.complete(now),
            KeyCode::Up => line.recall(&self.filters, true, now),
            KeyCode::Down => line.recall(&self.filters, false, now),
            _ => {}
        }
    }

    /// Uses what was written; what cannot be read stays there with its error.
    fn finish_line(&mut self) {
        let Some(line) = &self.line else { return };
        let text = line.text().trim().to_owned();
        let Ok(read) = filter_line::read(&text) else { return };
        self.line = None;
        self.before = None;
        if !text.is_empty() && self.filters.last() != Some(&text) {
            if self.filters.len() == MOST_FILTERS {
                self.filters.remove(0);
            }
            self.filters.push(text.clone());
        }
        self.use_filter(text, read);
    }
}

fn next(focus: Focus) -> Focus {
    match focus {
        Focus::Nodes => Focus::Talkers,
        Focus::Talkers => Focus::Connections,
        Focus::Connections => Focus::Nodes,
    }
}
