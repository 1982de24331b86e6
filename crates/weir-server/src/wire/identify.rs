//! Who speaks: decided by credentials before anything that is said is read.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use weir_proto::limits::NAME_BYTES_MAX;

/// What stands behind the node's name in a certificate: `NODE.agents.weir`.
pub const CERTIFICATE_SUFFIX: &str = ".agents.weir";

/// What stands behind a server's name in a certificate: `NAME.servers.weir`.
pub const SERVER_CERTIFICATE_SUFFIX: &str = ".servers.weir";

/// Tells from a bearer token whose agent speaks. Asked again and again while a stream lasts, so
/// answers are to be remembered for a while: at most 60 s, else nobody can be shut out.
pub trait Identify: Send + Sync {
    /// Whose token this is. The token must not be in any text of the answer.
    fn identify<'a>(&'a self, token: &'a str) -> Identifying<'a>;

    /// Which server's token this is: who it is by its credentials, for the log.
    fn identify_server<'a>(&'a self, token: &'a str) -> IdentifyingServer<'a>;
}

/// An answer about a server's token, on its way.
pub type IdentifyingServer<'a> = Pin<Box<dyn Future<Output = Result<String, Denied>> + Send + 'a>>;

/// An answer of [`Identify`], on its way.
pub type Identifying<'a> = Pin<Box<dyn Future<Output = Result<Identity, Denied>> + Send + 'a>>;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node the agent runs on.
    pub node: String,
    /// Who it is by its credentials, for the log.
    pub subject: String,
}

/// Somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Denied {
    /// Why, as it is counted.
    pub reason: Denial,
    /// Why, for the log. Never holds a token.
    pub detail: String,
    /// True where it could not be decided: worth another try, and no reason to end a stream that
    /// was let in before.
    pub retry: bool,
}

impl Denied {
    /// A denial for good.
    pub fn new(reason: Denial, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry: false }
    }

    /// It could not be decided.
    pub fn undecided(detail: impl Into<String>) -> Self {
        Self { reason: Denial::Undecided, detail: detail.into(), retry: true }
    }
}

/// Why somebody is not let in. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Neither a token nor a certificate.
    Missing,
    /// Credentials that cannot be read.
    Malformed,
    /// The token is nobody's, or not any more.
    Unauthenticated,
    /// The token was made for somebody else.
    WrongAudience,
    /// Somebody who is no agent.
    NotAnAgent,
    /// Somebody who is no server, where servers ask each other.
    NotAServer,
    /// An agent whose node cannot be told.
    NoNode,
    /// Whoever knows could not be asked.
    Undecided,
    /// The agent says it runs on another node than its credentials do.
    OtherNode,
    /// The agent continues another node's spool.
    OtherEpoch,
    /// Too many streams of this node.
    TooManyStreams,
    /// It speaks another version of the protocol.
    Version,
    /// It did not begin with a greeting that can be read.
    Greeting,
}

impl Denial {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Malformed,
        Self::Unauthenticated,
        Self::WrongAudience,
        Self::NotAnAgent,
        Self::NotAServer,
        Self::NoNode,
        Self::Undecided,
        Self::OtherNode,
        Self::OtherEpoch,
        Self::TooManyStreams,
        Self::Version,
        Self::Greeting,
    ];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing_credentials",
            Self::Malformed => "malformed_credentials",
            Self::Unauthenticated => "unauthenticated",
            Self::WrongAudience => "wrong_audience",
            Self::NotAnAgent => "not_an_agent",
            Self::NotAServer => "not_a_server",
            Self::NoNode => "no_node",
            Self::Undecided => "undecided",
            Self::OtherNode => "other_node",
            Self::OtherEpoch => "other_epoch",
            Self::TooManyStreams => "too_many_streams",
            Self::Version => "unknown_version",
            Self::Greeting => "no_greeting",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The node that a client certificate, verified before, was made for: its one DNS name that ends
/// in [`CERTIFICATE_SUFFIX`].
pub(super) fn by_certificate(certificate: &CertificateDer<'_>) -> Result<Identity, Denied> {
    let malformed = |error| Denied::new(Denial::Malformed, format!("certificate: {error}"));
    let certificate = EndEntityCert::try_from(certificate).map_err(malformed)?;
    let mut nodes =
        certificate.valid_dns_names().filter_map(|name| name.strip_suffix(CERTIFICATE_SUFFIX));
    let none = || {
        let detail = format!("the certificate has no DNS name NODE{CERTIFICATE_SUFFIX}");
        Denied::new(Denial::NoNode, detail)
    };
    let node = nodes.next().ok_or_else(none)?;
    if nodes.next().is_some() {
        let detail = "the certificate names several nodes: give each agent its own";
        return Err(Denied::new(Denial::NoNode, detail));
    }
    Ok(Identity { node: checked_node(node)?, subject: format!("{node}{CERTIFICATE_SUFFIX}") })
}

/// The server that a client certificate, verified before, was made for.
pub(super) fn server_by_certificate(certificate: &CertificateDer<'_>) -> Result<String, Denied> {
    let malformed = |error| Denied::new(Denial::Malformed, format!("certificate: {error}"));
    let certificate = EndEntityCert::try_from(certificate).map_err(malformed)?;
    let name = certificate.valid_dns_names().find(|name| {
        let server = name.strip_suffix(SERVER_CERTIFICATE_SUFFIX);
        server.is_some_and(|server| checked_node(server).is_ok())
    });
    name.map(str::to_owned).ok_or_else(|| {
        let detail = format!("the certificate has no DNS name NAME{SERVER_CERTIFICATE_SUFFIX}");
        Denied::new(Denial::NotAServer, detail)
    })
}

/// A node's name, where it can be one: lower case letters, digits, `-` and `.`.
pub(super) fn checked_node(node: &str) -> Result<String, Denied> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if node.is_empty() || node.len() > NAME_BYTES_MAX || !node.chars().all(fits) {
        let detail = "the credentials' node is not the name of one (a-z, 0-9, - and .)";
        return Err(Denied::new(Denial::NoNode, detail));
    }
    Ok(node.to_owned())
}

/// The token of an `authorization` header.
pub(super) fn bearer(header: Option<&[u8]>) -> Result<&str, Denied> {
    let missing = "no credentials: start the agent with --token-file, or with --cert-file";
    let header = header.ok_or_else(|| Denied::new(Denial::Missing, missing))?;
    let malformed = || Denied::new(Denial::Malformed, "the authorization is not `Bearer TOKEN`");
    let text = std::str::from_utf8(header).map_err(|_not_text| malformed())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(malformed)?;
    let token = token.trim();
    let is_token = |c: char| c.is_ascii_graphic();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.chars().all(is_token) {
        return Err(malformed());
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_node() {
        for (names, node) in [
            (&["n1.agents.weir"][..], Ok("n1")),
            (&["ip-10-0-0-1.ec2.internal.agents.weir"], Ok("ip-10-0-0-1.ec2.internal")),
            (&["weir.example.org", "n1.agents.weir"], Ok("n1")),
            (&["n1.agents.weir", "n2.agents.weir"], Err(Denial::NoNode)),
            (&["agents.weir"], Err(Denial::NoNode)),
            (&["n1"], Err(Denial::NoNode)),
            (&["n1.agents.weir.example.org"], Err(Denial::NoNode)),
            (&["*.agents.weir"], Err(Denial::NoNode)),
            (&[], Err(Denial::NoNode)),
        ] {
            let identity = by_certificate(&certificate(names));
            let found = identity.as_ref().map(|it| it.node.as_str()).map_err(|it| it.reason);
            assert_eq!(found, node, "{names:?}");
        }
        let noise = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff]);
        assert_eq!(by_certificate(&noise).unwrap_err().reason, Denial::Malformed);
    }

    #[test]
    fn a_certificate_names_a_server_or_none() {
        for (names, server) in [
            (&["weir-0.servers.weir"][..], Some("weir-0.servers.weir")),
            (&["weir.example.org", "a.servers.weir", "b.servers.weir"], Some("a.servers.weir")),
            (&["n1.agents.weir"], None),
            (&["servers.weir"], None),
            (&["*.servers.weir"], None),
            (&["a.servers.weir.example.org"], None),
        ] {
            let found = server_by_certificate(&certificate(names));
            let found = found.map_err(|denied| assert_eq!(denied.reason, Denial::NotAServer));
            assert_eq!(found.ok().as_deref(), server, "{names:?}");
        }
    }

    #[test]
    fn a_token_is_read_or_said_to_be_missing_or_malformed() {
        assert_eq!(bearer(Some(b"Bearer a.b-c")), Ok("a.b-c"));
        assert_eq!(bearer(Some(b"bearer  abc ")), Ok("abc"));
        assert_eq!(bearer(None).unwrap_err().reason, Denial::Missing);
        for header in [&b""[..], b"Bearer", b"Bearer ", b"Basic abc", b"Bearer a b", b"Bearer \xff"]
        {
            let denied = bearer(Some(header)).unwrap_err();
            assert_eq!(denied.reason, Denial::Malformed, "{header:?}");
        }
    }
}
