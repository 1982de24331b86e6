//! What could stand at the cursor of a filter.

use weir_flow::filter::Problem;
use weir_flow::tuple::Protocol;
use weir_flow::{Class, EndpointField, EndpointKind, Field, Filter, Side, endpoint, port};

use crate::top::live::wants::ValuesWant;

/// Choices offered at once.
const MOST: usize = 50;

/// A value as it is written in a filter: quoted where it has to be.
pub(in crate::top::live) fn quoted(value: &str) -> String {
    let is_keyword = ["and", "or", "not", "in", "none", "all"]
        .into_iter()
        .any(|keyword| value.eq_ignore_ascii_case(keyword));
    let is_bare = |c: char| !c.is_whitespace() && !c.is_control() && !"()=!<>~,\"'\\".contains(c);
    if !value.is_empty() && !is_keyword && value.chars().all(is_bare) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                text.extend(control.escape_unicode());
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// The word at the cursor and what it is about.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it begins, in bytes.
    pub(super) start: usize,
    word: String,
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Field,
    Operator(String),
    Value(String),
    Connective,
}

/// What could stand there.
#[derive(Debug)]
pub(super) enum Choices {
    Known(Vec<String>),
    Asked(ValuesWant),
}

/// The place at the end of this text.
pub(super) fn place(before: &str) -> Place {
    let tokens = tokens(before);
    let mut expected = Expected::Field;
    let mut is_list = false;
    for (index, token) in tokens.iter().enumerate() {
        let is_last = index + 1 == tokens.len();
        let touches_end = token.start + token.text.len() == before.len();
        let is_word = !matches!(token.text, "(" | ")" | ",") && !is_operator(token.text);
        if is_last && touches_end && is_word {
            let word = token.text.trim_start_matches(['"', '\'']).to_owned();
            return Place { start: token.start, word, expected };
        }
        expected = after(expected, token.text, &mut is_list);
    }
    Place { start: before.len(), word: String::new(), expected }
}

/// What is expected after this token.
fn after(expected: Expected, token: &str, is_list: &mut bool) -> Expected {
    let is = |keyword: &str| token.eq_ignore_ascii_case(keyword);
    match expected {
        Expected::Field if is("not") || token == "(" => Expected::Field,
        Expected::Field if is("all") || token == ")" => Expected::Connective,
        Expected::Field => Expected::Operator(token.to_ascii_lowercase()),
        Expected::Operator(field) if is("not") => Expected::Operator(field),
        Expected::Operator(field) if is("in") => {
            *is_list = true;
            Expected::Value(field)
        }
        Expected::Operator(field) if is_operator(token) => Expected::Value(field),
        Expected::Value(_) if *is_list && token == ")" => {
            *is_list = false;
            Expected::Connective
        }
        // In a list a comma may follow, and another value.
        Expected::Value(field) if *is_list => Expected::Value(field),
        Expected::Connective if is("and") || is("or") => Expected::Field,
        Expected::Operator(_) | Expected::Value(_) | Expected::Connective => Expected::Connective,
    }
}

struct Token<'a> {
    start: usize,
    text: &'a str,
}

fn is_operator(token: &str) -> bool {
    token.starts_with(['=', '!', '<', '>', '~'])
}

/// Words, quoted values, operators and punctuation, as far as they go.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let length = match first {
            first if first.is_whitespace() => {
                start += first.len_utf8();
                continue;
            }
            '(' | ')' | ',' => 1,
            '=' | '!' | '<' | '>' | '~' => {
                rest.find(|c: char| !"=!<>~".contains(c)).unwrap_or(rest.len())
            }
            quote @ ('"' | '\'') => rest[1..].find(quote).map_or(rest.len(), |length| length + 2),
            _ => rest
                .find(|c: char| c.is_whitespace() || "(),=!<>~".contains(c))
                .unwrap_or(rest.len()),
        };
        tokens.push(Token { start, text: &rest[..length] });
        start += length;
    }
    tokens
}

impl Place {
    pub(super) fn choices(&self) -> Choices {
        let known: Vec<String> = match &self.expected {
            Expected::Field => fields(),
            Expected::Operator(field) => operators(field),
            Expected::Connective => vec!["and".to_owned(), "or".to_owned()],
            Expected::Value(field) => match values(field) {
                Some(values) => values,
                None => return self.asked(field),
            },
        };
        let word = self.word.to_ascii_lowercase();
        Choices::Known(known.into_iter().filter(|c| c.starts_with(&word)).take(MOST).collect())
    }

    fn asked(&self, field: &str) -> Choices {
        let either = EndpointField::ALL.into_iter().find(|candidate| candidate.name() == field);
        let fields = match (Field::parse(field), either) {
            (Some(field), _) => vec![field],
            (None, Some(either)) => {
                [Side::Source, Side::Destination].map(|side| Field::Endpoint(side, either)).to_vec()
            }
            (None, None) => return Choices::Known(vec![]),
        };
        Choices::Asked(ValuesWant { fields, prefix: self.word.clone() })
    }
}

fn fields() -> Vec<String> {
    let bare = EndpointField::ALL.into_iter().map(|field| field.name().to_owned());
    Field::all().map(|field| field.to_string()).chain(bare).chain(["port".to_owned()]).collect()
}

/// The operators that the parser takes for this field.
fn operators(field: &str) -> Vec<String> {
    let takes = |operator: &&str| {
        let error = Filter::parse(&format!("{field} {operator} x")).err();
        !error.is_some_and(|error| {
            matches!(error.problem, Problem::WrongOperator { .. } | Problem::UnknownField { .. })
        })
    };
    let comparisons = ["=", "!=", "~", "!~", "<", "<=", ">", ">="].into_iter().filter(takes);
    let lists = ["in (", "not in ("].into_iter().filter(|_| takes(&"="));
    comparisons.chain(lists).map(str::to_owned).collect()
}

/// All values of a field, where they are few and known; `None`: the store knows.
fn values(field: &str) -> Option<Vec<String>> {
    let words: Vec<&str> = match field.rsplit('.').next()? {
        "protocol" => Protocol::names().collect(),
        "class" => Class::ALL.into_iter().map(Class::name).collect(),
        "kind" => EndpointKind::ALL.into_iter().map(EndpointKind::name).collect(),
        "unresolved" => endpoint::Unresolved::ALL
            .into_iter()
            .map(endpoint::Unresolved::name)
            .chain(["none"])
            .collect(),
        "resolution" => endpoint::Resolution::ALL
            .into_iter()
            .map(endpoint::Resolution::name)
            .chain(["none"])
            .collect(),
        "ip_version" => vec!["4", "6"],
        "port" => port::names().collect(),
        _ => return None,
    };
    Some(words.into_iter().map(str::to_owned).collect())
}
