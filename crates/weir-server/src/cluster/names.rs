//! Names that many objects share, each held once.

use hashbrown::HashSet;
use weir_flow::Name;

/// Names looked over at the least before those nobody holds any more are let go.
const SWEPT_AT_LEAST: usize = 4_096;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    held: HashSet<Name>,
    sweep_at: usize,
}

impl Names {
    /// The name for this text.
    pub(super) fn get(&mut self, text: &str) -> Name {
        if let Some(name) = self.held.get(text) {
            return Name::clone(name);
        }
        if self.held.len() >= self.sweep_at.max(SWEPT_AT_LEAST) {
            self.held.retain(|name| Name::strong_count(name) > 1);
            self.sweep_at = self.held.len() * 2;
        }
        let name = Name::from(text);
        self.held.insert(Name::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_name_and_unused_ones_are_let_go() {
        let mut names = Names::default();
        let kept = names.get("kept");
        assert!(Name::ptr_eq(&kept, &names.get("kept")));
        for number in 0..10 * SWEPT_AT_LEAST {
            names.get(&number.to_string());
        }
        assert!(names.held.len() <= SWEPT_AT_LEAST, "{}", names.held.len());
        assert!(Name::ptr_eq(&kept, &names.get("kept")));
    }
}
