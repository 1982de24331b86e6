//! From query parameters to questions.

use std::ops::Range;

use weir_flow::filter::nearest;
use weir_flow::{ConnectionState, Field, Filter};
use weir_store::Measure;

use super::parameters::{Given, Kind, MAX_CURSOR, Wrong};
use super::problem::{Kind as ProblemKind, Problem, shortened};
use crate::answer::{
    ConnectionSort, ConnectionsQuestion, FlowsQuestion, RatesQuestion, SeriesQuestion, TopQuestion,
};
use crate::moment::{self, Moment};

/// The shortest windows that are kept. Ranges are rounded to them outward, as the store does, so
/// that equal questions look equal.
const WINDOW_SECONDS: u64 = 10;

/// See [`crate::Answers::values`].
#[derive(Debug)]
pub(super) struct ValuesQuestion {
    pub(super) dimension: Field,
    pub(super) prefix: String,
    pub(super) limit: usize,
}

pub(super) fn status(given: &Given, now: u64) -> Result<Range<u64>, Problem> {
    let since = given.value("since", moment)?.map_or(now, |since| since.seconds(now));
    // One second more than now, so that a gap declared this second is in it.
    non_empty(since..now.saturating_add(1))
}

pub(super) fn top(given: &Given, now: u64) -> Result<TopQuestion, Problem> {
    Ok(TopQuestion {
        by: given.value("by", fields)?.unwrap_or_default(),
        range: range(given, now)?,
        filter: filter_of(given)?,
        sort: given.value("sort", measure)?.unwrap_or(Measure::Bytes),
        limit: Some(limit(given)?),
    })
}

pub(super) fn series(given: &Given, now: u64) -> Result<SeriesQuestion, Problem> {
    Ok(SeriesQuestion {
        by: given.value("by", fields)?.unwrap_or_default(),
        range: range(given, now)?,
        filter: filter_of(given)?,
        step_seconds: given.value("step", step)?.unwrap_or(WINDOW_SECONDS),
        limit: Some(limit(given)?),
    })
}

pub(super) fn flows(given: &Given, now: u64) -> Result<FlowsQuestion, Problem> {
    Ok(FlowsQuestion {
        range: range(given, now)?,
        filter: filter_of(given)?,
        step_seconds: given.value("step", step)?.unwrap_or(WINDOW_SECONDS),
        sort: given.value("sort", measure)?,
        limit: Some(limit(given)?),
        cursor: given.value("cursor", cursor)?,
    })
}

/// All flows of a range, in pages of this many rows.
const EXPORT_ROWS: usize = 2_000;

pub(super) fn export(given: &Given, now: u64) -> Result<FlowsQuestion, Problem> {
    Ok(FlowsQuestion {
        range: range(given, now)?,
        filter: filter_of(given)?,
        step_seconds: given.value("step", step)?.unwrap_or(WINDOW_SECONDS),
        sort: None,
        limit: Some(EXPORT_ROWS),
        cursor: given.value("cursor", cursor)?,
    })
}

pub(super) fn values(given: &Given) -> Result<ValuesQuestion, Problem> {
    Ok(ValuesQuestion {
        dimension: given
            .value("dimension", field)?
            .ok_or_else(|| Problem::parameter("dimension", "`dimension` is missing", None))?,
        prefix: given.value("prefix", text)?.unwrap_or_default(),
        limit: limit(given)?,
    })
}

pub(super) fn connections(given: &Given) -> Result<ConnectionsQuestion, Problem> {
    Ok(ConnectionsQuestion {
        node: given.value("node", text)?,
        filter: filter_of(given)?,
        state: given.value("state", state)?,
        sort: given.value("sort", connection_sort)?.unwrap_or_default(),
        offset: given.value("offset", number)?.unwrap_or_default(),
        limit: limit(given)?,
    })
}

pub(super) fn rates(given: &Given) -> Result<RatesQuestion, Problem> {
    Ok(RatesQuestion {
        by: given.value("by", fields)?.unwrap_or_default(),
        filter: filter_of(given)?,
        limit: limit(given)?,
    })
}

/// The names of the states that connections can be asked by.
pub(super) fn states() -> Vec<&'static str> {
    let mut names: Vec<&str> =
        (0..=u8::MAX).filter_map(|code| ConnectionState::from_code(code).name()).collect();
    names.push("ended");
    names.dedup();
    names
}

fn range(given: &Given, now: u64) -> Result<Range<u64>, Problem> {
    let seconds = |moment: Moment| moment.seconds(now);
    let since = given.value("since", moment)?.map_or(now, seconds);
    let until = given.value("until", moment)?.map_or(now + 1, |moment| moment.end(now));
    let Range { start, end } = non_empty(since..until)?;
    let end = end.checked_next_multiple_of(WINDOW_SECONDS).unwrap_or(u64::MAX);
    Ok(start - start % WINDOW_SECONDS..end)
}

fn non_empty(range: Range<u64>) -> Result<Range<u64>, Problem> {
    if !range.is_empty() {
        return Ok(range);
    }
    let detail = format!(
        "nothing lies between since ({}) and until ({}): since must be earlier",
        moment::rfc3339(range.start),
        moment::rfc3339(range.end)
    );
    Err(Problem { parameter: Some("since".into()), ..Problem::new(ProblemKind::Parameter, detail) })
}

fn filter_of(given: &Given) -> Result<Filter, Problem> {
    let read = |text: &str, _| Filter::parse(text).map_err(Wrong::Filter);
    Ok(given.value("filter", read)?.unwrap_or_default())
}

fn limit(given: &Given) -> Result<usize, Problem> {
    Ok(given.value("limit", number)?.unwrap_or_default())
}

fn moment(text: &str, _: Kind) -> Result<Moment, Wrong> {
    Moment::parse(text).map_err(|error| Wrong::Value(error.to_string(), None))
}

fn step(text: &str, _: Kind) -> Result<u64, Wrong> {
    let wrong = |detail: String| Wrong::Value(detail, None);
    let seconds = moment::duration(text).map_err(|error| wrong(error.to_string()))?.as_secs();
    if !seconds.is_multiple_of(WINDOW_SECONDS) {
        return Err(wrong(
            "steps are multiples of 10s, the shortest window that is kept".to_owned(),
        ));
    }
    Ok(seconds)
}

fn fields(text: &str, kind: Kind) -> Result<Vec<Field>, Wrong> {
    let mut fields = Vec::new();
    for name in text.split(',').filter(|_| !text.is_empty()) {
        let field = field(name, kind)?;
        if fields.contains(&field) {
            return Err(Wrong::Value(format!("`{field}` is given more than once"), None));
        }
        fields.push(field);
    }
    Ok(fields)
}

fn field(text: &str, _: Kind) -> Result<Field, Wrong> {
    Field::parse(text).ok_or_else(|| {
        let names: Vec<String> = Field::all().map(|field| field.to_string()).collect();
        // The filter language takes these without their side; here it must be said.
        let side = names.iter().find(|name| name.split('.').nth(1) == Some(text)).cloned();
        not_one_of("a field", text, &names, side)
    })
}

fn measure(text: &str, _: Kind) -> Result<Measure, Wrong> {
    let names = Measure::ALL.map(Measure::name);
    Measure::parse(text).ok_or_else(|| not_one_of("a measure", text, &names, None))
}

fn connection_sort(text: &str, _: Kind) -> Result<ConnectionSort, Wrong> {
    let names = ConnectionSort::ALL.map(ConnectionSort::name);
    ConnectionSort::parse(text).ok_or_else(|| not_one_of("an order", text, &names, None))
}

fn state(text: &str, _: Kind) -> Result<String, Wrong> {
    let names = states();
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(not_one_of("a state", text, &names, None))
}

/// What is wrong with a word that is none of these.
fn not_one_of<T: AsRef<str>>(what: &str, text: &str, names: &[T], near: Option<String>) -> Wrong {
    let suggestion = near.or_else(|| nearest(text, names.iter()));
    let all = || names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    let hint = match &suggestion {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", all()),
    };
    Wrong::Value(format!("`{}` is not {what}; {hint}", shortened(text)), suggestion)
}

fn number(text: &str, kind: Kind) -> Result<usize, Wrong> {
    let (min, max) = match kind {
        Kind::Number { min, max } => (min, max),
        _ => (0, u64::MAX),
    };
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_plain && (min..=max).contains(number))
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| Wrong::Value(format!("not a number from {min} to {max}"), None))
}

fn text(text: &str, kind: Kind) -> Result<String, Wrong> {
    match kind {
        Kind::Text { max } if text.len() > max => {
            Err(Wrong::Value(format!("longer than {max} bytes"), None))
        }
        _ => Ok(text.to_owned()),
    }
}

fn cursor(text: &str, _: Kind) -> Result<String, Wrong> {
    let is_one = |byte: u8| byte.is_ascii_hexdigit() || byte == b'.';
    if text.is_empty() || text.len() > MAX_CURSOR || !text.bytes().all(is_one) {
        let hint = "not a cursor: take next_cursor of the page before as it is";
        return Err(Wrong::Value(hint.to_owned(), None));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::parameters::{CONNECTIONS, TOP};
    use super::*;

    const NOW: u64 = 1_769_846_403;

    fn asked(query: &str) -> Result<TopQuestion, Problem> {
        top(&Given::read(Some(query), TOP.parameters)?, NOW)
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let question = asked("").unwrap();
        assert_eq!(question.by.len(), 4);
        assert_eq!(question.range, NOW - 603..NOW + 7);
        assert_eq!((question.sort, question.limit), (Measure::Bytes, Some(20)));
        assert_eq!(asked("by=").unwrap().by, []);
    }

    #[test]
    fn what_is_wrong_with_a_value_is_said() {
        for (query, parameter, detail) in [
            ("by=sorce.name", "by", "did you mean `source.name`?"),
            ("by=unit", "by", "did you mean `source.unit`?"),
            ("by=class,class", "by", "more than once"),
            ("by=class,", "by", "there are: source.id"),
            ("since=yesterday", "since", "valid are now"),
            ("since=1m&until=1h", "since", "since must be earlier"),
            ("sort=bites", "sort", "did you mean `bytes`?"),
            ("limit=0", "limit", "from 1 to 10000"),
            ("limit=10001", "limit", "from 1 to 10000"),
            ("limit=%2B5", "limit", "from 1 to 10000"),
            ("limit=", "limit", "from 1 to 10000"),
            ("filter=sorce.name%3Dx", "filter", "did you mean `source.name`?"),
        ] {
            let problem = asked(query).unwrap_err();
            assert_eq!(problem.parameter.as_deref(), Some(parameter), "{query}");
            assert!(problem.detail.contains(detail), "{query}: {}", problem.detail);
        }
    }

    #[test]
    fn every_state_can_be_asked_for() {
        for name in states() {
            let query = format!("state={name}");
            let given = Given::read(Some(&query), CONNECTIONS.parameters).unwrap();
            assert_eq!(connections(&given).unwrap().state.as_deref(), Some(name));
        }
        assert!(states().contains(&"TIME_WAIT") && states().contains(&"ended"));
    }
}
