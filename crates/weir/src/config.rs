//! What `weir up` runs with: flags over environment over file over defaults.
//!
//! Three types, three jobs: [`UpArgs`] is what was typed, [`ConfigFile`] what was written, and
//! [`Config`] what is meant: validated, and complete.

mod file;
mod print;

use std::path::PathBuf;
use std::time::Duration;

use weir_store::Retention;

use self::file::{At, ConfigFile};
use crate::args::{Conntrack, Layered, Listen, Origin, UpArgs, UsageError};
use crate::data_dir;

pub(crate) use file::{Setting, Written, unknown};
pub(crate) use print::{EXAMPLE, levels, place, print, scalar};

/// What `weir up` runs with.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Time between two readings.
    pub(crate) interval: Duration,
    /// CPU time for reading, as a share of one core.
    pub(crate) cpu_budget: f64,
    /// By which door connections come.
    pub(crate) conntrack: Conntrack,
    /// Make the kernel track.
    pub(crate) activate_conntrack: bool,
    /// How long flows are kept.
    pub(crate) retention: Retention,
    /// Leave the kernel's settings alone.
    pub(crate) no_set_sysctls: bool,
    /// Where the API answers.
    pub(crate) listen: Listen,
    /// It may answer others than this machine.
    pub(crate) insecure_listen: bool,
    /// Further names by which it may be asked.
    pub(crate) allow_host: Vec<String>,
    /// Print a table after each reading instead of drawing the screen.
    pub(crate) plain: bool,
}

/// A configuration, and of each setting where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) config: Config,
    origins: Vec<(&'static str, Origin)>,
}

impl Config {
    /// What somebody should know before it runs.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Listen::At(address) = self.listen else {
            return Vec::new();
        };
        if self.listen.is_private() {
            return Vec::new();
        }
        vec![format!(
            "WARNING: the API on {address} answers everybody who can reach it, without asking who \
             they are: what this machine talks to, and when. Listen on 127.0.0.1:{} unless a \
             firewall or a proxy stands in front",
            address.port()
        )]
    }
}

/// Puts the layers together; says everything that is wrong at once.
pub(crate) fn resolve(typed: Layered<UpArgs>) -> anyhow::Result<Resolved> {
    let (file, mut problems) = match &typed.args.config {
        Some(path) => ConfigFile::read(path)?,
        None => Default::default(),
    };
    let layers = Layers::new(&typed);
    let Resolved { config, origins } = layers.merge(typed.args, file)?;
    if !config.listen.is_private() && !config.insecure_listen {
        problems.push(
            "listen: others than this machine could reach the API, which asks nobody who they \
             are; if that is meant, say so with --insecure-listen (insecure_listen: true)"
                .to_owned(),
        );
    }
    if !problems.is_empty() {
        let problems = problems.join("\n  ");
        return Err(UsageError(format!("the configuration is wrong\n  {problems}")).into());
    }
    Ok(Resolved { config, origins })
}

/// Chooses a layer for each setting.
struct Layers {
    typed: Vec<(&'static str, Origin)>,
    origins: Vec<(&'static str, Origin)>,
}

impl Layers {
    fn new(typed: &Layered<UpArgs>) -> Self {
        let typed = file::KEYS.into_iter().map(|key| (key, typed.origin(key))).collect();
        Self { typed, origins: Vec::new() }
    }

    fn merge(mut self, typed: UpArgs, file: ConfigFile) -> anyhow::Result<Resolved> {
        // Every setting is named here, on all three sides, so that none is forgotten.
        let UpArgs {
            config: _,
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
        } = typed;
        let file_dir = file.data_dir.map(|At { value, line }| At { value: Some(value), line });
        let data_dir = self.pick("data_dir", data_dir.data_dir, file_dir);
        let config = Config {
            data_dir: data_dir::choose(data_dir)?,
            interval: self.pick("interval", interval, file.interval),
            cpu_budget: self.pick("cpu_budget", cpu_budget, file.cpu_budget),
            conntrack: self.pick("conntrack", conntrack, file.conntrack),
            activate_conntrack: self.pick(
                "activate_conntrack",
                activate_conntrack,
                file.activate_conntrack,
            ),
            retention: self.pick("retention", retention, file.retention),
            no_set_sysctls: self.pick("no_set_sysctls", no_set_sysctls, file.no_set_sysctls),
            listen: self.pick("listen", listen, file.listen),
            insecure_listen: self.pick("insecure_listen", insecure_listen, file.insecure_listen),
            allow_host: self.pick("allow_host", allow_host, file.allow_host),
            plain: self.pick("plain", plain, file.plain),
        };
        Ok(Resolved { config, origins: self.origins })
    }

    fn pick<T>(&mut self, key: &'static str, typed: T, file: Option<At<T>>) -> T {
        let known = self.typed.iter().find(|(name, _)| *name == key);
        let typed_origin = known.map_or(Origin::Default, |(_, origin)| origin.clone());
        let (value, origin) = match (typed_origin, file) {
            (Origin::Default, Some(At { value, line })) => (value, Origin::File(line)),
            (origin, _) => (typed, origin),
        };
        self.origins.push((key, origin));
        value
    }
}

#[cfg(test)]
mod tests;
