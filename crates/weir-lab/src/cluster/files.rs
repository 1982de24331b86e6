//! Files that servers and agents are started with.

use std::fs;
use std::path::Path;

use super::kubenetmon;
use crate::error::{LabError, io_error};
use crate::net::{SERVERS, whole};
use crate::scenario::{Range, Scenario};
use crate::text::line;

/// An authority and a certificate of all servers' that it has signed.
pub(super) fn certificates(data: &Path) -> Result<(), LabError> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let trouble = |error: rcgen::Error| LabError::Answer {
        program: "the certificate generator".to_owned(),
        message: error.to_string(),
    };
    let mut authority = CertificateParams::new(Vec::new()).map_err(trouble)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(trouble)?;
    let authority = CertifiedIssuer::self_signed(authority, key).map_err(trouble)?;
    let addresses = SERVERS.iter().map(ToString::to_string);
    let names: Vec<String> = addresses.chain(["weir-server".to_owned()]).collect();
    let server = CertificateParams::new(names).map_err(trouble)?;
    let key = KeyPair::generate().map_err(trouble)?;
    let server = server.signed_by(&key, &authority).map_err(trouble)?;
    write(data, "ca.pem", &authority.pem())?;
    write(data, "server.pem", &server.pem())?;
    write(data, "server.key", &key.serialize_pem())
}

/// Writes a file that only its owner may read.
pub(super) fn write(data: &Path, name: &str, text: &str) -> Result<(), LabError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data.join(name);
    let shown = path.display().to_string();
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let mut file = file.map_err(io_error("make", &shown))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io_error("write", &shown))
}

/// The servers' configuration file: kubenetmon's where they are set up as its own, and what
/// addresses outside belong to. Empty where there is nothing to say.
pub(super) fn server_config(scenario: &Scenario) -> String {
    let theirs = if scenario.setup.kubenetmon { kubenetmon::SERVER_FILE } else { "" };
    let mut text = String::new();
    for outside in &scenario.outside {
        let Some(Range { name, cloud, region, service }) = &outside.range else { continue };
        for address in &outside.addresses {
            line(&mut text, &format!("  - cidr: {address}/{}", whole(*address)));
            let of = [("name", &Some(name.clone())), ("cloud", cloud)];
            for (key, value) in of.into_iter().chain([("region", region), ("service", service)]) {
                let Some(value) = value else { continue };
                line(&mut text, &format!("    {key}: \"{value}\""));
            }
        }
    }
    if text.is_empty() { theirs.to_owned() } else { format!("{theirs}cidrs:\n{text}") }
}
