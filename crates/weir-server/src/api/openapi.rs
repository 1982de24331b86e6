//! The `OpenAPI` 3.1 document, from the table of paths and from the answers' own schemas.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use weir_flow::Field;
use weir_flow::filter::MAX_BYTES;
use weir_store::Measure;

use super::parameters::{ENDPOINTS, Endpoint, Kind, MAX_CURSOR, Parameter};
use super::problem::{Kind as ProblemKind, MEDIA_TYPE, Problem};
use super::questions::states;
use crate::answer::{ConnectionSort, Connections, Rates, Status};

const ABOUT: &str = "What moves over this machine's network, now and in the past. All answers are \
    JSON and all questions are GET. Times are RFC 3339 in UTC and ranges are half-open; numbers \
    are exact integers of up to 64 bits, and null is what nobody knows, never 0. Errors are RFC \
    9457 problem documents. A parameter that is unknown or given twice is an error.";

/// A duration: numbers with the units d, h, m, s, from large to small.
const DURATION: &str = "[1-9][0-9]{0,3}d([0-9]{1,2}h)?([0-9]{1,2}m)?([0-9]{1,2}s)?\
    |[1-9][0-9]{0,4}h([0-9]{1,2}m)?([0-9]{1,2}s)?|[1-9][0-9]{0,5}m([0-9]{1,2}s)?|[1-9][0-9]{0,7}s";
/// An RFC 3339 time from 1970 on.
const TIME: &str = "(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
    T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
/// A duration that is a multiple of ten seconds.
const STEP: &str = "[1-9][0-9]{0,3}d([0-9]{1,2}h)?([0-9]{1,2}m)?([0-9]?0s)?\
    |[1-9][0-9]{0,4}h([0-9]{1,2}m)?([0-9]?0s)?|[1-9][0-9]{0,5}m([0-9]?0s)?|[1-9][0-9]{0,6}0s";

/// The document's text.
pub(super) fn serialized() -> Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    TEXT.get_or_init(|| document().to_string().into()).clone()
}

/// The `OpenAPI` document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        paths.insert(endpoint.path.to_owned(), json!({ "get": operation(endpoint) }));
    }
    paths.insert("/api/v1/openapi.json".to_owned(), json!({ "get": itself() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": schemas(), "responses": responses() },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let lines = json!({ "schema": { "type": "string", "description": "One JSON object a line." } });
    let mut content = match endpoint.answer {
        "Lines" => json!({}),
        answer => json!({ "application/json": { "schema": reference(answer) } }),
    };
    let mut problems = vec![
        ProblemKind::Parameter,
        ProblemKind::Method,
        ProblemKind::Host,
        ProblemKind::Store,
        ProblemKind::Busy,
        ProblemKind::TooSlow,
    ];
    if endpoint.parameters.iter().any(|parameter| parameter.kind == Kind::Cursor) {
        problems.push(ProblemKind::CursorGone);
        content["application/x-ndjson"] = lines;
    }
    let mut responses = refused(&problems);
    responses
        .insert("200".to_owned(), json!({ "description": endpoint.summary, "content": content }));
    let parameters: Vec<Value> = endpoint.parameters.iter().map(parameter).collect();
    json!({
        "operationId": endpoint.id,
        "summary": endpoint.summary,
        "description": endpoint.about,
        "parameters": parameters,
        "responses": responses,
    })
}

fn itself() -> Value {
    let problems =
        [ProblemKind::Parameter, ProblemKind::Method, ProblemKind::Host, ProblemKind::TooSlow];
    let mut responses = refused(&problems);
    let content = json!({ "application/json": { "schema": { "type": "object" } } });
    responses
        .insert("200".to_owned(), json!({ "description": "This document", "content": content }));
    json!({
        "operationId": "openapi",
        "summary": "This document",
        "parameters": [],
        "responses": responses,
    })
}

fn refused(problems: &[ProblemKind]) -> Map<String, Value> {
    let entry = |problem: &ProblemKind| {
        let status = problem.parts().1.as_u16().to_string();
        let place = json!({ "$ref": format!("#/components/responses/{status}") });
        (status, place)
    };
    // What hyper itself answers to a head that is too large, before there is a request.
    let heads = ["414", "431"].map(|status| {
        (status.to_owned(), json!({ "$ref": format!("#/components/responses/{status}") }))
    });
    problems.iter().map(entry).chain(heads).collect()
}

fn responses() -> Value {
    let mut responses = Map::new();
    for kind in ProblemKind::ALL {
        let (_, status, _) = kind.parts();
        let mut titles: Vec<&str> = Vec::new();
        for other in ProblemKind::ALL {
            if other.parts().1 == status {
                titles.push(other.parts().2);
            }
        }
        let content = json!({ MEDIA_TYPE: { "schema": reference("Problem") } });
        let mut response = json!({ "description": titles.join("; "), "content": content });
        let number = json!({ "schema": { "type": "integer", "minimum": 1 } });
        let text = json!({ "schema": { "type": "string" } });
        match status.as_u16() {
            503 => response["headers"] = json!({ "Retry-After": number }),
            405 => response["headers"] = json!({ "Allow": text }),
            _ => {}
        }
        responses.insert(status.as_str().to_owned(), response);
    }
    for (status, about) in [("414", "The URL is too long"), ("431", "The request is too large")] {
        responses.insert(status.to_owned(), json!({ "description": about }));
    }
    Value::Object(responses)
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter { name, kind, default, required, about, example } = parameter;
    let mut schema = schema_of(*kind);
    if let Some(default) = default {
        schema["default"] = value_of(*kind, default);
    }
    let mut described = json!({
        "name": name,
        "in": "query",
        "required": required,
        "description": about,
        "schema": schema,
        "example": value_of(*kind, example),
    });
    if matches!(kind, Kind::Fields) {
        described["style"] = json!("form");
        described["explode"] = json!(false);
    }
    if matches!(kind, Kind::Fields | Kind::Text { .. } | Kind::Filter) {
        described["allowEmptyValue"] = json!(true);
    }
    described
}

/// A value in the form that the parameter's schema describes.
fn value_of(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Number { .. } => text.parse::<u64>().map_or_else(|_| json!(text), |n| json!(n)),
        Kind::Fields => text.split(',').filter(|name| !name.is_empty()).collect(),
        _ => json!(text),
    }
}

fn schema_of(kind: Kind) -> Value {
    match kind {
        Kind::Moment => {
            json!({ "type": "string", "pattern": format!("^(now|{DURATION}|{TIME})$") })
        }
        Kind::Step => json!({ "type": "string", "pattern": format!("^({STEP})$") }),
        Kind::Field => json!({ "type": "string", "enum": field_names() }),
        Kind::Fields => json!({
            "type": "array",
            "items": { "type": "string", "enum": field_names() },
            "uniqueItems": true,
        }),
        Kind::Measure => json!({ "type": "string", "enum": Measure::ALL.map(Measure::name) }),
        Kind::ConnectionSort => {
            json!({ "type": "string", "enum": ConnectionSort::ALL.map(ConnectionSort::name) })
        }
        Kind::State => json!({ "type": "string", "enum": states() }),
        Kind::Filter => json!({ "type": "string", "maxLength": MAX_BYTES }),
        Kind::Number { min, max } => {
            json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max })
        }
        Kind::Text { max } => json!({ "type": "string", "maxLength": max }),
        Kind::Cursor => {
            json!({ "type": "string", "pattern": format!("^[0-9a-f.]{{1,{MAX_CURSOR}}}$") })
        }
    }
}

fn field_names() -> Vec<String> {
    Field::all().map(|field| field.to_string()).collect()
}

fn schemas() -> Value {
    let mut found = Vec::new();
    add::<Status>(&mut found);
    add::<Connections>(&mut found);
    add::<Rates>(&mut found);
    add::<Problem>(&mut found);
    let mut schemas: Map<String, Value> = found.into_iter().collect();
    schemas.insert("Report".to_owned(), report(false));
    schemas.insert("Flows".to_owned(), report(true));
    schemas.insert("Values".to_owned(), values());
    Value::Object(schemas)
}

fn add<T: ToSchema>(found: &mut Vec<(String, Value)>) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    found.extend(schemas.into_iter().map(|(name, schema)| {
        (name, serde_json::to_value(schema).expect("a schema is plain data with text keys"))
    }));
}

/// Rows of sums; of flows, with the way to the next page.
fn report(of_flows: bool) -> Value {
    let time =
        |about: &str| json!({ "type": "string", "format": "date-time", "description": about });
    let columns: Vec<String> = std::iter::once("time".to_owned())
        .chain(field_names())
        .chain(Measure::ALL.map(|measure| measure.to_string()))
        .collect();
    let mut cells: Map<String, Value> = Map::new();
    cells.insert("time".to_owned(), time("Start of the step."));
    for field in Field::all() {
        let types = match field {
            Field::DestinationPort | Field::IpVersion => json!(["integer", "null"]),
            _ => json!(["string", "null"]),
        };
        cells.insert(field.to_string(), json!({ "type": types }));
    }
    for measure in Measure::ALL {
        let schema = json!({ "type": ["integer", "null"], "minimum": 0 });
        cells.insert(measure.to_string(), schema);
    }
    let mut properties = json!({
        "columns": {
            "type": "array",
            "items": { "type": "string", "enum": columns },
            "description": "The names of each row's cells, in order.",
        },
        "rows": {
            "type": "array",
            "items": { "type": "object", "properties": cells, "additionalProperties": false },
        },
        "since": time("Where the windows that were summed begin."),
        "until": time("Where they end, not included."),
        "level_seconds": {
            "type": "integer",
            "minimum": 1,
            "description": "Length of the shortest windows that were summed.",
        },
        "step_seconds": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Length of the steps; longer than asked for where shorter windows are \
                            not kept any more.",
        },
        "more": { "type": "boolean", "description": "True when the limit left rows out." },
    });
    if of_flows {
        properties["next_cursor"] = json!({
            "type": ["string", "null"],
            "description": "Where the next page begins; null after the last one.",
        });
    }
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({
        "type": "object",
        "description": "Rows of sums. A cell is null where the flow has no such thing, or where \
                        nobody counted.",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn values() -> Value {
    json!({
        "type": "object",
        "required": ["dimension", "values"],
        "properties": {
            "dimension": { "type": "string", "enum": field_names() },
            "values": { "type": "array", "items": { "type": "string" } },
        },
        "additionalProperties": false,
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
