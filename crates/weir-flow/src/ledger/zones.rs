//! One connection in several conntrack zones: one of its entries counts, the others are shadows.

use hashbrown::HashSet;

use super::index::{Index, KeyHash};
use super::slots::Slots;
use super::tombstones::began_together;
use super::{Group, Ledger, Newcomer, Phase, SlotFlags, Standing};
use crate::sample::Sample;

impl Ledger {
    /// Which newcomers are only another zone's view of a connection that counts already: the
    /// translated entry counts, else the lowest zone; chosen at first sight.
    pub(super) fn shadows(&self, newcomers: &[Newcomer]) -> HashSet<usize, KeyHash> {
        let mut shadows = HashSet::default();
        if !self.zones_in_use {
            return shadows;
        }
        let group_of = |new: &Newcomer| {
            Group { hash: self.keys.group(&new.sample.reply), zone: 0 }.hash_kept()
        };
        let mut groups: Index<Vec<usize>> = Index::with_capacity(newcomers.len());
        for (index, new) in newcomers.iter().enumerate() {
            groups.entry(group_of(new)).push(index);
        }
        // The kernel has no two live entries of one tuple in one zone: a match in the same zone
        // is an earlier life whose end has not been seen yet.
        let other_zone =
            |group: Group, index: &usize| !group.same_zone(newcomers[*index].sample.zone);
        // On the living, only what this dump confirmed can cast a shadow: the rest may be long
        // dead. The dead may well be another view of a connection whose own end went unseen.
        let dead = newcomers.iter().all(|new| matches!(new.standing, Standing::Ended { .. }));
        let unconfirmed = dead || self.phase == Phase::Dumping;
        let others = [&self.old, &self.passed].into_iter().filter(|_| unconfirmed);
        let missed = SlotFlags::MISSED.when(!unconfirmed);
        let no_shadow = SlotFlags::SHADOW.with(missed);
        for slot in others.chain([&self.new]).flat_map(Slots::occupied) {
            let group = slot.group();
            if slot.flags().any(no_shadow) {
                continue;
            }
            if let Some(members) = groups.get(group.hash_kept()) {
                shadows.extend(members.iter().filter(|index| other_zone(group, index)));
            }
        }
        // A last word that waits is another view of the same connection, too.
        for last in self.finals.values() {
            let Sample { reply, zone, .. } = last.sample;
            let group = Group { hash: self.keys.group(&reply), zone };
            if let Some(members) = groups.get(group.hash_kept()) {
                let same = |index: &&usize| {
                    other_zone(group, index)
                        && began_together(newcomers[**index].sample.start, last.sample.start)
                };
                shadows.extend(members.iter().filter(same));
            }
        }
        for members in groups.into_values() {
            let open = members.iter().copied().filter(|index| !shadows.contains(index));
            let mut open: Vec<usize> = open.collect();
            open.sort_by_key(|index| {
                let sample = &newcomers[*index].sample;
                (sample.original.is_mirrored_by(&sample.reply), sample.zone, *index)
            });
            for (place, index) in open.iter().enumerate() {
                let sample = &newcomers[*index].sample;
                let better = open[..place].iter().map(|better| &newcomers[*better].sample);
                let mut better = better.filter(|better| better.zone != sample.zone);
                let counted = better.any(|better| began_together(better.start, sample.start));
                if counted || self.tombstones.ended_elsewhere(&self.keys, sample) {
                    shadows.insert(*index);
                }
            }
        }
        shadows
    }
}
