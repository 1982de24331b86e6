//! One function per path.

use std::fmt::Debug;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Handle;

use super::gate::Gate;
use super::parameters::{self, Endpoint, Given};
use super::problem::{Kind, Problem};
use super::stream::{self, Form, Patience};
use super::{Shared, openapi, questions};
use crate::{AnswerError, Answers};

const JSON: &str = "application/json";

pub(super) async fn landing(RawQuery(query): RawQuery) -> Result<Html<&'static str>, Problem> {
    Given::read(query.as_deref(), &[])?;
    Ok(Html(include_str!("landing.html")))
}

pub(super) async fn openapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Given::read(query.as_deref(), &[])?;
    Ok(json_body(openapi::serialized()))
}

pub(super) async fn not_found() -> Problem {
    Problem::new(Kind::NotFound, "there is no such path; /api/v1/openapi.json lists all there are")
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(Kind::Method, "weir is only asked, never told: use GET or HEAD")
}

pub(super) async fn status(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let range = questions::status(&given(&parameters::STATUS, query.as_deref())?, shared.now())?;
    shared.ask(&shared.store_gate, move |answers| answers.status(range)).await
}

pub(super) async fn top(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let question = questions::top(&given(&parameters::TOP, query.as_deref())?, shared.now())?;
    shared.ask_once("top", question, |answers, question| answers.top(question)).await
}

pub(super) async fn series(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let question = questions::series(&given(&parameters::SERIES, query.as_deref())?, shared.now())?;
    shared.ask_once("series", question, |answers, question| answers.series(question)).await
}

pub(super) async fn values(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let question = questions::values(&given(&parameters::VALUES, query.as_deref())?)?;
    let ask = |answers: &dyn Answers, question: &questions::ValuesQuestion| {
        let questions::ValuesQuestion { dimension, prefix, limit } = question;
        let values = answers.values(*dimension, prefix, *limit)?;
        Ok(json!({ "dimension": dimension.to_string(), "values": values }))
    };
    shared.ask_once("values", question, ask).await
}

pub(super) async fn connections(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let question = questions::connections(&given(&parameters::CONNECTIONS, query.as_deref())?)?;
    shared.ask(&shared.live_gate, move |answers| answers.connections(&question)).await
}

pub(super) async fn rates(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let question = questions::rates(&given(&parameters::RATES, query.as_deref())?)?;
    shared.ask(&shared.live_gate, move |answers| answers.rates(&question)).await
}

pub(super) async fn flows(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let question = questions::flows(&given(&parameters::FLOWS, query.as_deref())?, shared.now())?;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = Form::accepted(&accept.collect::<Vec<_>>().join(","));

    // A page stays in memory until it is sent. Its reader may be slow, so pages have a gate of
    // their own and do not hold up the questions behind them.
    let sending = shared.stream_gate.enter().await?;
    let answers = shared.answers.clone();
    let page = shared.store_gate.run(move || Ok(answers.flows(&question)?)).await?;
    let (pieces, body) = stream::channel(Patience::Whole(shared.options.limits.stream_time));
    tokio::task::spawn_blocking(move || {
        if let Err(error) = stream::write_page(&page, form, pieces) {
            tracing::debug!(%error, "a reader left before the page ended");
        }
        drop((page, sending));
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form.media_type())),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    Ok((headers, Body::new(body)).into_response())
}

/// All flows of a range, page after page: what is held is a page, however long the range.
pub(super) async fn export(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut question =
        questions::export(&given(&parameters::EXPORT, query.as_deref())?, shared.now())?;
    let sending = shared.stream_gate.enter().await?;
    let answers = shared.answers.clone();
    let asked = question.clone();
    let first = shared.store_gate.run(move || Ok(answers.flows(&asked)?)).await?;
    let (pieces, body) = stream::channel(Patience::Piece(shared.options.limits.stream_time));
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let next = |cursor: String| {
            question.cursor = Some(cursor);
            let place = runtime.block_on(shared.store_gate.enter());
            let page = place.and_then(|_place| Ok(shared.answers.flows(&question)?));
            page.inspect_err(|problem| tracing::warn!(?problem, "an export was cut short")).ok()
        };
        if let Err(error) = stream::write_all(first, next, pieces) {
            tracing::debug!(%error, "a reader left before the export ended");
        }
        drop(sending);
    });
    let media_type = HeaderValue::from_static(Form::Lines.media_type());
    Ok(([(header::CONTENT_TYPE, media_type)], Body::new(body)).into_response())
}

fn given(endpoint: &'static Endpoint, query: Option<&str>) -> Result<Given, Problem> {
    Given::read(query, endpoint.parameters)
}

impl Shared {
    fn now(&self) -> u64 {
        (self.options.clock)().seconds()
    }

    /// Asks behind a gate.
    async fn ask<T: Serialize>(
        &self,
        gate: &Gate,
        ask: impl FnOnce(&dyn Answers) -> Result<T, AnswerError> + Send + 'static,
    ) -> Result<Response, Problem> {
        let answers = self.answers.clone();
        let body = gate.run(move || Ok(serialized(&ask(&*answers)?))).await?;
        Ok(json_body(body))
    }

    /// Asks the store, unless somebody asks or just asked the same.
    async fn ask_once<Q: Debug + Send + 'static, T: Serialize>(
        &self,
        name: &str,
        question: Q,
        ask: impl FnOnce(&dyn Answers, &Q) -> Result<T, AnswerError> + Send + 'static,
    ) -> Result<Response, Problem> {
        let version = self.options.changes.load(Ordering::Acquire);
        let key = format!("{name} {question:?}");
        let compute = || {
            let (answers, gate) = (self.answers.clone(), self.store_gate.clone());
            async move { gate.run(move || Ok(serialized(&ask(&*answers, &question)?))).await }
        };
        self.cache.answer(key, version, compute).await.map(json_body)
    }
}

fn serialized<T: Serialize>(answer: &T) -> Bytes {
    serde_json::to_vec(answer).expect("answers are plain data with text keys").into()
}

fn json_body(body: Bytes) -> Response {
    let headers: [(HeaderName, HeaderValue); 1] =
        [(header::CONTENT_TYPE, HeaderValue::from_static(JSON))];
    (headers, body).into_response()
}
