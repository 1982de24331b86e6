//! Whom to ask: a weir on the network, or a data directory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ureq::http::Uri;
use weir_flow::filter::nearest;

use crate::args::UsageError;
use crate::render::Shown;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A weir that answers there.
    Url(BaseUrl),
    /// A data directory on this machine.
    Directory(PathBuf),
}

/// `http://HOST:PORT`, perhaps with a path, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    text: String,
    is_loopback: bool,
}

impl Location {
    /// Reads what was typed. `questions` are the words that may have been meant instead.
    pub(crate) fn parse(text: &str, questions: &[&str]) -> Result<Self, UsageError> {
        let wrong = |problem: String| {
            let text = Shown(text).to_string();
            Err(UsageError(format!("invalid value '{text}' for '[URL|DIR]': {problem}")))
        };
        if text.contains("://") {
            return BaseUrl::parse(text).map(Self::Url).or_else(wrong);
        }
        if text.contains('/') || Path::new(text).is_dir() {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_some() {
            return wrong(format!("an address of weir begins with http://: http://{text}"));
        }
        match nearest(text, questions.iter().copied()) {
            Some(question) => wrong(format!("did you mean `{question}`?")),
            None => wrong("there is no such directory here, and it is not a URL".to_owned()),
        }
    }
}

impl BaseUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}; write http://HOST:PORT"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https is not spoken yet; go through an SSH tunnel, or a proxy of \
                            your own on this machine"
                    .to_owned());
            }
            _ => return Err("only http:// is spoken".to_owned()),
        }
        let authority = uri.authority().ok_or("a host is missing; write http://HOST:PORT")?;
        if authority.as_str().contains('@') {
            return Err("leave the user's name away: weir asks for none".to_owned());
        }
        if uri.query().is_some() {
            return Err("leave everything from `?` on away".to_owned());
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/api/v1").unwrap_or(path);
        Ok(Self { text: format!("http://{authority}{path}"), is_loopback: is_loopback(&uri) })
    }

    /// The address as it is asked.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// True where it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match Location::parse(text, &["top", "flows"]) {
            Ok(Location::Url(url)) => format!("url {} {}", url.as_str(), url.is_loopback()),
            Ok(Location::Directory(path)) => format!("directory {}", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn places() {
        for (text, expected) in [
            ("http://127.0.0.1:8885", "url http://127.0.0.1:8885 true"),
            ("http://[::1]:8885/", "url http://[::1]:8885 true"),
            ("http://localhost:8885/api/v1/", "url http://localhost:8885 true"),
            ("http://gauge/weir/", "url http://gauge/weir false"),
            ("/srv/weir", "directory /srv/weir"),
            ("./none", "directory ./none"),
            (".", "directory ."),
        ] {
            assert_eq!(parsed(text), expected);
        }
    }

    #[test]
    fn what_is_neither_is_explained() {
        for (text, says) in [
            ("https://gauge", "https is not spoken yet"),
            ("ftp://gauge", "only http:// is spoken"),
            ("http://", "write http://HOST:PORT"),
            ("http://me:secret@gauge", "leave the user's name away"),
            ("http://gauge/?x=1", "from `?` on"),
            ("localhost:8885", "begins with http://: http://localhost:8885"),
            ("tpo", "did you mean `top`?"),
            ("elsewhere", "there is no such directory here"),
            ("\u{1b}[2J", "'\\u{1b}[2J'"),
        ] {
            let said = parsed(text);
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
