//! A configuration as YAML, as it could stand in a file.

use std::fmt::Write as _;
use std::time::Duration;

use weir_store::Retention;

use super::{Config, Resolved};
use crate::args::{Conntrack, Listen, Origin};
use crate::render;

/// A configuration with every setting at its default, explained.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// Every setting with its value, and as a comment where that came from.
pub(crate) fn print(resolved: &Resolved) -> String {
    let Config {
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
    } = &resolved.config;
    let conntrack = match conntrack {
        Conntrack::Netlink => "netlink".to_owned(),
        Conntrack::Auto => "auto".to_owned(),
        Conntrack::File(path) => scalar(&path.display().to_string()),
    };
    let listen = place(*listen);
    let hosts: Vec<String> = allow_host.iter().map(|host| scalar(host)).collect();
    let lines = [
        ("data_dir", scalar(&data_dir.display().to_string())),
        ("interval", exact(interval.as_secs())),
        ("cpu_budget", percent(*cpu_budget)),
        ("conntrack", conntrack),
        ("activate_conntrack", activate_conntrack.to_string()),
        ("retention", levels(retention)),
        ("no_set_sysctls", no_set_sysctls.to_string()),
        ("listen", listen),
        ("insecure_listen", insecure_listen.to_string()),
        ("allow_host", format!("[{}]", hosts.join(", "))),
        ("plain", plain.to_string()),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        let origin = resolved.origins.iter().find(|(name, _)| *name == key);
        let origin = origin.map_or(&Origin::Default, |(_, origin)| origin);
        let line = format!("{key}: {value}");
        writeln!(text, "{line:<48} # {origin}").expect("a string has room");
    }
    text
}

/// Where something listens.
pub(crate) fn place(listen: Listen) -> String {
    match listen {
        Listen::Off => "none".to_owned(),
        Listen::At(address) if address.is_ipv4() => address.to_string(),
        Listen::At(address) => scalar(&address.to_string()),
    }
}

pub(crate) fn levels(retention: &Retention) -> String {
    let Retention { ten_seconds, minute, hour } = *retention;
    format!("{{10s: {}, 1m: {}, 1h: {}}}", exact(ten_seconds), exact(minute), exact(hour))
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    // 0.07 * 100 is not 7.
    let rounded = (percent * 1e9).round() / 1e9;
    format!("{}%", if rounded > 0.0 { rounded } else { percent })
}

/// A length of time as it is typed, to the second.
fn exact(seconds: u64) -> String {
    let mut rest = Duration::from_secs(seconds).as_secs();
    if rest == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
        if rest >= unit {
            write!(text, "{}{name}", rest / unit).expect("a string has room");
            rest %= unit;
        }
    }
    text
}

/// Text as YAML reads it back; quoted as JSON, which is YAML too, where it is not plain.
pub(crate) fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = Vec::new();
    render::write_json(text, &mut quoted).expect("a vector has room");
    String::from_utf8_lossy(&quoted).trim_end().to_owned()
}
