//! What every store must do. Each case knows the trait only, and runs on every store.

pub(crate) mod ages;
pub(crate) mod answers;
mod batches;
mod memories;
pub(crate) mod properties;

use std::any::Any;

use weir_lab::clickhouse::Engine;
use weir_store::{FlowStore, Options};

use crate::support::{clickhouse, engine, query, sqlite};

/// Every case as a test of every store.
macro_rules! conformance {
    ($($room:ident::$case:ident),+ $(,)?) => {
        mod embedded {
            $(#[test]
            fn $case() {
                super::$room::$case(&super::embedded);
            })+
        }

        mod clickhouse {
            $(#[test]
            fn $case() {
                let Some(engine) = super::engine(stringify!($case)) else { return };
                super::$room::$case(&|options| super::in_clickhouse(&engine, options));
            })+
        }
    };
}

conformance!(
    answers::an_empty_store_answers_with_nothing,
    answers::sums_are_by_group_and_ties_by_key,
    answers::all_measures_are_kept,
    answers::a_limit_cuts_and_says_so,
    answers::buckets_are_aligned,
    answers::either_means_one_side_and_not_means_neither,
    answers::prefixes_keep_to_their_family,
    answers::hostile_names_are_names,
    batches::a_number_counts_once,
    batches::one_bad_batch_spoils_no_other,
    batches::a_batch_that_contradicts_itself_is_refused,
    batches::numbers_may_come_in_any_order_within_bounds,
    batches::an_epoch_is_of_one_node,
    ages::late_batches_go_where_they_are_still_held,
    ages::pruning_goes_on_until_nothing_is_left,
    ages::pruning_keeps_what_is_in_use,
    ages::switched_off_levels_are_not_read,
    batches::gaps_and_counters_come_back,
    answers::values_are_listed,
    answers::sums_stay_at_the_largest_number,
    answers::too_many_groups_are_an_error,
    memories::memories_come_back_by_prefix_in_order,
    memories::a_memory_is_replaced_and_forgotten_in_time,
    properties::every_query_is_answered_as_the_model_does,
    properties::every_level_is_the_fold_of_the_finest,
);

fn embedded(options: Options) -> Opened {
    let opened = sqlite(options);
    Opened { store: Box::new(opened.store), _gone_after: Box::new(opened.directory) }
}

fn in_clickhouse(engine: &Engine, options: Options) -> Opened {
    let opened = clickhouse(engine, options);
    Opened { store: Box::new(opened.store), _gone_after: Box::new(opened.database) }
}

/// A store, closed before what it rests on is removed.
struct Opened {
    store: Box<dyn FlowStore>,
    _gone_after: Box<dyn Any>,
}

type Open<'a> = &'a dyn Fn(Options) -> Opened;

fn opened(open: Open<'_>) -> Opened {
    open(Options::default())
}

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Bytes of everything that is stored.
fn total(store: &dyn FlowStore) -> u64 {
    let table = store.query(&query(0..u64::MAX, "")).unwrap();
    table.rows.first().map_or(0, |row| row[0].sum().unwrap())
}
