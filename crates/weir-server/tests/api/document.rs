//! The `OpenAPI` document says what the API does: each path with good and bad parameters answers
//! with a status and a body that the document has.

use serde_json::Value;

use crate::http::{self, Answer};
use crate::schema::mismatch;
use crate::support::{Served, served};

struct Documented {
    served: Served,
    document: Value,
}

impl Documented {
    fn read() -> Self {
        let served = served();
        let answer = http::get(served.address, "/api/v1/openapi.json");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        Self { document: answer.json(), served }
    }

    fn operations(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.document["paths"].as_object().unwrap().iter().map(|(path, item)| (path, &item["get"]))
    }

    /// Asks, and holds the answer against the document.
    fn ask(&self, path: &str, operation: &Value, query: &str, headers: &[(&str, &str)]) -> Answer {
        let url = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let headers = [&[("host", "localhost")], headers].concat();
        let answer = http::request(self.served.address, "GET", &url, &headers);
        let mut response = &operation["responses"][answer.status.to_string()];
        assert!(!response.is_null(), "{url}: {} is not documented: {answer:?}", answer.status);
        if let Some(place) = response["$ref"].as_str() {
            response = self.document.pointer(&place[1..]).unwrap();
        }
        let media_type = answer.header("content-type").unwrap();
        let content = &response["content"][media_type];
        assert!(!content.is_null(), "{url}: {media_type} is not documented");
        if media_type != "application/x-ndjson" {
            let wrong = mismatch(&self.document, &content["schema"], &answer.json());
            assert_eq!(wrong, None, "{url}: {}", answer.text());
        }
        answer
    }
}

/// As a query string has it.
fn written(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    text.replace(' ', "%20")
}

/// What a parameter must have beside it.
fn required(operation: &Value, but: &str) -> String {
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let needed =
        parameters.filter(|parameter| parameter["required"] == true && parameter["name"] != but);
    needed.fold(String::new(), |query, parameter| {
        let name = parameter["name"].as_str().unwrap();
        format!("{query}{name}={}&", written(&parameter["example"]))
    })
}

/// Values that the parameter's schema takes.
fn good(parameter: &Value) -> Vec<String> {
    let schema = &parameter["schema"];
    let mut values: Vec<String> =
        schema["enum"].as_array().into_iter().flatten().map(written).collect();
    values.extend(schema["items"]["enum"].as_array().into_iter().flatten().map(written));
    values.extend(
        [&schema["minimum"], &schema["maximum"], &schema["default"]]
            .iter()
            .filter(|v| !v.is_null())
            .map(|v| written(v)),
    );
    // The example of a cursor is of another store.
    if parameter["name"] != "cursor" {
        values.push(written(&parameter["example"]));
    }
    values
}

/// Values that it does not take.
fn bad(parameter: &Value) -> Vec<String> {
    let schema = &parameter["schema"];
    let mut values = Vec::new();
    if let Some(max) = schema["maximum"].as_u64() {
        values.extend([
            (max + 1).to_string(),
            "-1".into(),
            "1.5".into(),
            "x".into(),
            String::new(),
        ]);
        values.extend(
            schema["minimum"].as_u64().filter(|min| *min > 0).map(|min| (min - 1).to_string()),
        );
        values.push("99999999999999999999999999".to_owned());
    }
    if !schema["enum"].is_null() || !schema["items"].is_null() {
        values.extend(["nothing".to_owned(), "%00".to_owned(), ",".to_owned()]);
    }
    if !schema["pattern"].is_null() {
        values.extend(["!".to_owned(), String::new(), "%F0%9F%90%9F".to_owned(), "0".repeat(200)]);
    }
    if let Some(max) = schema["maxLength"].as_u64() {
        values.push("x".repeat(usize::try_from(max).unwrap() + 1));
    }
    values.push("%zz".to_owned());
    values.push("%ff".to_owned());
    values
}

#[test]
fn every_path_answers_as_documented() {
    let documented = Documented::read();
    assert_eq!(documented.operations().count(), 9);
    for (path, operation) in documented.operations() {
        let with = required(operation, "");
        let answer = documented.ask(path, operation, with.trim_end_matches('&'), &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let answer = documented.ask(path, operation, &format!("{with}nonsense=1"), &[]);
        assert_eq!(answer.problem()["parameter"], "nonsense");
        let answer = documented.ask(path, operation, &with, &[("accept", "application/x-ndjson")]);
        assert_eq!(answer.status, 200);
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let beside = required(operation, name);
            for value in good(parameter) {
                let answer =
                    documented.ask(path, operation, &format!("{beside}{name}={value}"), &[]);
                // What is asked for may lie at or after now: the one thing a schema cannot say.
                let is_now = name == "since" && value == "now";
                let expected = if is_now && *path != "/api/v1/status" { 400 } else { 200 };
                assert_eq!(answer.status, expected, "{path} {name}={value}: {answer:?}");
            }
            let twice = format!("{beside}{name}={value}&{name}={value}", value = "1h");
            for query in
                bad(parameter).iter().map(|value| format!("{beside}{name}={value}")).chain([twice])
            {
                let answer = documented.ask(path, operation, &query, &[]);
                assert_eq!(answer.status, 400, "{path}?{query}: {answer:?}");
                assert_eq!(answer.problem()["parameter"], name, "{path}?{query}");
            }
        }
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["required"] == true {
                let answer = documented.ask(path, operation, "", &[]);
                assert_eq!(answer.problem()["parameter"], name);
            }
        }
    }
}

#[test]
fn the_document_is_whole() {
    let documented = Documented::read();
    assert_eq!(documented.document["openapi"], "3.1.0");
    walk(&documented.document, &documented.document);
    for (path, operation) in documented.operations() {
        assert!(operation["summary"].is_string(), "{path}");
        for parameter in operation["parameters"].as_array().unwrap() {
            assert!(
                parameter["description"].as_str().unwrap().ends_with('.'),
                "{path} {parameter}"
            );
            let wrong = mismatch(&documented.document, &parameter["schema"], &parameter["example"]);
            assert_eq!(wrong, None, "{path} {parameter}");
        }
    }
}

/// Every reference leads somewhere.
fn walk(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(place) = map.get("$ref") {
                let place = place.as_str().unwrap();
                assert!(document.pointer(&place[1..]).is_some(), "{place} leads nowhere");
            }
            map.values().for_each(|value| walk(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
        _ => {}
    }
}
