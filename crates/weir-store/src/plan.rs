//! Which windows of which level answer for a range.

use std::ops::Range;

use weir_flow::Level;

/// A level as a reader finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldLevel {
    pub(crate) level: Level,
    /// Seconds since 1970 before which it holds nothing.
    pub(crate) horizon: u64,
}

/// What to read, and what the answer covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whole windows of one level each, ascending, disjoint, none empty.
    pub(crate) segments: Vec<(Level, Range<u64>)>,
    /// From the first segment's start to the last one's end.
    pub(crate) covers: Range<u64>,
    /// The coarsest level read.
    pub(crate) level: Level,
    /// Length of the finest windows read, seconds.
    pub(crate) window_seconds: u64,
    pub(crate) bucket_seconds: Option<u64>,
}

/// Covers a range with windows: whole windows of the coarsest level that divides the bucket, finer
/// ones at the ends as far as they are held, what remains rounded outward. `levels` are those that
/// are kept, finest first.
pub(crate) fn plan(range: &Range<u64>, bucket: Option<u64>, levels: &[HeldLevel]) -> Option<Plan> {
    let finest = levels.first()?;
    let bucket = bucket.map(|bucket| widen(bucket, range.start, levels));
    let usable: Vec<HeldLevel> = levels
        .iter()
        .filter(|held| bucket.is_none_or(|bucket| bucket % held.level.seconds() == 0))
        .copied()
        .collect();
    let mut segments = Vec::new();
    if range.start < range.end {
        cover(range, &usable, &mut segments);
    }
    let used = segments.iter().map(|(level, _)| *level);
    let level = used.clone().max().unwrap_or(finest.level);
    let window_seconds = used.min().unwrap_or(finest.level).seconds();
    let covers = match (segments.first(), segments.last()) {
        (Some((_, first)), Some((_, last))) => first.start..last.end,
        _ => range.start..range.start,
    };
    Some(Plan { segments, covers, level, window_seconds, bucket_seconds: bucket })
}

/// The bucket, raised to a multiple of the finest level that still holds the start; of the level
/// that reaches back furthest where none does.
fn widen(bucket: u64, start: u64, levels: &[HeldLevel]) -> u64 {
    let holds = |held: &&HeldLevel| held.horizon <= floor(start, held.level);
    let divides = |held: &&HeldLevel| bucket > 0 && bucket.is_multiple_of(held.level.seconds());
    if levels.iter().any(|held| holds(&held) && divides(&held)) {
        return bucket;
    }
    let reaching = levels
        .iter()
        .find(holds)
        .or_else(|| levels.iter().min_by_key(|held| held.horizon))
        .map_or(1, |held| held.level.seconds());
    // A step so long that no multiple of a window follows holds everything in any case.
    bucket.max(1).checked_next_multiple_of(reaching).unwrap_or(u64::MAX - u64::MAX % reaching)
}

fn cover(range: &Range<u64>, levels: &[HeldLevel], segments: &mut Vec<(Level, Range<u64>)>) {
    let Some((coarsest, finer)) = levels.split_last() else { return };
    let level = coarsest.level;
    let held_finer = |time: u64| finer.iter().any(|held| held.horizon <= floor(time, held.level));
    // A ragged end goes to a finer level where one holds it, and is rounded outward otherwise.
    let start = match floor(range.start, level) {
        start if start < range.start && held_finer(range.start) => start + level.seconds(),
        start => start,
    };
    let start = start.max(floor_up(coarsest.horizon, level));
    let end = match floor(range.end, level) {
        end if end < range.end && !held_finer(end.max(range.start)) => end + level.seconds(),
        end => end,
    };
    if start >= end {
        // No whole window of this level lies inside.
        return cover(range, finer, segments);
    }
    if range.start < start {
        cover(&(range.start..start), finer, segments);
    }
    segments.push((level, start..end));
    if end < range.end {
        cover(&(end..range.end), finer, segments);
    }
}

fn floor(time: u64, level: Level) -> u64 {
    time - time % level.seconds()
}

fn floor_up(time: u64, level: Level) -> u64 {
    time.div_ceil(level.seconds()) * level.seconds()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;

    fn levels(horizons: [u64; 3]) -> Vec<HeldLevel> {
        Level::ALL
            .into_iter()
            .zip(horizons)
            .map(|(level, horizon)| HeldLevel { level, horizon })
            .collect()
    }

    fn planned(range: Range<u64>, bucket: Option<u64>, horizons: [u64; 3]) -> Plan {
        plan(&range, bucket, &levels(horizons)).unwrap()
    }

    #[test]
    fn a_day_is_hours_with_finer_ends() {
        let start = 20_000 * DAY + 25;
        let plan = planned(start..start + DAY, None, [0; 3]);
        assert_eq!(plan.level, Level::Hour);
        assert_eq!(plan.covers, start - 5..start + DAY + 5);
        let lengths: Vec<_> =
            plan.segments.iter().map(|(level, part)| (*level, part.end - part.start)).collect();
        assert_eq!(
            lengths,
            [
                (Level::TenSeconds, 40),
                (Level::Minute, 59 * 60),
                (Level::Hour, 23 * 3_600),
                (Level::TenSeconds, 30)
            ]
        );
    }

    #[test]
    fn a_bucket_without_a_next_multiple_is_no_overflow() {
        let plan = planned(100_005..100_052, Some(u64::MAX), [0; 3]);
        assert!(plan.bucket_seconds.is_some_and(|bucket| bucket > u64::MAX - 3_600));
    }

    #[test]
    fn a_short_range_is_the_finest() {
        let plan = planned(100_005..100_052, None, [0; 3]);
        assert_eq!(plan.segments, [(Level::TenSeconds, 100_000..100_060)]);
        assert_eq!((plan.level, plan.window_seconds), (Level::TenSeconds, 10));
    }

    #[test]
    fn a_bucket_excludes_levels_that_do_not_divide_it() {
        let plan = planned(0..DAY, Some(60), [0; 3]);
        assert_eq!(plan.segments, [(Level::Minute, 0..DAY)]);
        assert_eq!(plan.bucket_seconds, Some(60));
        assert_eq!(planned(0..DAY, Some(90), [0; 3]).level, Level::TenSeconds);
        assert_eq!(planned(0..DAY, Some(7), [0; 3]).bucket_seconds, Some(10));
        assert_eq!(planned(0..DAY, Some(0), [0; 3]).bucket_seconds, Some(10));
    }

    #[test]
    fn what_the_finer_levels_forgot_is_rounded_outward() {
        let plan = planned(3_725..9_725, None, [DAY, DAY, 0]);
        assert_eq!(plan.segments, [(Level::Hour, 3_600..10_800)]);
        assert_eq!(plan.covers, 3_600..10_800);
        // The bucket grows to what is still there.
        let plan = planned(3_725..9_725, Some(60), [DAY, DAY, 0]);
        assert_eq!((plan.bucket_seconds, plan.level), (Some(3_600), Level::Hour));
        // The finest level holds the end only.
        let plan = planned(3_725..9_725, None, [7_200, 7_200, 0]);
        assert_eq!(plan.covers, 3_600..9_730);
    }

    #[test]
    fn before_every_horizon_there_is_nothing() {
        let plan = planned(10..3_000, None, [DAY, DAY, DAY]);
        assert_eq!(plan.segments, []);
        assert_eq!(plan.covers, 10..10);
        assert_eq!(planned(10..DAY + 10, None, [DAY, DAY, DAY]).covers, DAY..DAY + 10);
    }

    proptest! {
        #[test]
        fn segments_are_whole_held_windows_without_holes(
            start in 0_u64..200_000, length in 1_u64..200_000,
            bucket in prop::option::of(1_u64..10_000),
            ages in (0_u64..300, 0_u64..300, 0_u64..30),
        ) {
            // Finer levels forget sooner.
            let hour = ages.2 * 3_600;
            let minute = hour + ages.1 * 60;
            let ten = minute + ages.0 * 10;
            let range = start..start + length;
            let plan = planned(range.clone(), bucket, [ten, minute, hour]);
            let horizon = |level| match level {
                Level::TenSeconds => ten,
                Level::Minute => minute,
                Level::Hour => hour,
            };
            for (level, part) in &plan.segments {
                let seconds = level.seconds();
                prop_assert!(part.start < part.end);
                prop_assert!(part.start % seconds == 0 && part.end % seconds == 0);
                prop_assert!(part.start >= horizon(*level));
                prop_assert!(plan.bucket_seconds.is_none_or(|bucket| bucket % seconds == 0));
            }
            for pair in plan.segments.windows(2) {
                prop_assert_eq!(pair[0].1.end, pair[1].1.start);
            }
            // All of the range that the coarsest level holds, and less than an hour around it.
            if let (Some((_, first)), Some((_, last))) =
                (plan.segments.first(), plan.segments.last())
            {
                prop_assert!(first.start <= start.max(hour));
                prop_assert!(first.start + 3_600 > start);
                prop_assert!(last.end >= range.end && last.end < range.end + 3_600);
            } else {
                prop_assert!(range.end <= hour);
            }
        }
    }
}
