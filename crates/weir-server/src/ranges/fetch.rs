//! Downloading the published files.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::ToSpan as _;
use jiff::civil::Date;
use rustls::ClientConfig;
use rustls::crypto::ring;
use thiserror::Error;
use tokio::time::timeout;
use weir_flow::ranges::Provider;

use super::compact::Edition;
use super::published::{MAX_FILE_BYTES, parse};

/// To connect and receive the beginning of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// To receive the rest of it.
const BODY_TIME: Duration = Duration::from_mins(1);
/// Azure publishes about weekly under a name with the day; so far back it is looked for.
const AZURE_DAYS: i64 = 90;

/// Where the files are published, or where a mirror has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// `ip-ranges.json`.
    pub aws: String,
    /// `cloud.json`.
    pub gcp: String,
    /// `goog.json`.
    pub google: String,
    /// `ServiceTags_Public_DATE.json`, with `{date}` where the day stands as in `20260131`.
    pub azure: String,
}

impl Default for Urls {
    fn default() -> Self {
        Self {
            aws: "https://ip-ranges.amazonaws.com/ip-ranges.json".to_owned(),
            gcp: "https://www.gstatic.com/ipranges/cloud.json".to_owned(),
            google: "https://www.gstatic.com/ipranges/goog.json".to_owned(),
            azure: "https://download.microsoft.com/download/7/1/D/\
                    71D86715-5596-4529-9B13-DA13A5DE5B63/ServiceTags_Public_{date}.json"
                .to_owned(),
        }
    }
}

/// Why a file could not be had.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("no certificates to check the provider's by: {0}; install ca-certificates")]
    Certificates(#[source] io::Error),
    #[error("{url}: not a URL: {why}")]
    Url { url: String, why: String },
    #[error("{url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url}: no answer within {} s", ANSWER_TIME.as_secs())]
    Slow { url: String },
    #[error("{url}: answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url}: the file cannot be used: {why}")]
    Unusable { url: String, why: String },
    #[error("{url}: nothing published under the days of the last {AZURE_DAYS} days")]
    NothingPublished { url: String },
}

/// Asks for files over HTTPS.
#[derive(Debug)]
pub(super) struct Fetcher {
    urls: Urls,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Fetcher {
    /// Trusts what this machine trusts.
    pub(super) fn new(urls: Urls) -> Result<Self, FetchError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Certificates(io::Error::other(error)))?
            .with_native_roots()
            .map_err(FetchError::Certificates)?
            .with_no_client_auth();
        Ok(Self::with_config(urls, config))
    }

    fn with_config(urls: Urls, config: ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Self { urls, client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// The provider's list as it is published now. `None` where nothing newer than `have` is.
    pub(super) async fn fetch(
        &self,
        provider: Provider,
        have: Option<Date>,
        today: Date,
    ) -> Result<Option<Edition>, FetchError> {
        let url = match provider {
            Provider::Aws => &self.urls.aws,
            Provider::Gcp => &self.urls.gcp,
            Provider::Google => &self.urls.google,
            Provider::Azure => return self.fetch_azure(have, today).await,
        };
        let file = self.get(url).await?;
        let missing = || FetchError::Status { url: url.clone(), status: StatusCode::NOT_FOUND };
        read(provider, url, file.ok_or_else(missing)?, None).await.map(Some)
    }

    /// Goes back day by day to the last that has a file.
    async fn fetch_azure(
        &self,
        have: Option<Date>,
        today: Date,
    ) -> Result<Option<Edition>, FetchError> {
        for back in 0..=AZURE_DAYS {
            let Ok(day) = today.checked_sub(back.days()) else { break };
            if have.is_some_and(|have| day <= have) {
                return Ok(None);
            }
            let url = self.urls.azure.replace("{date}", &day.strftime("%Y%m%d").to_string());
            if let Some(file) = self.get(&url).await? {
                return read(Provider::Azure, &url, file, Some(day)).await.map(Some);
            }
            if url == self.urls.azure {
                break;
            }
        }
        Err(FetchError::NothingPublished { url: self.urls.azure.clone() })
    }

    /// The file at this address; `None` where there is none.
    async fn get(&self, url: &str) -> Result<Option<Bytes>, FetchError> {
        let own = || url.to_owned();
        let request = Request::get(url)
            .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| FetchError::Url { url: own(), why: error.to_string() })?;
        let answer = timeout(ANSWER_TIME, self.client.request(request)).await;
        let answer = answer
            .or(Err(FetchError::Slow { url: own() }))?
            .map_err(|error| FetchError::Unreachable { url: own(), why: whole(&error) })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(FetchError::Status { url: own(), status }),
        }
        let body = timeout(BODY_TIME, to_bytes(Body::new(answer.into_body()), MAX_FILE_BYTES));
        let body = body.await.or(Err(FetchError::Slow { url: own() }))?;
        body.map(Some).map_err(|error| FetchError::Unreachable { url: own(), why: whole(&error) })
    }
}

/// A file that is damaged is not used: the list at hand is better than part of a newer one.
async fn read(
    provider: Provider,
    url: &str,
    file: Bytes,
    day: Option<Date>,
) -> Result<Edition, FetchError> {
    let unusable = |why| FetchError::Unusable { url: url.to_owned(), why };
    let published = tokio::task::spawn_blocking(move || parse(provider, &file))
        .await
        .map_err(|error| unusable(error.to_string()))?;
    if let Some(why) = published.damage {
        return Err(unusable(why));
    }
    if published.list.entries().is_empty() {
        return Err(unusable("it has no prefix that can be read".to_owned()));
    }
    if published.invalid + published.surplus > 0 {
        let left_out = published.invalid + published.surplus;
        tracing::warn!(url, left_out, "some published ranges cannot be read");
    }
    let as_of = published.as_of.or(day);
    Ok(Edition { list: published.list, as_of, note: String::new() })
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
