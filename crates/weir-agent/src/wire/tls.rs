//! TLS: what the files say, read anew for every connection.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// More than any certificate, key or bundle of authorities.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where systems keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The files that secure a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that may vouch for the server; those of the system where not given.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key, where we identify ourselves by one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name the server's certificate must bear, where that is not the host's.
    pub server_name: Option<String>,
}

/// The files do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM form", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// No authorities were named, and the system has none.
    #[error("no authorities to trust: name a file with --ca-file")]
    NoAuthorities,
    /// A certificate or key that cannot be used.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// TLS itself.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// Makes configurations, and keeps the last good one: files that are being replaced may be unreadable
/// for a moment.
#[derive(Debug)]
pub(super) struct Keeper {
    files: Option<TlsFiles>,
    last: Option<Arc<ClientConfig>>,
}

impl Keeper {
    pub(super) fn new(files: Option<TlsFiles>) -> Self {
        Self { files, last: None }
    }

    /// What to secure the next connection with; `None`: it is not secured.
    pub(super) fn config(&mut self) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        let Some(files) = &self.files else { return Ok(None) };
        match (files.load(), &self.last) {
            (Ok(config), _) => self.last = Some(Arc::new(config)),
            (Err(error), Some(_)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the TLS files cannot be used; going on with what they said before"
            ),
            (Err(error), None) => return Err(error),
        }
        Ok(self.last.clone())
    }
}

impl TlsFiles {
    /// Reads the files. Also a check that they can be used.
    pub fn load(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|_none| TlsError::Empty { path: key.clone(), what: "private key" })?;
                builder
                    .with_client_auth_cert(chain, key_der)
                    .map_err(|source| TlsError::Unusable { path: certificate.clone(), source })?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let system = || SYSTEM_BUNDLES.map(Path::new).into_iter().find(|path| path.exists());
        let named = self.authorities.as_deref();
        let path = named.or_else(system).ok_or(TlsError::NoAuthorities)?;
        let mut roots = RootCertStore::empty();
        // A bundle may hold a few that rustls does not take.
        let (added, _) = roots.add_parsable_certificates(certificates(path)?);
        if added == 0 {
            return Err(TlsError::Empty { path: path.to_owned(), what: "usable certificate" });
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = || TlsError::Empty { path: path.to_owned(), what: "certificate" };
    let bytes = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    parsed.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(empty)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}
