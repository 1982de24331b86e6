//! How connections to other servers are secured: what to verify of them, and what to show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::wire::{TlsError, certificates_of, read_file};

/// Where Linux systems keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The files that secure connections to other servers. Read again for every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTls {
    /// Who may vouch for other servers, PEM; those the system trusts where not given.
    pub authorities: Option<PathBuf>,
    /// This server's certificate and its key, PEM, where it is known by them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that their certificates bear, where that is not the one they are looked up by.
    pub name: Option<String>,
}

impl PeerTls {
    /// Reads the files. Also a check that they can be used.
    pub fn load(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for every version")
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates_of(certificate, &read_file(certificate)?)?;
                let private = PrivateKeyDer::from_pem_slice(&read_file(key)?).map_err(|error| {
                    TlsError::Content {
                        path: key.clone(),
                        what: "private key",
                        detail: error.to_string(),
                    }
                })?;
                builder.with_client_auth_cert(chain, private).map_err(|source| TlsError::Pair {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    source,
                })?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let exists = |path: &&Path| path.exists();
        let system = || SYSTEM_BUNDLES.map(Path::new).into_iter().find(exists);
        let none = || TlsError::Content {
            path: SYSTEM_BUNDLES[0].into(),
            what: "authority",
            detail: "there is no such file: say with --peer-ca who vouches for other servers"
                .to_owned(),
        };
        let path = self.authorities.as_deref().or_else(system).ok_or_else(none)?;
        let mut roots = RootCertStore::empty();
        // A bundle may hold a few that rustls does not take.
        let (added, _) = roots.add_parsable_certificates(certificates_of(path, &read_file(path)?)?);
        if added == 0 {
            return Err(TlsError::Content {
                path: path.to_owned(),
                what: "authority",
                detail: "none that can be used".to_owned(),
            });
        }
        Ok(roots)
    }
}
