//! The paths and their query parameters: one table that requests are read by and that the `OpenAPI`
//! document is written from, so that neither can say what the other does not do.

use weir_flow::filter::nearest;

use super::problem::{Problem, shortened};

/// A path that answers a question.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    /// The operation's name.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// The name of its answer's schema.
    pub(super) answer: &'static str,
}

/// A query parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What stands for it where it is left out; `None`: nothing.
    pub(super) default: Option<&'static str>,
    pub(super) required: bool,
    pub(super) about: &'static str,
    pub(super) example: &'static str,
}

/// What a parameter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A point in time.
    Moment,
    /// The length of a step.
    Step,
    /// A field's name.
    Field,
    /// Fields, separated by commas.
    Fields,
    /// A measure's name.
    Measure,
    /// An order of connections.
    ConnectionSort,
    /// A connection's state.
    State,
    /// A filter.
    Filter,
    /// A number.
    Number { min: u64, max: u64 },
    /// Any text up to this many bytes.
    Text { max: usize },
    /// Where a page ended.
    Cursor,
}

/// The most rows of any answer.
pub(super) const MAX_ROWS: u64 = 10_000;
/// The most rows of a series: rows without names.
const MAX_SERIES_ROWS: u64 = 50_000;
/// The most connections that can be left out at the beginning.
const MAX_OFFSET: u64 = 10_000_000;
/// The longest cursor.
pub(super) const MAX_CURSOR: usize = 128;
/// The longest text.
const MAX_TEXT: usize = 1_024;

const fn parameter(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    example: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter { name, kind, default, required: false, about, example }
}

const fn since(default: &'static str) -> Parameter {
    let about = "From when on: a duration ago (10m, 2h30m, 1d), now, or an RFC 3339 time.";
    parameter("since", Kind::Moment, Some(default), "1h", about)
}

const UNTIL: Parameter = {
    let about = "Until when, not included; as since. Must be later than since.";
    parameter("until", Kind::Moment, Some("now"), "now", about)
};

const FILTER: Parameter = {
    let about = "Only what this holds for. The filter language is the same everywhere in weir.";
    parameter("filter", Kind::Filter, Some(""), "destination.port in (80, 443)", about)
};

const fn limit(default: &'static str, min: u64, max: u64) -> Parameter {
    let about = "How many rows at most; `more` tells whether any were left out.";
    parameter("limit", Kind::Number { min, max }, Some(default), default, about)
}

const fn step(default: &'static str) -> Parameter {
    let about = "Length of a step, a multiple of 10s; longer where shorter windows are not kept \
                 any more.";
    parameter("step", Kind::Step, Some(default), "60s", about)
}

const fn by(default: &'static str, about: &'static str) -> Parameter {
    parameter("by", Kind::Fields, Some(default), "source.name,destination.name", about)
}

/// All paths that answer questions.
pub(super) const ENDPOINTS: &[Endpoint] =
    &[STATUS, TOP, SERIES, FLOWS, EXPORT, VALUES, CONNECTIONS, RATES];

pub(super) const STATUS: Endpoint = Endpoint {
    path: "/api/v1/status",
    id: "status",
    summary: "How weir is",
    about: "Each node's agent as it last spoke of itself, the store, and what is known to be \
            missing.",
    parameters: &[parameter(
        "since",
        Kind::Moment,
        Some("1d"),
        "1d",
        "From when on gaps are listed and counters summed: a duration ago (1d), now, or an RFC \
         3339 time.",
    )],
    answer: "Status",
};

pub(super) const TOP: Endpoint = Endpoint {
    path: "/api/v1/top",
    id: "top",
    summary: "Flows ranked",
    about: "Flows summed over the whole range by the given fields, largest first.",
    parameters: &[
        by(
            "source.name,destination.name,destination.port,protocol",
            "Fields to sum by, separated by commas. Empty: one row for everything.",
        ),
        since("10m"),
        UNTIL,
        FILTER,
        parameter("sort", Kind::Measure, Some("bytes"), "bytes", "Largest first by this."),
        limit("20", 1, MAX_ROWS),
    ],
    answer: "Report",
};

pub(super) const SERIES: Endpoint = Endpoint {
    path: "/api/v1/series",
    id: "series",
    summary: "Flows step by step",
    about: "Flows summed by steps of time and the given fields, in the order of time. Steps in \
            which nothing was stored are left out.",
    parameters: &[
        by("", "Fields to sum by, separated by commas. Empty: one sum per step."),
        step("60s"),
        since("10m"),
        UNTIL,
        FILTER,
        limit("10000", 1, MAX_SERIES_ROWS),
    ],
    answer: "Report",
};

pub(super) const FLOWS: Endpoint = Endpoint {
    path: "/api/v1/flows",
    id: "flows",
    summary: "Flows one by one",
    about: "One row per flow and step with all its fields, by time; or the largest with sort. \
            Where more follows, next_cursor leads to the next page: ask again with it and \
            everything else as before. With `Accept: application/x-ndjson` each row is a line, \
            and the last line has next_cursor.",
    parameters: &[
        since("10m"),
        UNTIL,
        FILTER,
        step("10s"),
        parameter(
            "sort",
            Kind::Measure,
            None,
            "bytes",
            "Largest first by this, without pages. Left out: by time.",
        ),
        limit("1000", 1, MAX_ROWS),
        CURSOR,
    ],
    answer: "Flows",
};

const CURSOR: Parameter = parameter(
    "cursor",
    Kind::Cursor,
    None,
    "69145e80.a.691460d8.3e7.5cf1b1b8cc1b1ff3c1a2d4be6a1d5f0e",
    "next_cursor of the page before.",
);

pub(super) const EXPORT: Endpoint = Endpoint {
    path: "/api/v1/flows/export",
    id: "export",
    summary: "All flows of a range",
    about: "As flows by time, without an end to its length: a row a line, sent while it is read. \
            Every so many rows a line with next_cursor stands between them; the last line's is \
            null. An answer that breaks off has no such last line: ask again with the last cursor \
            that came, and leave away the rows behind it.",
    parameters: &[since("10m"), UNTIL, FILTER, step("10s"), CURSOR],
    answer: "Lines",
};

pub(super) const VALUES: Endpoint = Endpoint {
    path: "/api/v1/values",
    id: "values",
    summary: "The values of a field",
    about: "The values of a field that are in the store, as they are written in filters, in \
            order.",
    parameters: &[
        Parameter {
            required: true,
            ..parameter("dimension", Kind::Field, None, "source.name", "The field.")
        },
        parameter(
            "prefix",
            Kind::Text { max: MAX_TEXT },
            Some(""),
            "nginx",
            "Only values that begin with this.",
        ),
        limit("100", 1, MAX_ROWS),
    ],
    answer: "Values",
};

pub(super) const CONNECTIONS: Endpoint = Endpoint {
    path: "/api/v1/connections",
    id: "connections",
    summary: "Connections as they are now",
    about: "The connections that live, and for a short while those that ended: a part of them in \
            the order asked for.",
    parameters: &[
        parameter("node", Kind::Text { max: MAX_TEXT }, None, "web1", "Only of this observer."),
        FILTER,
        parameter("state", Kind::State, None, "ESTABLISHED", "Only those in this state."),
        parameter(
            "sort",
            Kind::ConnectionSort,
            Some("rate"),
            "rate",
            "Largest or newest first for numbers, ascending for text.",
        ),
        parameter(
            "offset",
            Kind::Number { min: 0, max: MAX_OFFSET },
            Some("0"),
            "0",
            "How many rows to leave out at the beginning.",
        ),
        limit("100", 0, MAX_ROWS),
    ],
    answer: "Connections",
};

pub(super) const RATES: Endpoint = Endpoint {
    path: "/api/v1/rates",
    id: "rates",
    summary: "What moves now",
    about: "The live connections' rates summed by the given fields, the busiest first.",
    parameters: &[
        by(
            "source.name,destination.name",
            "Fields to sum by, separated by commas. Empty: one row for everything.",
        ),
        FILTER,
        limit("100", 1, MAX_ROWS),
    ],
    answer: "Rates",
};

/// The parameters of one request, names checked, each at most once.
#[derive(Debug)]
pub(super) struct Given {
    parameters: &'static [Parameter],
    pairs: Vec<(&'static str, String)>,
}

impl Given {
    /// Reads a query string.
    pub(super) fn read(
        query: Option<&str>,
        parameters: &'static [Parameter],
    ) -> Result<Self, Problem> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decoded(name).ok_or_else(|| {
                Problem::parameter(name, "the name is not percent-encoded UTF-8", None)
            })?;
            let Some(known) = parameters.iter().find(|known| known.name == name) else {
                return Err(unknown(&name, parameters));
            };
            let value = decoded(value).ok_or_else(|| {
                Problem::parameter(known.name, "the value is not percent-encoded UTF-8", None)
            })?;
            if pairs.iter().any(|(given, _)| *given == known.name) {
                let detail = format!("`{}` is given more than once", known.name);
                return Err(Problem::parameter(known.name, detail, None));
            }
            pairs.push((known.name, value));
        }
        let left_out = |known: &&Parameter| {
            known.required && pairs.iter().all(|(given, _)| *given != known.name)
        };
        if let Some(missing) = parameters.iter().find(left_out) {
            let detail = format!("`{}` is missing; an example: {}", missing.name, missing.example);
            return Err(Problem::parameter(missing.name, detail, None));
        }
        Ok(Self { parameters, pairs })
    }

    /// The value of a parameter, or its default; read by `read`, which says what is wrong.
    pub(super) fn value<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str, Kind) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Problem> {
        let Some(known) = self.parameters.iter().find(|known| known.name == name) else {
            return Ok(None);
        };
        let given = self.pairs.iter().find(|(given, _)| *given == name);
        let Some(text) = given.map(|(_, value)| value.as_str()).or(known.default) else {
            return Ok(None);
        };
        read(text, known.kind).map(Some).map_err(|wrong| match wrong {
            Wrong::Value(detail, suggestion) => Problem::parameter(name, detail, suggestion),
            Wrong::Filter(error) => Problem::filter(&error),
        })
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) enum Wrong {
    /// This, and what was probably meant.
    Value(String, Option<String>),
    /// It is not a filter.
    Filter(weir_flow::filter::FilterError),
}

fn unknown(name: &str, parameters: &[Parameter]) -> Problem {
    let names = parameters.iter().map(|known| known.name);
    let suggestion = nearest(name, names.clone());
    let hint = match &suggestion {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
    };
    let detail = format!("there is no parameter `{}`; {hint}", shortened(name));
    Problem::parameter(name, detail, suggestion)
}

/// Undoes `%XX` and `+`; `None` where that is not text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_or_refused() {
        for (text, value) in [
            ("a+b%20c", Some("a b c")),
            ("%c3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
            ("", Some("")),
        ] {
            assert_eq!(decoded(text).as_deref(), value, "{text}");
        }
    }

    #[test]
    fn names_are_known_and_given_once() {
        let read = |query| Given::read(Some(query), TOP.parameters);
        assert!(read("&since=1h&&limit=5&").is_ok());
        for (query, detail, suggestion) in [
            ("sinse=1h", "did you mean `since`?", Some("since")),
            ("zzzzzzzz=1", "there are: by, since", None),
            ("since=1h&since=1h", "more than once", None),
            ("%ff=1", "the name is not", None),
            ("since=%ff", "the value is not", None),
        ] {
            let problem = read(query).unwrap_err();
            assert!(problem.detail.contains(detail), "{query}: {}", problem.detail);
            assert_eq!(problem.suggestion.as_deref(), suggestion, "{query}");
            assert_eq!(problem.status, 400);
        }
        let missing = Given::read(None, VALUES.parameters).unwrap_err();
        assert!(missing.detail.contains("`dimension` is missing"), "{}", missing.detail);
    }
}
