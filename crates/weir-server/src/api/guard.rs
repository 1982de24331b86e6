//! What every request and every answer must bear.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::problem::{Kind, Problem, shortened};

/// The address at which a connection reached weir.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalAddress(pub(super) SocketAddr);

/// Who may ask, and for how long.
#[derive(Debug)]
pub(super) struct Guard {
    allowed_hosts: Vec<String>,
    answer_time: Duration,
}

impl Guard {
    pub(super) fn new(allowed_hosts: &[String], answer_time: Duration) -> Self {
        let allowed_hosts = allowed_hosts.iter().map(|host| normal(host)).collect();
        Self { allowed_hosts, answer_time }
    }

    /// A page from elsewhere can make a browser ask any address, but only under the name that the
    /// page itself has. So whoever asks under another name than weir's is no friend.
    fn check_host(&self, request: &Request) -> Result<(), Problem> {
        let host = host(request).ok_or_else(|| {
            Problem::new(Kind::Host, "the request names no host, or more than one: send one Host")
        })?;
        let local = request.extensions().get::<LocalAddress>().map(|address| address.0.ip());
        let is_own = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || local == Some(address.to_canonical()),
            Err(_) => host == "localhost",
        };
        if is_own || self.allowed_hosts.contains(&host) {
            return Ok(());
        }
        let host = shortened(&host);
        Err(Problem::new(
            Kind::Host,
            format!("weir does not answer for {host:?}: start it with `--allow-host {host}`"),
        ))
    }
}

/// Turns strangers away, ends what takes too long, and tells browsers to be careful.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.check_host(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => timeout(guard.answer_time, next.run(request)).await.unwrap_or_else(|_late| {
            let seconds = guard.answer_time.as_secs();
            let detail = format!("no answer within {seconds} s: ask again, or for less");
            Problem::new(Kind::TooSlow, detail).into_response()
        }),
    };
    careful(response.headers_mut());
    response
}

fn careful(headers: &mut HeaderMap) {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
        ),
    ];
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The host that is asked, without its port. The request line comes before the header.
fn host(request: &Request) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return None,
        (Some(host), None) => Some(host.to_str().ok()?.parse::<Authority>().ok()?),
        (None, None) => None,
    };
    let authority = request.uri().authority().cloned().or(named)?;
    Some(normal(authority.host()))
}

fn normal(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(host: &[&str], uri: &str, local: Option<&str>) -> Result<(), Problem> {
        let guard = Guard::new(&["Weir.Example.org".to_owned()], Duration::from_secs(1));
        let mut request = Request::builder().uri(uri);
        for host in host {
            request = request.header(header::HOST, *host);
        }
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(local) = local {
            request.extensions_mut().insert(LocalAddress(local.parse().unwrap()));
        }
        guard.check_host(&request)
    }

    #[test]
    fn weir_answers_under_its_own_names_only() {
        let local = Some("192.0.2.7:8885");
        for host in [
            "localhost",
            "LOCALHOST:8885",
            "127.0.0.1:8885",
            "127.0.0.1",
            "[::1]:8885",
            "192.0.2.7:8885",
            "weir.example.org.",
            "weir.example.org:443",
        ] {
            assert_eq!(status(&[host], "/", local), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "192.0.2.8", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            let problem = status(&[host], "/", local).unwrap_err();
            assert_eq!(problem.status, 421, "{host}");
            assert!(problem.detail.contains(&format!("--allow-host {host}")), "{}", problem.detail);
        }
        assert!(status(&[], "/", local).is_err());
        assert!(status(&[""], "/", local).is_err());
        assert!(status(&["localhost", "localhost"], "/", local).is_err());
        assert!(status(&["localhost"], "http://evil.example/", local).is_err());
        assert!(status(&["192.0.2.7"], "/", None).is_err());
    }
}
