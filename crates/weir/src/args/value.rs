//! Values as they are typed, on the command line and in the configuration file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use weir_flow::{EndpointField, Field, Side};
use weir_server::moment;
use weir_store::{Measure, Retention};

/// By which door the connections come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conntrack {
    /// The kernel's conntrack table over netlink.
    Netlink,
    /// Its text form, wherever it is found first.
    Auto,
    /// Its text form, in this file.
    File(PathBuf),
}

/// Where the HTTP API answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl Listen {
    /// True where only this machine can ask.
    pub(crate) fn is_private(self) -> bool {
        match self {
            Self::Off => true,
            Self::At(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

pub(crate) fn conntrack(text: &str) -> anyhow::Result<Conntrack> {
    Ok(match text {
        "" => bail!("empty; valid are netlink, auto and the path of a file"),
        "netlink" => Conntrack::Netlink,
        "auto" => Conntrack::Auto,
        path => Conntrack::File(PathBuf::from(path)),
    })
}

pub(crate) fn listen(text: &str) -> anyhow::Result<Listen> {
    if text == "none" {
        return Ok(Listen::Off);
    }
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(Listen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    let address = text.parse().ok();
    address.map(Listen::At).with_context(
        || "needs an address and a port, 127.0.0.1:8885 or [::1]:8885, or none for no API",
    )
}

/// A host name or address, as browsers write it into `Host`, without the port.
pub(crate) fn host(text: &str) -> anyhow::Result<String> {
    let hint = "a host name or an address, without scheme and port: weir.example.org";
    ensure!(!text.is_empty() && text.len() <= 253, "{hint}");
    let address = text.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<IpAddr>().is_ok() {
        return Ok(address.to_owned());
    }
    let is_name = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    ensure!(is_name, "{hint}");
    Ok(text.to_ascii_lowercase())
}

/// A setting that is on or off.
pub(crate) fn switch(text: &str) -> anyhow::Result<bool> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => bail!("neither true nor false"),
    }
}

pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    Ok(moment::duration(text)?)
}

pub(crate) fn interval(text: &str) -> anyhow::Result<Duration> {
    let interval = moment::duration(text)?;
    // Every interval is a batch and every batch ends within its hour.
    ensure!(interval <= Duration::from_hours(1), "at most 1h");
    Ok(interval)
}

pub(crate) fn step(text: &str) -> anyhow::Result<u64> {
    let seconds = moment::duration(text)?.as_secs();
    ensure!(seconds % 10 == 0, "steps are multiples of 10s, the shortest window that is kept");
    Ok(seconds)
}

/// `10s=1d,1m=14d,1h=400d`: window lengths and how long their flows are kept; 0 keeps none.
pub(crate) fn retention(text: &str) -> anyhow::Result<Retention> {
    let mut retention = Retention::default();
    for part in text.split(',') {
        let (window, kept) = part
            .split_once('=')
            .with_context(|| format!("{part:?} has no `=`; write it as 10s=1d,1m=14d,1h=400d"))?;
        let level = match window {
            "10s" => &mut retention.ten_seconds,
            "1m" => &mut retention.minute,
            "1h" => &mut retention.hour,
            other => bail!("no windows of {other:?} are kept; there are 10s, 1m and 1h"),
        };
        *level = if kept == "0" { 0 } else { moment::duration(kept)?.as_secs() };
    }
    ensure!(retention.hour > 0, "windows of 1h must be kept for some time");
    ensure!(
        retention.hour >= retention.minute && retention.hour >= retention.ten_seconds,
        "windows of 1h must be kept at least as long as shorter ones"
    );
    Ok(retention)
}

pub(crate) fn percent(text: &str) -> anyhow::Result<f64> {
    let hint = "a percentage of one core, more than 0% and at most 100%: 1%, 0.5%";
    let number = text.strip_suffix('%').with_context(|| format!("needs a % sign; {hint}"))?;
    let percent: f64 = number.parse().with_context(|| hint)?;
    ensure!(percent > 0.0 && percent <= 100.0, "{hint}");
    Ok(percent / 100.0)
}

pub(crate) fn measure(text: &str) -> anyhow::Result<Measure> {
    Measure::parse(text).with_context(|| {
        format!("not a measure; there are: {}", Measure::ALL.map(Measure::name).join(", "))
    })
}

pub(crate) fn field(text: &str) -> anyhow::Result<Field> {
    if text == "port" {
        return Ok(Field::DestinationPort);
    }
    if let Some(field) = Field::parse(text) {
        return Ok(field);
    }
    let sides = EndpointField::ALL.into_iter().find(|field| field.name() == text).map(|field| {
        let side = |side| Field::Endpoint(side, field);
        format!("say which side: {} or {}", side(Side::Source), side(Side::Destination))
    });
    let known = || {
        let names: Vec<String> = Field::all().map(|field| field.to_string()).collect();
        format!("not a field; there are: {}", names.join(", "))
    };
    bail!("{}", sides.unwrap_or_else(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, expected, is_private) in [
            ("none", "Off", true),
            ("127.0.0.1:8885", "At(127.0.0.1:8885)", true),
            ("localhost:80", "At(127.0.0.1:80)", true),
            ("[::1]:8885", "At([::1]:8885)", true),
            ("[::ffff:127.0.0.1]:1", "At([::ffff:127.0.0.1]:1)", true),
            ("0.0.0.0:8885", "At(0.0.0.0:8885)", false),
            ("[::]:8885", "At([::]:8885)", false),
        ] {
            let listen = listen(text).unwrap();
            assert_eq!(
                (format!("{listen:?}").as_str(), listen.is_private()),
                (expected, is_private)
            );
        }
        for text in ["", "8885", ":8885", "127.0.0.1", "example.org:80", "127.0.0.1:66000"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        for (text, expected) in
            [("Weir.Example.org", "weir.example.org"), ("[::1]", "::1"), ("10.0.0.5", "10.0.0.5")]
        {
            assert_eq!(host(text).unwrap(), expected);
        }
        for text in ["", "http://weir", "weir:80", "a b", "*"] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
