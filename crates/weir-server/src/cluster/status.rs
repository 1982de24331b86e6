//! How the watches are.

use weir_flow::WallTime;
use weir_flow::time::SECOND;

use super::objects::Kind;

/// How many kinds of objects are followed.
pub(super) const KINDS: usize = 6;
/// A watch that failed is tried again at least this often, so that one which has not failed for
/// this long works again.
const TRIED_SECONDS: u64 = 65;

/// How one kind of object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Which (`pods`).
    pub resource: &'static str,
    /// All of them were listed at least once.
    pub is_synced: bool,
    /// How many there are, where they were listed.
    pub objects: Option<usize>,
    /// How often they were listed.
    pub lists: u64,
    /// When something was last heard of one.
    pub last_event: Option<WallTime>,
    /// How often something failed.
    pub failures: u64,
    /// What is wrong now, and what to do about it.
    pub error: Option<String>,
}

/// How all kinds are.
#[derive(Debug, Default)]
pub(super) struct Resources {
    all: Vec<(&'static str, Followed)>,
}

/// One kind.
#[derive(Debug, Default)]
pub(super) struct Followed {
    list: u32,
    is_synced: bool,
    is_settled: bool,
    objects: usize,
    lists: u64,
    last_event: Option<WallTime>,
    failures: u64,
    failed: Option<(WallTime, String)>,
}

impl Resources {
    pub(super) fn of<K: Kind>(&mut self) -> &mut Followed {
        let at = self.all.iter().position(|(resource, _)| *resource == K::PLURAL);
        let at = at.unwrap_or_else(|| {
            self.all.push((K::PLURAL, Followed::default()));
            self.all.len() - 1
        });
        &mut self.all[at].1
    }

    /// Who had which address is known.
    pub(super) fn is_synced(&self) -> bool {
        self.needed(|followed| followed.is_synced)
    }

    /// Who has which address is known as of `now`.
    pub(super) fn is_current(&self, now: WallTime) -> bool {
        self.needed(|followed| followed.is_synced && followed.error(now).is_none())
    }

    fn needed(&self, is_so: impl Fn(&Followed) -> bool) -> bool {
        ["pods", "nodes"].into_iter().all(|needed| {
            self.all.iter().any(|(resource, followed)| *resource == needed && is_so(followed))
        })
    }

    pub(super) fn status(&self, now: WallTime) -> Vec<ResourceStatus> {
        let mut all: Vec<ResourceStatus> = self
            .all
            .iter()
            .map(|(resource, followed)| ResourceStatus {
                resource,
                is_synced: followed.is_synced,
                objects: followed.is_synced.then_some(followed.objects),
                lists: followed.lists,
                last_event: followed.last_event,
                failures: followed.failures,
                error: followed.error(now).map(str::to_owned),
            })
            .collect();
        all.sort_by_key(|status| status.resource);
        all
    }
}

impl Followed {
    pub(super) fn begin_list(&mut self) -> u32 {
        self.list = self.list.wrapping_add(1);
        self.list
    }

    /// True when this is the first that is known of it.
    pub(super) fn failed(&mut self, error: String, now: WallTime) -> bool {
        self.failures += 1;
        self.failed = Some((now, error));
        !std::mem::replace(&mut self.is_settled, true)
    }

    /// True when this completes its first list, and it did not fail before.
    pub(super) fn heard(&mut self, objects: usize, is_complete: bool, now: WallTime) -> bool {
        self.objects = objects;
        self.last_event = Some(now);
        self.lists += u64::from(is_complete);
        self.is_synced |= is_complete;
        if self.is_synced {
            self.failed = None;
        }
        is_complete && !std::mem::replace(&mut self.is_settled, true)
    }

    fn error(&self, now: WallTime) -> Option<&str> {
        let (at, error) = self.failed.as_ref()?;
        let is_recent = now.0.saturating_sub(at.0) < TRIED_SECONDS * SECOND;
        (is_recent || !self.is_synced).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::{Nodes, Pods, Services};
    use super::*;

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * SECOND)
    }

    #[test]
    fn the_book_is_complete_when_pods_and_nodes_are() {
        let mut resources = Resources::default();
        assert!(!resources.is_synced());
        assert!(resources.of::<Pods>().heard(3, true, at(1)));
        assert!(resources.of::<Services>().failed("refused".to_owned(), at(1)));
        assert!(!resources.is_synced());
        assert!(resources.of::<Nodes>().heard(1, true, at(2)));
        assert!(resources.is_synced() && resources.is_current(at(2)));
        let status = resources.status(at(1_000));
        let texts: Vec<_> =
            status.iter().map(|it| (it.resource, it.objects, it.error.as_deref())).collect();
        let expected = [
            ("nodes", Some(1), None),
            ("pods", Some(3), None),
            ("services", None, Some("refused")),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_failure_is_over_with_the_next_event_or_when_it_does_not_come_again() {
        let mut resources = Resources::default();
        for needed in [resources.of::<Pods>(), &mut Followed::default()] {
            needed.heard(1, true, at(1));
        }
        resources.of::<Nodes>().heard(1, true, at(1));
        assert!(!resources.of::<Pods>().failed("cut".to_owned(), at(5)));
        assert!(resources.is_synced() && !resources.is_current(at(6)));
        assert!(resources.is_current(at(5 + TRIED_SECONDS)));
        resources.of::<Pods>().failed("cut".to_owned(), at(100));
        resources.of::<Pods>().heard(1, false, at(101));
        assert!(resources.is_current(at(101)));
    }
}
