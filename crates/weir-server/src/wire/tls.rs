//! The server's certificate, and whose client certificates hold: read from files, and read again
//! when they change.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use xxhash_rust::xxh3::Xxh3;

use super::door::locked;

/// Larger than any chain of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where TLS finds what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate with those above it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who may sign agents' certificates, PEM. Without, no client certificate is asked for.
    pub client_authorities: Option<PathBuf>,
    /// Agents may come without a certificate, because they can show a token.
    pub tokens: bool,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM: {detail}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Certificate and key do not belong together, or are of no use.
    #[error("use the certificate {} with the key {}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The authorities are of no use.
    #[error("use the authorities in {}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: VerifierBuilderError,
    },
}

/// What [`Tls::refresh`] found.
#[derive(Debug)]
pub(super) enum Refreshed {
    /// Nothing new.
    Same,
    /// New files, in use from now on.
    Renewed,
    /// New files that are of no use: what was in use stays. Said once for the same files.
    Kept(TlsError),
}

/// TLS as it is configured now.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// Of the files as they were read last, whether they were of use or not.
    seen: Mutex<u128>,
}

impl Tls {
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let texts = Texts::read(&files)?;
        let current = ArcSwap::from_pointee(texts.config(&files)?);
        Ok(Self { files, current, seen: Mutex::new(texts.digest()) })
    }

    /// For a connection that begins now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Looks whether the files have changed.
    pub(super) fn refresh(&self) -> Refreshed {
        let texts = match Texts::read(&self.files) {
            Ok(texts) => texts,
            // A file that is gone for a moment while it is replaced has digest 0.
            Err(error) => return self.kept(0, error),
        };
        let digest = texts.digest();
        if *locked(&self.seen) == digest {
            return Refreshed::Same;
        }
        match texts.config(&self.files) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                *locked(&self.seen) = digest;
                Refreshed::Renewed
            }
            Err(error) => self.kept(digest, error),
        }
    }

    fn kept(&self, digest: u128, error: TlsError) -> Refreshed {
        let before = std::mem::replace(&mut *locked(&self.seen), digest);
        if before == digest { Refreshed::Same } else { Refreshed::Kept(error) }
    }
}

/// The files' contents.
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_authorities: files.client_authorities.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> u128 {
        let mut hasher = Xxh3::new();
        let files = [Some(&self.certificate), Some(&self.key), self.client_authorities.as_ref()];
        for text in files.into_iter().flatten() {
            hasher.update(&text.len().to_le_bytes());
            hasher.update(text);
        }
        hasher.digest128()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let TlsFiles { certificate, key, client_authorities, tokens } = files;
        let chain = certificates(certificate, &self.certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| content(key, "private key", &error))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for every version");
        let builder = match (client_authorities, &self.client_authorities) {
            (Some(path), Some(text)) => {
                let unfit = |source| TlsError::Authorities { path: path.clone(), source };
                let roots = Arc::new(authorities(path, text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if *tokens { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(unfit)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|source| {
            TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source }
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn authorities(path: &Path, text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, text)? {
        roots.add(authority).map_err(|error| content(path, "authority", &error))?;
    }
    Ok(roots)
}

pub(crate) fn certificates(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = read.map_err(|error| content(path, "certificate", &error))?;
    if certificates.is_empty() {
        return Err(content(path, "certificate", &"there is none"));
    }
    Ok(certificates)
}

fn content(path: &Path, what: &'static str, detail: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, detail: detail.to_string() }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    Ok(text)
}
