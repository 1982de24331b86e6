//! Search words: what people type who do not want to write a filter.

use std::net::IpAddr;

use weir_flow::{EndpointField, Field, port};

use super::complete::quoted;

/// Ports that a word may stand for.
const MOST_PORTS: usize = 16;

/// The filter a single word stands for: a port, an address or its beginning, or a name.
pub(super) fn translate(word: &str) -> Option<String> {
    if word.is_empty() || !word.chars().all(is_plain) {
        return None;
    }
    if word.chars().all(|character| character.is_ascii_digit()) {
        return word.parse::<u16>().ok().map(|number| format!("port = {number}"));
    }
    if let Some(prefix) = prefix(word) {
        return Some(format!("address = {prefix}"));
    }
    // The most specific name is the unit's, the container's or the executable's, where there is one.
    let mut filter = format!("name ~ {0} or host ~ {0} or workload ~ {0}", quoted(word));
    let lower = word.to_ascii_lowercase();
    let ports: Vec<&str> =
        port::names().filter(|name| name.contains(&lower)).take(MOST_PORTS).collect();
    match ports.as_slice() {
        [] => {}
        [only] => filter = format!("{filter} or port = {only}"),
        several => filter = format!("{filter} or port in ({})", several.join(", ")),
    }
    Some(filter)
}

/// True while a word may still become the name of a field or a keyword.
pub(super) fn begins_a_field(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    Field::all().any(|field| field.to_string().starts_with(&word))
        || EndpointField::ALL.into_iter().any(|field| field.name().starts_with(&word))
        || ["port", "not", "all"].into_iter().any(|name| name.starts_with(&word))
}

fn is_plain(character: char) -> bool {
    !character.is_whitespace() && !character.is_control() && !"()=!<>~,\"'".contains(character)
}

/// An address, a prefix, or the beginning of an IPv4 address (`10.`, `192.168`).
fn prefix(word: &str) -> Option<String> {
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (word, None),
    };
    if let Ok(parsed) = address.parse::<IpAddr>() {
        let most = if parsed.is_ipv4() { 32 } else { 128 };
        return length.is_none_or(|length| length <= most).then(|| word.to_owned());
    }
    if length.is_some() || !word.contains('.') {
        return None;
    }
    let mut octets = Vec::new();
    for part in word.strip_suffix('.').unwrap_or(word).split('.') {
        octets.push(part.parse::<u8>().ok()?);
    }
    let known = octets.len();
    if known > 3 {
        return None;
    }
    octets.resize(4, 0);
    let octets: Vec<String> = octets.iter().map(u8::to_string).collect();
    Some(format!("{}/{}", octets.join("."), known * 8))
}
