//! What every store must do. Each case knows the trait only; a store runs them all by naming how
//! it is opened.

mod ages;
mod answers;
mod batches;
mod memories;
mod properties;

use weir_store::{FlowStore, Options};

use crate::support::{query, sqlite};

/// Every case as a test of one store. `$open` takes [`Options`] and gives something that holds the
/// store in its field `store`.
macro_rules! conformance {
    ($module:ident, $open:expr, [$($room:ident::$case:ident),+ $(,)?]) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $case() {
                super::$room::$case(&|options| $open(options));
            })+
        }
    };
}

conformance!(
    embedded,
    |options| {
        let opened = sqlite(options);
        Opened { store: Box::new(opened.store), _directory: Some(opened.directory) }
    },
    [
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
    ]
);

struct Opened {
    store: Box<dyn FlowStore>,
    _directory: Option<tempfile::TempDir>,
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
