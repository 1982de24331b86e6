//! Answers: objects, lists, and the `Status` of what is refused.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::Said;
use super::serve::Target;
use super::state::{Key, Resource, Shared};

/// What the query of a request asks for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    pub(super) watch: bool,
    pub(super) limit: Option<usize>,
    /// The resource version of a list's first page, and the last object that was given.
    pub(super) after: Option<(u64, Key)>,
    /// `None` and 0: any.
    pub(super) resource_version: Option<u64>,
    pub(super) bookmarks: bool,
    pub(super) initial_events: bool,
    pub(super) timeout: Option<Duration>,
}

impl Asks {
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut asks = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                value.parse::<u64>().map_err(|error| format!("cannot read {key}={value}: {error}"))
            };
            let is_true = matches!(value, "true" | "1");
            match key {
                "watch" => asks.watch = is_true,
                "allowWatchBookmarks" => asks.bookmarks = is_true,
                "sendInitialEvents" => asks.initial_events = is_true,
                "limit" => asks.limit = usize::try_from(number()?).ok().filter(|limit| *limit > 0),
                "continue" => {
                    asks.after = Some(continuation(value).ok_or("continue key is not valid")?);
                }
                "resourceVersion" if !value.is_empty() => asks.resource_version = Some(number()?),
                "timeoutSeconds" => asks.timeout = Some(Duration::from_secs(number()?)),
                "resourceVersion" | "resourceVersionMatch" => {}
                other => return Err(format!("this API does not know the parameter {other}")),
            }
        }
        Ok(asks)
    }
}

/// A page is continued from the resource version of the first one and the last object given. No
/// namespace holds an underscore.
fn continuation(text: &str) -> Option<(u64, Key)> {
    let mut parts = text.splitn(3, '_');
    let revision = parts.next()?.parse().ok()?;
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some((revision, (namespace.to_owned(), name.to_owned())))
}

pub(super) fn list(
    shared: &Shared,
    target: &Target,
    asks: &Asks,
    only_metadata: bool,
) -> Response<Said> {
    let resource = target.resource;
    let limit = asks.limit.unwrap_or(usize::MAX);
    let after = asks.after.as_ref().map(|(_, key)| key);
    let (page, more, revision, is_gone) = shared.note(|state| {
        state.asked.entry(resource.plural.to_owned()).or_default().lists += 1;
        let (page, more) = state.page(resource, target.namespace.as_deref(), after, limit);
        let revision = asks.after.as_ref().map_or(state.revision, |(revision, _)| *revision);
        (page, more, revision, state.events(resource, revision, 0).is_err())
    });
    if is_gone {
        return gone(
            "The provided continue parameter is too old to display a consistent list \
                     result. You can start a new list without the continue parameter.",
        );
    }
    let next = match page.last() {
        Some(((namespace, name), _)) if more => format!("{revision}_{namespace}_{name}"),
        _ => String::new(),
    };
    let (kind, api_version) = if only_metadata {
        ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        (resource.kind.to_owned(), resource.api_version())
    };
    let head = json!({ "resourceVersion": revision.to_string(), "continue": next });
    let mut said = format!(
        "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{head},\"items\":["
    )
    .into_bytes();
    for (index, (_, json)) in page.iter().enumerate() {
        if index > 0 {
            said.push(b',');
        }
        if only_metadata {
            said.extend_from_slice(&metadata_of(json));
        } else {
            said.extend_from_slice(json);
        }
    }
    said.extend_from_slice(b"]}\n");
    whole(StatusCode::OK, said.into())
}

pub(super) fn get(shared: &Shared, target: &Target, only_metadata: bool) -> Response<Said> {
    let name = target.name.clone().unwrap_or_default();
    let key = (target.namespace.clone().unwrap_or_default(), name);
    match shared.look(|state| state.json(target.resource, &key)) {
        Some(json) => whole(StatusCode::OK, typed(target.resource, &json, only_metadata).into()),
        None => not_found(target.resource, &key.1),
    }
}

/// An object with its kind and API version, or its metadata alone.
pub(super) fn typed(resource: &Resource, json: &Bytes, only_metadata: bool) -> Vec<u8> {
    if only_metadata {
        return metadata_of(json);
    }
    let head =
        format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version());
    // Every object has metadata, so that something follows the comma.
    [head.as_bytes(), json.get(1..).unwrap_or_default()].concat()
}

fn metadata_of(json: &Bytes) -> Vec<u8> {
    let object: Value = serde_json::from_slice(json).unwrap_or_default();
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
    .to_string()
    .into_bytes()
}

pub(super) fn version() -> Response<Said> {
    let version = json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "2025-08-27T10:09:04Z", "goVersion": "go1.24.6",
        "compiler": "gc", "platform": "linux/amd64" });
    whole(StatusCode::OK, version.to_string().into())
}

pub(super) fn unauthorized() -> Response<Said> {
    status(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}

pub(super) fn no_such_path() -> Response<Said> {
    let message = "the server could not find the requested resource";
    status(StatusCode::NOT_FOUND, "NotFound", message)
}

fn not_found(resource: &Resource, name: &str) -> Response<Said> {
    let message = format!("{} \"{name}\" not found", resource.plural);
    status(StatusCode::NOT_FOUND, "NotFound", &message)
}

pub(super) fn method_not_allowed() -> Response<Said> {
    let message = "the server does not allow this method on the requested resource";
    status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

pub(super) fn bad_request(message: &str) -> Response<Said> {
    status(StatusCode::BAD_REQUEST, "BadRequest", message)
}

pub(super) fn forbidden(resource: &Resource, verb: &str) -> Response<Said> {
    let Resource { plural, group, .. } = resource;
    let message = format!(
        "{plural}{dot}{group} is forbidden: User \"system:serviceaccount:weir:weir-server\" cannot \
         {verb} resource \"{plural}\" in API group \"{group}\" at the cluster scope",
        dot = if group.is_empty() { "" } else { "." },
    );
    status(StatusCode::FORBIDDEN, "Forbidden", &message)
}

pub(super) fn gone(message: &str) -> Response<Said> {
    status(StatusCode::GONE, "Expired", message)
}

pub(super) fn no_watch_list(resource: &Resource) -> Response<Said> {
    let message = format!(
        "{} is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch \
         unless the WatchList feature gate is enabled",
        resource.plural
    );
    status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message)
}

pub(super) fn failed(message: &str) -> Response<Said> {
    status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Said> {
    whole(code, status_object(code.as_u16(), reason, message).to_string().into())
}

/// The API's own word for what went wrong.
pub(super) fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code })
}

pub(super) fn whole(code: StatusCode, bytes: Bytes) -> Response<Said> {
    with(code, Said::Whole(Some(bytes)))
}

pub(super) fn with(code: StatusCode, said: Said) -> Response<Said> {
    Response::builder()
        .status(code)
        .header(CONTENT_TYPE, "application/json")
        .body(said)
        .expect("a status and one constant header are valid")
}
