//! What was written: a YAML file of settings, each with its line.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_saphyr::Spanned;
use weir_flow::filter::nearest;

use crate::settings::SETTINGS;

/// More than any configuration; a larger file is not one.
const MAX_BYTES: u64 = 1 << 20;

/// A setting in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: &'static str,
    pub(crate) text: String,
    pub(crate) line: u64,
}

/// Reads a file; says everything that is wrong with it at once.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read the configuration {name}: {error}"))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(format!("{name} is too large to be a configuration"));
    }
    parse(&text, &name)
}

/// As [`read`], from text; `name` stands before every problem.
pub(crate) fn parse(text: &str, name: &str) -> Result<Vec<Entry>, String> {
    let Written(written) = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column()));
        let text = error.without_snippet().to_string();
        let what = text.lines().next().unwrap_or_default();
        let what = what.split(" at line ").next().unwrap_or_default();
        wrong(&[format!("{name}{}: {what}", place.unwrap_or_default())])
    })?;
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for (key, value) in written {
        let (at, line) = (key.referenced, key.referenced.line());
        match SETTINGS.iter().find(|setting| setting.key == key.value) {
            Some(setting) => {
                entries.push(Entry { key: setting.key, text: value.value.0, line });
            }
            None => problems.push(format!(
                "{name}:{}:{}: {}",
                at.line(),
                at.column(),
                unknown(&key.value)
            )),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(wrong(&problems)) }
}

/// All problems, a line each, without anything that steers a terminal.
pub(crate) fn wrong(problems: &[String]) -> String {
    let problems = problems.join("\n  ");
    let shown = problems.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c });
    format!("the configuration is wrong\n  {}", shown.collect::<String>())
}

fn unknown(key: &str) -> String {
    let keys = || SETTINGS.iter().map(|setting| setting.key);
    if let Some(nearest) = nearest(key, keys()) {
        return format!("there is no setting `{key}`; did you mean `{nearest}`?");
    }
    let keys: Vec<_> = keys().collect();
    format!("there is no setting `{key}`; there are: {}", keys.join(", "))
}

/// The file's settings as written.
struct Written(Vec<(Spanned<String>, Spanned<Scalar>)>);

/// A single value, whatever YAML takes it for.
#[derive(Debug)]
struct Scalar(String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl<'de> Visitor<'de> for Whole {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings, one per line: `interval: 5s`")
            }

            fn visit_unit<E>(self) -> Result<Written, E> {
                Ok(Written(Vec::new()))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Written, M::Error> {
                let mut settings = Vec::new();
                while let Some(setting) = map.next_entry()? {
                    settings.push(setting);
                }
                Ok(Written(settings))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl Visitor<'_> for One {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Err(E::custom("a setting has no value"))
            }
        }

        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_lines_and_an_empty_file_is_fine() {
        let entries = parse("# mine\nnode: n1\nset_sysctls: true\n", "f").unwrap();
        let told: Vec<_> =
            entries.iter().map(|entry| (entry.key, entry.text.as_str(), entry.line)).collect();
        assert_eq!(told, [("node", "n1", 2), ("set_sysctls", "true", 3)]);
        assert_eq!(parse("", "f"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("intervall: 5s", "f:1:1: there is no setting `intervall`; did you mean `interval`?"),
            ("zzz: 1\nnode: a", "f:1:1: there is no setting `zzz`; there are: node, server"),
            ("node: [a]", "expected one value"),
            ("node:", "has no value"),
            ("node: a\nnode: b", "f:2"),
            ("- a", "expected settings, one per line"),
            ("node: \"a", "f:1"),
            ("\u{1b}[2J: a", "f:1"),
        ] {
            let problem = parse(text, "f").unwrap_err();
            assert!(problem.contains(expected), "{text:?}: {problem}");
            assert!(!problem.contains('\u{1b}'), "{problem:?}");
        }
    }
}
