//! What was written: a YAML file of settings, each with its place in the file.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use weir_flow::filter::nearest;
use weir_flow::ranges::{Prefix, Range};
use weir_server::ranges::{OwnRange, own_ranges};
use weir_store::Retention;

use crate::args::{Conntrack, Listen, UsageError, value};
use crate::render::Shown;

/// Every setting there is, in the order in which they are explained.
pub(crate) const KEYS: [&str; 11] = [
    "data_dir",
    "interval",
    "cpu_budget",
    "conntrack",
    "activate_conntrack",
    "retention",
    "no_set_sysctls",
    "listen",
    "insecure_listen",
    "allow_host",
    "plain",
];

/// More than any configuration; a larger file is not one.
const MAX_BYTES: u64 = 1 << 20;

/// A value and the line it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: u64,
}

/// What was written; what was not is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ConfigFile {
    pub(super) data_dir: Option<At<PathBuf>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) cpu_budget: Option<At<f64>>,
    pub(super) conntrack: Option<At<Conntrack>>,
    pub(super) activate_conntrack: Option<At<bool>>,
    pub(super) retention: Option<At<Retention>>,
    pub(super) no_set_sysctls: Option<At<bool>>,
    pub(super) listen: Option<At<Listen>>,
    pub(super) insecure_listen: Option<At<bool>>,
    pub(super) allow_host: Option<At<Vec<String>>>,
    pub(super) plain: Option<At<bool>>,
}

impl ConfigFile {
    /// Reads a file: its settings, and what is wrong with the others, each with its place.
    pub(super) fn read(path: &Path) -> anyhow::Result<(Self, Vec<String>)> {
        let (text, name) = read(path)?;
        Self::parse(&text, &name)
    }

    /// As [`Self::read`], from text; `name` stands before every problem.
    pub(super) fn parse(text: &str, name: &str) -> anyhow::Result<(Self, Vec<String>)> {
        let settings: Settings =
            serde_saphyr::from_str(text).map_err(|error| wrong(name, &error))?;
        let mut file = Self::default();
        let mut problems = Vec::new();
        for (key, node) in &settings.0 {
            let (at, result) = match file.set(key, node) {
                Ok(true) => continue,
                Ok(false) => (key.referenced, unknown(&key.value, KEYS.into_iter())),
                Err(error) => (node.referenced, format!("{}: {error:#}", key.value)),
            };
            let place = format!("{name}:{}:{}", at.line(), at.column());
            problems.push(format!("{place}: {}", Shown(&result)));
        }
        Ok((file, problems))
    }

    /// Takes one setting; false where there is none with this name.
    fn set(&mut self, key: &Spanned<String>, node: &Spanned<Node>) -> anyhow::Result<bool> {
        let Self {
            data_dir,
            interval,
            cpu_budget,
            conntrack,
            activate_conntrack,
            retention,
            no_set_sysctls,
            listen,
            insecure_listen,
            allow_host,
            plain,
        } = self;
        let line = key.referenced.line();
        let written = &node.value;
        match key.value.as_str() {
            "data_dir" => put(data_dir, line, absolute(PathBuf::from(written.text()?))?),
            "interval" => put(interval, line, value::interval(written.text()?)?),
            "cpu_budget" => put(cpu_budget, line, value::percent(written.text()?)?),
            "conntrack" => put(conntrack, line, door(written.text()?)?),
            "activate_conntrack" => put(activate_conntrack, line, value::switch(written.text()?)?),
            "retention" => put(retention, line, value::retention(&written.pairs()?)?),
            "no_set_sysctls" => put(no_set_sysctls, line, value::switch(written.text()?)?),
            "listen" => put(listen, line, value::listen(written.text()?)?),
            "insecure_listen" => put(insecure_listen, line, value::switch(written.text()?)?),
            "allow_host" => {
                let hosts = written.list()?.into_iter().map(value::host);
                put(allow_host, line, hosts.collect::<Result<_, _>>()?);
            }
            "plain" => put(plain, line, value::switch(written.text()?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn put<T>(place: &mut Option<At<T>>, line: u64, value: T) {
    *place = Some(At { value, line });
}

/// Where weir is started from should not decide what a file means.
fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    ensure!(path.is_absolute(), "a path in a file begins with /");
    Ok(path)
}

fn door(text: &str) -> anyhow::Result<Conntrack> {
    Ok(match value::conntrack(text)? {
        Conntrack::File(path) => Conntrack::File(absolute(path)?),
        other => other,
    })
}

/// What to say of a setting that there is not.
pub(crate) fn unknown(key: &str, keys: impl Iterator<Item = &'static str> + Clone) -> String {
    if let Some(nearest) = nearest(key, keys.clone()) {
        return format!("there is no setting `{key}`; did you mean `{nearest}`?");
    }
    let keys: Vec<&str> = keys.collect();
    format!("there is no setting `{key}`; there are: {}", keys.join(", "))
}

/// A file's text, and its name as it is shown.
fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let mut text = String::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("read the configuration {}", path.display()))?;
    let name = Shown(&path.display().to_string()).to_string();
    ensure!(read as u64 <= MAX_BYTES, "{name} is too large to be a configuration");
    Ok((text, name))
}

fn wrong(name: &str, error: &serde_saphyr::Error) -> UsageError {
    let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column()));
    let (place, problem) = (place.unwrap_or_default(), problem_of(error));
    UsageError(format!("the configuration is wrong\n  {name}{place}: {problem}"))
}

/// What is wrong, in one line and without the place, which stands before it already.
fn problem_of(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or_default();
    Shown(text).to_string()
}

/// A file of settings that somebody else makes sense of.
pub(crate) struct Written {
    name: String,
    text: String,
    settings: Settings,
}

/// One of its settings.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    file: &'a str,
    key: &'a Spanned<String>,
    node: &'a Spanned<Node>,
}

impl Written {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let (text, name) = read(path)?;
        Self::parse(text, name)
    }

    /// As [`Self::read`], from text.
    pub(crate) fn parse(text: String, name: String) -> anyhow::Result<Self> {
        let settings = serde_saphyr::from_str(&text).map_err(|error| wrong(&name, &error))?;
        Ok(Self { name, text, settings })
    }

    /// Its settings, in their order.
    pub(crate) fn settings(&self) -> impl Iterator<Item = Setting<'_>> {
        self.settings.0.iter().map(|(key, node)| Setting { file: &self.name, key, node })
    }

    /// The operator's own ranges in it (`cidrs`).
    pub(crate) fn own_ranges(&self) -> anyhow::Result<Vec<(Prefix, Range)>> {
        #[derive(serde::Deserialize)]
        struct Whole {
            cidrs: Vec<OwnRange>,
        }
        let whole: Whole = serde_saphyr::from_str(&self.text)
            .map_err(|error| anyhow::anyhow!("cidrs: {}", problem_of(&error)))?;
        Ok(own_ranges(&whole.cidrs)?)
    }
}

impl Setting<'_> {
    /// Its name.
    pub(crate) fn key(&self) -> &str {
        &self.key.value
    }

    /// The line it stands in.
    pub(crate) fn line(&self) -> u64 {
        self.key.referenced.line()
    }

    /// The file and where in it.
    pub(crate) fn place(&self) -> String {
        let at = self.node.referenced;
        format!("{}:{}:{}", self.file, at.line(), at.column())
    }

    /// True where nothing is written, or a list of nothing.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.node.value {
            Node::Nothing => true,
            Node::List(items) => items.is_empty(),
            Node::Text(_) | Node::Map(_) => false,
        }
    }

    /// Its value as it is typed after a flag.
    pub(crate) fn as_typed(&self) -> anyhow::Result<String> {
        match &self.node.value {
            Node::List(_) => Ok(self.node.value.list()?.join(",")),
            Node::Map(_) => self.node.value.pairs(),
            Node::Text(_) | Node::Nothing => Ok(self.node.value.text()?.to_owned()),
        }
    }
}

/// The file's settings as written, with their places.
struct Settings(Vec<(Spanned<String>, Spanned<Node>)>);

/// A value before anybody knows what it should be.
#[derive(Debug)]
enum Node {
    Nothing,
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Node {
    fn text(&self) -> anyhow::Result<&str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Nothing => bail!("has no value"),
            Self::List(_) => bail!("is a list, and should be one value"),
            Self::Map(_) => bail!("is a map, and should be one value"),
        }
    }

    fn list(&self) -> anyhow::Result<Vec<&str>> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Nothing => Ok(Vec::new()),
            Self::Text(_) | Self::Map(_) => bail!("should be a list: [weir.example.org]"),
        }
    }

    /// `10s: 1d` and so on as it is typed after `--retention`.
    fn pairs(&self) -> anyhow::Result<String> {
        let Self::Map(pairs) = self else {
            bail!("should be a map: {{10s: 1d, 1m: 14d, 1h: 400d}}");
        };
        let pairs = pairs.iter().map(|(key, value)| Ok(format!("{key}={}", value.text()?)));
        Ok(pairs.collect::<anyhow::Result<Vec<_>>>()?.join(","))
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl<'de> Visitor<'de> for Whole {
            type Value = Settings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings, one per line: `interval: 5s`")
            }

            fn visit_unit<E>(self) -> Result<Settings, E> {
                Ok(Settings(Vec::new()))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Settings, M::Error> {
                let mut settings = Vec::new();
                while let Some(setting) = map.next_entry()? {
                    settings.push(setting);
                }
                Ok(Settings(settings))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut sequence: S) -> Result<Node, S::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Node, M::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}
