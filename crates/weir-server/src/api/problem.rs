//! What is answered when there is no answer: RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_flow::filter::{FilterError, Problem as FilterProblem};

use crate::AnswerError;

/// The media type of a problem document.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which another try is worth it.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why there is no answer (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind of problem: a stable URN.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:weir:problem:filter")]
    pub kind: Box<str>,
    /// What kind it is, in words.
    #[schema(value_type = String, example = "The filter cannot be read")]
    pub title: Box<str>,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    pub status: u16,
    /// What happened this time, and what to do about it.
    #[schema(
        value_type = String,
        example = "there is no field `sorce.name`; did you mean `source.name`?"
    )]
    pub detail: Box<str>,
    /// The query parameter that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parameter: Option<Box<str>>,
    /// Of a filter: where in its text, in bytes from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Of a filter: how many bytes are concerned; 0 at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// What was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub suggestion: Option<Box<str>>,
}

/// The kinds of problems: the URN's last part, status, title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Parameter,
    Filter,
    Question,
    CursorGone,
    NotFound,
    Method,
    Host,
    Busy,
    TooSlow,
    Away,
    Store,
    Internal,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 12] = [
        Self::Parameter,
        Self::Filter,
        Self::Question,
        Self::CursorGone,
        Self::NotFound,
        Self::Method,
        Self::Host,
        Self::Busy,
        Self::TooSlow,
        Self::Away,
        Self::Store,
        Self::Internal,
    ];

    /// The last part of its URN, its status and its title.
    pub(super) fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Parameter => ("parameter", StatusCode::BAD_REQUEST, "A query parameter is wrong"),
            Self::Filter => ("filter", StatusCode::BAD_REQUEST, "The filter cannot be read"),
            Self::Question => {
                ("question", StatusCode::BAD_REQUEST, "The question cannot be answered")
            }
            Self::CursorGone => {
                ("cursor-gone", StatusCode::GONE, "The cursor points at nothing any more")
            }
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is no such path"),
            Self::Method => {
                ("method", StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered")
            }
            Self::Host => {
                ("host", StatusCode::MISDIRECTED_REQUEST, "weir does not answer for this host")
            }
            Self::Busy => {
                ("busy", StatusCode::SERVICE_UNAVAILABLE, "Too much is being asked just now")
            }
            Self::TooSlow => ("too-slow", StatusCode::GATEWAY_TIMEOUT, "It took too long"),
            Self::Away => (
                "store-away",
                StatusCode::SERVICE_UNAVAILABLE,
                "The store cannot be asked just now",
            ),
            Self::Store => ("store", StatusCode::INTERNAL_SERVER_ERROR, "The store failed"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "weir has a defect"),
        }
    }
}

impl Problem {
    /// A problem of this kind.
    pub(super) fn new(kind: Kind, detail: impl Into<Box<str>>) -> Self {
        let (name, status, title) = kind.parts();
        Self {
            kind: format!("urn:weir:problem:{name}").into(),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            ..Self::default()
        }
    }

    /// A query parameter is wrong.
    pub(super) fn parameter(
        name: &str,
        detail: impl Into<Box<str>>,
        suggestion: Option<String>,
    ) -> Self {
        let (parameter, suggestion) = (Some(shortened(name).into()), suggestion.map(Into::into));
        Self { parameter, suggestion, ..Self::new(Kind::Parameter, detail) }
    }

    /// The filter is wrong.
    pub(super) fn filter(error: &FilterError) -> Self {
        let suggestion = match &error.problem {
            FilterProblem::UnknownField { nearest, .. }
            | FilterProblem::UnknownValue { nearest, .. } => nearest.clone(),
            _ => None,
        };
        Self {
            parameter: Some("filter".into()),
            position: u32::try_from(error.position).ok(),
            length: u32::try_from(error.length).ok(),
            suggestion: suggestion.map(Into::into),
            ..Self::new(Kind::Filter, error.to_string())
        }
    }

    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Names come from whoever asks: long ones are not sent back whole.
pub(super) fn shortened(name: &str) -> String {
    const SHOWN: usize = 64;
    let mut shown: String = name.chars().take(SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown
}

impl From<AnswerError> for Problem {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Question(detail) => Self::new(Kind::Question, detail),
            AnswerError::CursorGone => Self::new(Kind::CursorGone, error.to_string()),
            AnswerError::Busy(detail) => Self::new(Kind::Busy, detail),
            AnswerError::Away(detail) => Self::new(Kind::Away, detail),
            AnswerError::Store(error) => {
                tracing::warn!(%error, "a question could not be answered");
                Self::new(Kind::Store, error.to_string())
            }
            AnswerError::Unreachable(detail) | AnswerError::Failed(detail) => {
                Self::new(Kind::Store, detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status_code();
        let body = serde_json::to_vec(&self).expect("a problem is strings and numbers");
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}
