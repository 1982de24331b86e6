//! A list to choose from, over the rest of the screen.

use std::collections::BTreeSet;

use weir_flow::Field;

use super::columns::Column;
use super::talkers::MOST_FIELDS;

/// A list to choose from.
#[derive(Clone, Debug)]
pub(super) struct Picker {
    pub(super) about: About,
    pub(super) items: Vec<Item>,
    pub(super) at: usize,
    /// Chosen items, in the order they were chosen.
    pub(super) chosen: Vec<usize>,
}

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The fields of a group: some, in their order.
    Fields,
    /// The columns of the connections: any.
    Columns,
    /// The state of the connections: one or none.
    State,
}

/// Something to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Field(Field),
    Column(Column),
    /// `None`: any state.
    State(Option<String>),
}

impl Item {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Field(field) => field.to_string(),
            Self::Column(column) => column.name().to_owned(),
            Self::State(None) => "any state".to_owned(),
            Self::State(Some(state)) => super::text::shown(state),
        }
    }
}

impl Picker {
    pub(super) fn fields(by: &[Field]) -> Self {
        let fields: Vec<Field> = Field::all().collect();
        let place = |field: &Field| fields.iter().position(|other| other == field);
        let chosen = by.iter().filter_map(place).collect();
        let items = fields.iter().copied().map(Item::Field).collect();
        Self { about: About::Fields, items, at: 0, chosen }
    }

    pub(super) fn columns(shown: &[bool; Column::ALL.len()]) -> Self {
        let items = Column::ALL.into_iter().map(Item::Column).collect();
        let chosen = (0..shown.len()).filter(|index| shown[*index]).collect();
        Self { about: About::Columns, items, at: 0, chosen }
    }

    pub(super) fn states(seen: &BTreeSet<String>, current: Option<&str>) -> Self {
        let any = std::iter::once(Item::State(None));
        let items: Vec<Item> =
            any.chain(seen.iter().map(|state| Item::State(Some(state.clone())))).collect();
        let is_current =
            |item: &Item| matches!(item, Item::State(state) if state.as_deref() == current);
        let at = items.iter().position(is_current).unwrap_or(0);
        Self { about: About::State, items, at, chosen: vec![at] }
    }

    pub(super) fn title(&self) -> &'static str {
        match self.about {
            About::Fields => "Group by (Space: choose, Enter: done)",
            About::Columns => "Columns (Space: on or off, Enter: done)",
            About::State => "Only in this state (Enter)",
        }
    }

    pub(super) fn up(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    pub(super) fn down(&mut self) {
        self.at = (self.at + 1).min(self.items.len().saturating_sub(1));
    }

    /// Chooses the item under the cursor, or no longer.
    pub(super) fn toggle(&mut self) {
        let chosen = self.chosen.iter().position(|index| *index == self.at);
        match (self.about, chosen) {
            (About::State, _) => self.chosen = vec![self.at],
            (_, Some(place)) => drop(self.chosen.remove(place)),
            (About::Fields, None) if self.chosen.len() == MOST_FIELDS => {}
            (_, None) => self.chosen.push(self.at),
        }
    }

    /// What is chosen, in the order it was.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Item> {
        self.chosen.iter().filter_map(|index| self.items.get(*index))
    }
}
