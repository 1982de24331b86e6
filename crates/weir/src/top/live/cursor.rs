//! The selected row of a list that changes underneath.

/// A selection that follows what was selected, not the row it was on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// What is selected. `None` at row 0: whatever is first.
    id: Option<String>,
    /// Its row.
    row: usize,
    /// The first row in view.
    first: usize,
}

/// A movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// The rows that are known: `ids` from row `offset` on, of `total`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a, T> {
    pub(super) known: &'a [T],
    pub(super) offset: usize,
    pub(super) total: usize,
    pub(super) id: fn(&T) -> String,
}

impl<T> Rows<'_, T> {
    pub(super) fn get(&self, row: usize) -> Option<&T> {
        row.checked_sub(self.offset).and_then(|index| self.known.get(index))
    }

    fn id_at(&self, row: usize) -> Option<String> {
        self.get(row).map(self.id)
    }
}

impl Cursor {
    pub(super) fn row(&self) -> usize {
        self.row
    }

    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Goes where a key says.
    pub(super) fn go<T>(&mut self, step: Step, page: usize, rows: &Rows<'_, T>) {
        let page = page.max(1);
        let wanted = match step {
            Step::Up => self.row.saturating_sub(1),
            Step::Down => self.row.saturating_add(1),
            Step::PageUp => self.row.saturating_sub(page),
            Step::PageDown => self.row.saturating_add(page),
            Step::First => 0,
            Step::Last => usize::MAX,
        };
        self.row = wanted.min(rows.total.saturating_sub(1));
        // At the top the selection stays at the top, whoever is there.
        self.id = if step == Step::First { None } else { rows.id_at(self.row) };
        self.scroll(page, rows.total);
    }

    /// Finds what was selected among new rows; what is gone gives its row to its successor.
    pub(super) fn follow<T>(&mut self, page: usize, rows: &Rows<'_, T>) {
        if let Some(id) = &self.id {
            let found = rows.known.iter().position(|row| (rows.id)(row) == *id);
            if let Some(index) = found {
                self.row = rows.offset + index;
            } else if !rows.known.is_empty() || rows.total == 0 {
                self.id = None;
            }
        }
        self.row = self.row.min(rows.total.saturating_sub(1));
        if self.id.is_none() && self.row > 0 {
            self.id = rows.id_at(self.row);
        }
        self.scroll(page.max(1), rows.total);
    }

    fn scroll(&mut self, page: usize, total: usize) {
        self.first = self.first.min(total.saturating_sub(page));
        self.first = self.first.clamp(self.row.saturating_sub(page - 1), self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<'a>(known: &'a [&'static str], offset: usize, total: usize) -> Rows<'a, &'static str> {
        Rows { known, offset, total, id: |id| (*id).to_owned() }
    }

    #[test]
    fn the_selection_follows_what_was_selected() {
        let mut cursor = Cursor::default();
        cursor.follow(2, &rows(&["a", "b", "c"], 0, 3));
        assert_eq!(cursor.row(), 0);
        cursor.follow(2, &rows(&["b", "a", "c"], 0, 3));
        assert_eq!(cursor.row(), 0, "nothing was selected: the first row stays selected");
        cursor.go(Step::Down, 2, &rows(&["b", "a", "c"], 0, 3));
        cursor.follow(2, &rows(&["b", "c", "a"], 0, 3));
        assert_eq!((cursor.row(), cursor.first()), (2, 1));
        cursor.follow(2, &rows(&["b", "c"], 0, 2));
        assert_eq!(cursor.row(), 1, "what is gone gives its row to the next");
        cursor.follow(2, &rows(&["c", "b"], 0, 2));
        assert_eq!(cursor.row(), 0);
        cursor.follow(2, &rows(&[], 0, 0));
        assert_eq!((cursor.row(), cursor.first()), (0, 0));
    }

    #[test]
    fn rows_beyond_what_is_known_can_be_reached() {
        let mut cursor = Cursor::default();
        let known = rows(&["a", "b"], 0, 100);
        cursor.go(Step::Last, 10, &known);
        assert_eq!((cursor.row(), cursor.first()), (99, 90));
        cursor.follow(10, &rows(&["y", "z"], 98, 100));
        assert_eq!(cursor.row(), 99);
        cursor.follow(10, &rows(&["z", "y"], 98, 100));
        assert_eq!(cursor.row(), 98);
        cursor.go(Step::First, 10, &known);
        cursor.go(Step::PageDown, 10, &known);
        assert_eq!((cursor.row(), cursor.first()), (10, 1));
    }
}
