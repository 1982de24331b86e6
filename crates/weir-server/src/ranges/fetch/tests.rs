use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::civil::date;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const AWS: &str = r#"{"createDate": "2026-01-31-0", "prefixes": [
    {"ip_prefix": "203.0.113.0/24", "region": "x", "service": "EC2"}, {"ip_prefix": "?"}]}"#;
const AZURE: &str = r#"{"values": [{"name": "AzureCloud", "properties":
    {"region": "x", "addressPrefixes": ["203.0.113.0/24"]}}]}"#;

/// Answers as its paths say.
async fn mirror() -> SocketAddr {
    let router = Router::new()
        .route("/good", get(AWS))
        .route("/torn", get(&AWS[..100]))
        .route("/empty", get("{}"))
        .route("/html", get("<html>please log in</html>"))
        .route("/error", get(StatusCode::SERVICE_UNAVAILABLE))
        .route("/moved", get((StatusCode::FOUND, [("location", "/good")], "")))
        .route("/large", get(vec![b' '; MAX_FILE_BYTES + 1]))
        .route(
            "/azure/{day}",
            get(|Path(day): Path<String>| async move {
                if day == "20260126" {
                    (StatusCode::OK, AZURE)
                } else {
                    (StatusCode::NOT_FOUND, "")
                }
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    address
}

async fn fetch(url: String) -> Result<Option<Edition>, String> {
    let fetcher = Fetcher::new(Urls { aws: url, ..Urls::default() }).unwrap();
    let fetched = fetcher.fetch(Provider::Aws, None, date(2026, 2, 1)).await;
    fetched.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_sound_file_is_taken_and_nothing_else() {
    let mirror = mirror().await;
    let edition = fetch(format!("http://{mirror}/good")).await.unwrap().unwrap();
    assert_eq!(edition.as_of, Some(date(2026, 1, 31)));
    assert_eq!(edition.list.entries().len(), 1);

    for (path, expected) in [
        ("torn", "cannot be used: EOF"),
        ("empty", "no prefix that can be read"),
        ("html", "cannot be used: expected value"),
        ("error", "answered 503"),
        ("moved", "answered 302"),
        ("nothing", "answered 404"),
        ("large", "limit"),
    ] {
        let why = fetch(format!("http://{mirror}/{path}")).await.unwrap_err();
        assert!(why.contains(expected), "{path}: {why}");
    }
    let why = fetch("not a url".to_owned()).await.unwrap_err();
    assert!(why.contains("not a URL"), "{why}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let why = fetch(format!("http://{gone}/")).await.unwrap_err();
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn azure_s_file_is_found_under_the_last_day_that_has_one() {
    let azure = format!("http://{}/azure/{{date}}", mirror().await);
    let fetcher = Fetcher::new(Urls { azure, ..Urls::default() }).unwrap();
    let fetch = |have, today| fetcher.fetch(Provider::Azure, have, today);
    let edition = fetch(None, date(2026, 2, 1)).await.unwrap().unwrap();
    assert_eq!(edition.as_of, Some(date(2026, 1, 26)));
    // What is at hand is as new: nothing older is asked for.
    assert_eq!(fetch(Some(date(2026, 1, 26)), date(2026, 2, 1)).await.unwrap(), None);
    let why = fetch(None, date(2027, 2, 1)).await.unwrap_err().to_string();
    assert!(why.contains("last 90 days"), "{why}");
}

#[tokio::test]
async fn only_a_provider_whose_certificate_is_trusted_is_listened_to() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer = service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(Body::from(AWS)))
            });
            let served = hyper::server::conn::http1::Builder::new();
            drop(served.serve_connection(TokioIo::new(stream), answer).await);
        }
    }));

    let urls = Urls { aws: format!("https://localhost:{port}/"), ..Urls::default() };
    let why = fetch(urls.aws.clone()).await.unwrap_err();
    assert!(why.contains("certificate"), "{why}");

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let fetcher = Fetcher::with_config(urls, config);
    let edition = fetcher.fetch(Provider::Aws, None, date(2026, 2, 1)).await.unwrap().unwrap();
    assert_eq!(edition.list.entries().len(), 1);
}
