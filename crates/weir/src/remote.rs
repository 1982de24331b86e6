//! A weir elsewhere, asked over HTTP.

use std::io;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{StatusCode, header};
use ureq::{Agent, Timeout};
use weir_flow::{Field, Filter};
use weir_server::answer::{
    AnswerError, Answers, Connections, ConnectionsQuestion, FlowsPage, FlowsQuestion, Rates,
    RatesQuestion, Report, SeriesQuestion, Status, TopQuestion,
};
use weir_server::moment;

use crate::location::BaseUrl;
use crate::render::Shown;

/// Whoever does not take a connection in this time is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(30);
/// No answer is larger; long lists come in pages.
const MAX_BYTES: u64 = 64 << 20;
/// Nor do its headers need more.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// What the API gives at most where no limit is asked for.
const MAX_ROWS: usize = 10_000;
/// The same for series.
const MAX_SERIES_ROWS: usize = 50_000;

/// A weir elsewhere.
#[derive(Debug)]
pub(crate) struct Remote {
    agent: Agent,
    base: BaseUrl,
    max_bytes: u64,
}

impl Remote {
    /// Asks nothing yet.
    pub(crate) fn new(base: BaseUrl) -> Self {
        Self::within(base, ANSWER)
    }

    /// The same, for somebody who has no more time for an answer than this.
    pub(crate) fn within(base: BaseUrl, patience: Duration) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(patience))
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            // weir closes connections that were idle for ten seconds.
            .max_idle_age(Duration::from_secs(5))
            .accept("application/json");
        if base.is_loopback() {
            // Nobody means a proxy's loopback.
            config = config.proxy(None);
        }
        Self { agent: config.build().new_agent(), base, max_bytes: MAX_BYTES }
    }

    fn get<T: DeserializeOwned>(&self, path: &str, asked: &Asked) -> Result<T, AnswerError> {
        let url = format!("{}/api/v1/{path}", self.base.as_str());
        let pairs = asked.pairs.iter().map(|(name, value)| (*name, value.as_str()));
        let mut response = self
            .agent
            .get(&url)
            .query_pairs(pairs)
            .call()
            .map_err(|error| self.not_reached(&error))?;
        let status = response.status();
        let text_of = |name| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|text| Shown(text).to_string())
        };
        let media_type = text_of(header::CONTENT_TYPE);
        if status.is_redirection() {
            let target = text_of(header::LOCATION).unwrap_or_else(|| "nowhere".to_owned());
            return Err(AnswerError::Failed(format!(
                "{} answers for no weir: it points to {target}",
                self.base.as_str()
            )));
        }
        let body = response.body_mut().with_config().limit(self.max_bytes).read_to_vec();
        let body = body.map_err(|error| self.broke_off(&error))?;
        if !status.is_success() {
            return Err(self.refused(status, &body, asked));
        }
        serde_json::from_slice(&body).map_err(|error| self.not_understood(&error, media_type))
    }

    fn not_reached(&self, error: &ureq::Error) -> AnswerError {
        let base = self.base.as_str();
        let what = match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                format!("nobody answered there for {} s", CONNECT.as_secs())
            }
            ureq::Error::Timeout(_) => {
                format!("no whole answer in {} s: ask for less", ANSWER.as_secs())
            }
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::LargeResponseHeader(..) | ureq::Error::Protocol(_) => {
                return AnswerError::Failed(format!(
                    "what answers at {base} is not weir: {}",
                    Shown(&error.to_string())
                ));
            }
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "nobody listens there; does `weir up` run, and does its --listen name this address?"
                    .to_owned()
            }
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        AnswerError::Unreachable(format!("cannot reach weir at {base}: {}", Shown(&what)))
    }

    fn broke_off(&self, error: &ureq::Error) -> AnswerError {
        let base = self.base.as_str();
        match error {
            ureq::Error::BodyExceedsLimit(limit) => AnswerError::Failed(format!(
                "the answer of {base} is larger than {} MiB: ask for less, with --limit or a \
                 shorter range",
                limit >> 20
            )),
            ureq::Error::Timeout(_) => self.not_reached(error),
            other => AnswerError::Unreachable(format!(
                "weir at {base} went away in the middle of its answer: {}",
                Shown(&other.to_string())
            )),
        }
    }

    /// From an error's status and document to what it means here.
    fn refused(&self, status: StatusCode, body: &[u8], asked: &Asked) -> AnswerError {
        let base = self.base.as_str();
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return AnswerError::Failed(format!(
                "{base} answers {status}, and not as weir does: is it weir's address, or did a \
                 proxy answer?"
            ));
        };
        let detail = Shown(problem.said()).to_string();
        match status {
            StatusCode::GONE => AnswerError::CursorGone,
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS => AnswerError::Busy(format!("{base}: {detail}")),
            StatusCode::BAD_REQUEST => {
                let place = asked.value("filter").zip(problem.position);
                let pointed = place.map(|(filter, at)| point(filter, at, problem.length));
                AnswerError::Question(format!("{detail}{}", pointed.unwrap_or_default()))
            }
            status if status.is_client_error() => {
                AnswerError::Failed(format!("{base} refuses ({status}): {detail}"))
            }
            _ => AnswerError::Failed(format!("{base} failed ({status}): {detail}")),
        }
    }

    fn not_understood(&self, error: &serde_json::Error, media_type: Option<String>) -> AnswerError {
        let base = self.base.as_str();
        let media_type = media_type.unwrap_or_else(|| "of no type".to_owned());
        AnswerError::Failed(if error.is_data() {
            let error = Shown(&error.to_string()).to_string();
            format!(
                "the answer of {base} cannot be read ({error}): is it a weir of another version \
                 than {}?",
                env!("CARGO_PKG_VERSION")
            )
        } else {
            format!(
                "what {base} answers is not JSON ({media_type}): is it weir's address, or did a \
                 proxy answer?"
            )
        })
    }
}

impl Answers for Remote {
    fn status(&self, range: Range<u64>) -> Result<Status, AnswerError> {
        let mut asked = Asked::default();
        if !asked.until_now(&range) {
            asked.with("since", &moment::rfc3339(range.start));
        }
        self.get("status", &asked)
    }

    fn top(&self, question: &TopQuestion) -> Result<Report, AnswerError> {
        let TopQuestion { by, range, filter, sort, limit } = question;
        let mut asked = Asked::default();
        asked.range(range).by(by).filter(filter).with("sort", sort).limit(*limit, MAX_ROWS);
        self.get("top", &asked)
    }

    fn series(&self, question: &SeriesQuestion) -> Result<Report, AnswerError> {
        let SeriesQuestion { by, range, filter, step_seconds, limit } = question;
        let mut asked = Asked::default();
        asked.range(range).by(by).filter(filter).limit(*limit, MAX_SERIES_ROWS);
        asked.with("step", &format!("{step_seconds}s"));
        self.get("series", &asked)
    }

    fn flows(&self, question: &FlowsQuestion) -> Result<FlowsPage, AnswerError> {
        let FlowsQuestion { range, filter, step_seconds, sort, limit, cursor } = question;
        let mut asked = Asked::default();
        asked.range(range).filter(filter).limit(*limit, MAX_ROWS);
        asked.with("step", &format!("{step_seconds}s"));
        if let Some(sort) = sort {
            asked.with("sort", sort);
        }
        if let Some(cursor) = cursor {
            asked.with("cursor", cursor);
        }
        let Page { report, next_cursor } = self.get("flows", &asked)?;
        Ok(FlowsPage { report, next_cursor })
    }

    fn values(
        &self,
        dimension: Field,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, AnswerError> {
        let mut asked = Asked::default();
        asked.with("dimension", &dimension).with("prefix", &prefix).limit(Some(limit), MAX_ROWS);
        self.get("values", &asked).map(|Values { values }| values)
    }

    fn connections(&self, question: &ConnectionsQuestion) -> Result<Connections, AnswerError> {
        let ConnectionsQuestion { node, filter, state, sort, offset, limit } = question;
        let mut asked = Asked::default();
        asked
            .filter(filter)
            .with("sort", &sort.name())
            .with("offset", offset)
            .limit(Some(*limit), MAX_ROWS);
        if let Some(node) = node {
            asked.with("node", node);
        }
        if let Some(state) = state {
            asked.with("state", state);
        }
        self.get("connections", &asked)
    }

    fn rates(&self, question: &RatesQuestion) -> Result<Rates, AnswerError> {
        let RatesQuestion { by, filter, limit } = question;
        let mut asked = Asked::default();
        asked.by(by).filter(filter).limit(Some(*limit), MAX_ROWS);
        self.get("rates", &asked)
    }
}

/// Query parameters.
#[derive(Debug, Default)]
struct Asked {
    pairs: Vec<(&'static str, String)>,
}

impl Asked {
    fn with(&mut self, name: &'static str, value: &dyn ToString) -> &mut Self {
        self.pairs.push((name, value.to_string()));
        self
    }

    fn range(&mut self, range: &Range<u64>) -> &mut Self {
        if self.until_now(range) {
            return self;
        }
        self.with("since", &moment::rfc3339(range.start)).with("until", &moment::rfc3339(range.end))
    }

    /// A range that ends now ends now by the other side's clock, whatever ours says.
    fn until_now(&mut self, range: &Range<u64>) -> bool {
        let now = moment::now_seconds();
        let is_now = range.end.abs_diff(now) <= 2 && range.start < now;
        if is_now {
            self.with("since", &format!("{}s", now - range.start));
        }
        is_now
    }

    fn by(&mut self, fields: &[Field]) -> &mut Self {
        let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
        self.with("by", &fields.join(","))
    }

    fn filter(&mut self, filter: &Filter) -> &mut Self {
        if *filter == Filter::All { self } else { self.with("filter", filter) }
    }

    /// No limit is the highest one; the answer says whether it left anything out.
    fn limit(&mut self, limit: Option<usize>, max: usize) -> &mut Self {
        self.with("limit", &limit.unwrap_or(max).min(max))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// A page of flows as it is sent.
#[derive(Deserialize)]
struct Page {
    #[serde(flatten)]
    report: Report,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<String>,
}

/// An RFC 9457 problem document, as far as it is of use.
#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    /// Of a filter error: where in the filter, in bytes.
    position: Option<usize>,
    #[serde(default)]
    length: usize,
}

impl Problem {
    fn said(&self) -> &str {
        self.detail.as_deref().or(self.title.as_deref()).unwrap_or("it does not say why")
    }
}

/// The filter that was sent, and a line that points at what is wrong with it.
fn point(filter: &str, position: usize, length: usize) -> String {
    let end = position.saturating_add(length);
    let (mut indent, mut carets) = (0, 0);
    for (at, character) in filter.char_indices() {
        let width = Shown(character.encode_utf8(&mut [0; 4])).to_string().chars().count();
        if at < position {
            indent += width;
        } else if at < end {
            carets += width;
        }
    }
    let carets = "^".repeat(carets.max(1));
    format!("\n  {}\n  {:indent$}{carets}", Shown(filter), "")
}

#[cfg(test)]
mod tests;
