//! What the agent runs with: validated, and complete.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_agent::SpoolLimits;
use weir_agent::wire::{Server, TlsFiles};

use crate::file::wrong;
use crate::kubenetmon;
use crate::settings::{Origin, Settings};
use crate::units::{bytes, duration, percent};

/// The least a spool can do its work with.
const SPOOL_BYTES_MIN: u64 = 16 << 20;

/// What the agent runs with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) node: String,
    pub(crate) server: Server,
    pub(crate) spool: PathBuf,
    pub(crate) limits: SpoolLimits,
    pub(crate) token: Option<PathBuf>,
    /// `None`: plaintext.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) interval: Duration,
    /// A share of one core.
    pub(crate) cpu_budget: f64,
    pub(crate) metrics: Option<SocketAddr>,
    /// `None`: nobody looks whether the kernel counts.
    pub(crate) accounting_wait: Option<Duration>,
    pub(crate) set_sysctls: bool,
    pub(crate) activate_conntrack: bool,
    pub(crate) drain: Duration,
}

impl Config {
    /// Makes sense of the settings; says everything that is wrong at once.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let mut read = Reader { settings, problems: Vec::new() };
        let node = read.needed("node", name, "NAME");
        let server = read.needed("server", server, "HOST:PORT");
        let spool = read.needed("spool", path, "DIR");
        let spool_bytes = read.known("spool_bytes", spool_bytes);
        let free = read.known("spool_free", free_percent);
        let token = read.optional("token_file", path);
        let authorities = read.optional("ca_file", path);
        let certificate = read.optional("cert_file", path);
        let key = read.optional("key_file", path);
        let server_name = read.optional("server_name", name);
        let interval = read.known("interval", interval);
        let cpu_budget = read.known("cpu_budget", budget);
        let metrics = read.known("metrics", metrics).flatten();
        let wait = read.known("accounting_wait", duration);
        let skip = read.switch("skip_accounting_check");
        let set_sysctls = read.switch("set_sysctls");
        let activate_conntrack = read.switch("activate_conntrack");
        let drain = read.known("drain", drain);
        let plaintext = read.switch("insecure_plaintext");

        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                read.problem("cert_file and key_file: one is of no use without the other");
                None
            }
        };
        if plaintext && (token.is_some() || identity.is_some()) {
            read.problem(
                "insecure_plaintext: a token or a certificate would be given away on the way; \
                 leave them out, or insecure_plaintext",
            );
        }
        if !plaintext && token.is_none() && identity.is_none() {
            read.problem(
                "nothing says who speaks: name --token-file, or --cert-file and --key-file",
            );
            if let Some(help) = kubenetmon::about_credentials(settings) {
                read.problem(help);
            }
        }
        let tls = (!plaintext).then_some(TlsFiles { authorities, identity, server_name });
        let defaults = SpoolLimits::default();
        let config = || {
            Some(Self {
                node: node?,
                server: server?,
                spool: spool?,
                limits: SpoolLimits { bytes: spool_bytes?, free_percent: free?, ..defaults },
                token,
                tls,
                interval: interval?,
                cpu_budget: cpu_budget?,
                metrics,
                accounting_wait: wait.filter(|_| !skip),
                set_sysctls,
                activate_conntrack,
                drain: drain?,
            })
        };
        let config = config();
        let Reader { problems, .. } = read;
        config.filter(|_| problems.is_empty()).ok_or_else(|| wrong(&problems))
    }
}

/// Reads settings and gathers what is wrong with them.
struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, text: &str) {
        self.problems.push(text.to_owned());
    }

    fn optional<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let said = self.settings.get(key)?;
        match parse(&said.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let from = match &said.origin {
                    Origin::Default => String::new(),
                    origin => format!(" ({origin})"),
                };
                self.problems.push(format!("{key}{from}: {:?} is not {problem}", said.text));
                None
            }
        }
    }

    /// A setting that has a default.
    fn known<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.optional(key, parse)
    }

    fn needed<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        value: &str,
    ) -> Option<T> {
        if self.settings.get(key).is_none() {
            self.problems.push(format!(
                "{key}: is needed; give it as --{} {value}, as WEIR_{}, or in the file",
                key.replace('_', "-"),
                key.to_uppercase()
            ));
        }
        self.optional(key, parse)
    }

    fn switch(&mut self, key: &str) -> bool {
        let parse = |text: &str| match text {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("true or false".to_owned()),
        };
        self.known(key, parse).unwrap_or(false)
    }
}

/// A DNS name or an address.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if !text.is_empty() && text.len() <= 253 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("a name: letters, digits, - and ., at most 253".to_owned())
}

fn server(text: &str) -> Result<Server, String> {
    const HINT: &str = "a host and a port: weir-server.weir:8884, 10.0.0.5:8884 or [fd00::5]:8884";
    let (host, port) = text.rsplit_once(':').ok_or(HINT)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or(HINT)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
        None if !host.contains(':') => host,
        _ => return Err(HINT.to_owned()),
    };
    Ok(Server { host: name(host).map_err(|_not_a_name| HINT)?, port })
}

fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    // Where the agent is started from should not decide what a setting means.
    if path.is_absolute() { Ok(path) } else { Err("a path that begins with /".to_owned()) }
}

fn spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes >= SPOOL_BYTES_MIN { Ok(bytes) } else { Err("at least 16MiB".to_owned()) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100, rounded")]
fn free_percent(text: &str) -> Result<u8, String> {
    Ok(percent(text)?.round() as u8)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    // Every interval is a batch, and every batch ends within its hour.
    let fits = interval >= Duration::from_millis(100) && interval <= Duration::from_hours(1);
    if fits { Ok(interval) } else { Err("from 100ms to 1h".to_owned()) }
}

fn budget(text: &str) -> Result<f64, String> {
    let share = percent(text)?;
    if share > 0.0 { Ok(share / 100.0) } else { Err("more than 0%".to_owned()) }
}

fn drain(text: &str) -> Result<Duration, String> {
    let drain = duration(text)?;
    if drain <= Duration::from_mins(10) { Ok(drain) } else { Err("at most 10m".to_owned()) }
}

fn metrics(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let hint = "an address and a port, 127.0.0.1:8883 or [::1]:8883, or none";
    text.parse().map(Some).map_err(|_not_one| hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SETTINGS, Said};

    fn settings(given: &[(&str, &str)]) -> Settings {
        let said = |(key, text): &(&str, &str)| {
            let key = SETTINGS.iter().find(|setting| setting.key == *key).unwrap().key;
            Said { key, text: (*text).to_owned(), origin: Origin::Flag }
        };
        let mut all: Vec<Said> = given.iter().map(said).collect();
        let defaults = [
            ("spool", "/var/lib/weir-agent"),
            ("spool_bytes", "1GiB"),
            ("spool_free", "15%"),
            ("interval", "5s"),
            ("cpu_budget", "5%"),
            ("metrics", "127.0.0.1:8883"),
            ("accounting_wait", "5m"),
            ("drain", "10s"),
        ];
        for default in defaults {
            if !given.iter().any(|(key, _)| *key == default.0) {
                all.push(said(&default));
            }
        }
        Settings(all)
    }

    const GOOD: [(&str, &str); 4] =
        [("node", "n1"), ("server", "weir:8884"), ("token_file", "/t"), ("ca_file", "/ca")];

    fn with(more: &[(&'static str, &'static str)]) -> Result<Config, String> {
        Config::new(&settings(&[&GOOD[..], more].concat()))
    }

    #[test]
    fn a_usual_configuration() {
        let config = with(&[]).unwrap();
        assert_eq!(config.server, Server { host: "weir".into(), port: 8884 });
        assert_eq!((config.limits.bytes, config.limits.free_percent), (1 << 30, 15));
        assert_eq!(config.accounting_wait, Some(Duration::from_mins(5)));
        assert_eq!(config.tls.unwrap().authorities, Some("/ca".into()));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let problems = Config::new(&settings(&[
            ("server", "weir"),
            ("interval", "5"),
            ("spool_bytes", "1kB"),
            ("cert_file", "/c"),
            ("metrics", "8883"),
            ("token_file", "token"),
            ("set_sysctls", "maybe"),
        ]))
        .unwrap_err();
        for expected in [
            "node: is needed; give it as --node NAME, as WEIR_NODE, or in the file",
            "server (flag): \"weir\" is not a host and a port",
            "interval (flag): \"5\" is not a number with a unit",
            "spool_bytes (flag): \"1kB\" is not at least 16MiB",
            "cert_file and key_file",
            "metrics (flag): \"8883\" is not an address and a port",
            "token_file (flag): \"token\" is not a path that begins with /",
            "set_sysctls (flag): \"maybe\" is not true or false",
            "nothing says who speaks",
        ] {
            assert!(problems.contains(expected), "{expected:?} in {problems}");
        }
    }

    #[test]
    fn plaintext_and_secrets_exclude_each_other() {
        let problem = with(&[("insecure_plaintext", "true")]).unwrap_err();
        assert!(problem.contains("given away"), "{problem}");
        let plain = [("node", "n1"), ("server", "[::1]:8884"), ("insecure_plaintext", "true")];
        let config = Config::new(&settings(&plain)).unwrap();
        assert_eq!((config.tls, config.server.host.as_str()), (None, "::1"));
    }

    #[test]
    fn servers() {
        for text in
            ["weir", ":1", "weir:0", "weir:70000", "::1:80", "[x]:80", "a b:1", "http://a:1"]
        {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
