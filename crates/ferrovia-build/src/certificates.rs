//! The extra certificate authority in builds: where it stands in a step, and the file that is handed in.
//!
//! A company's proxy that signs TLS anew is trusted by the host and unknown in every image. The authority is handed to
//! steps as a secret mount: it is in no layer, and an application's image does not trust it.
//!
//! Somebody's own Dockerfile gets it by flags of every `RUN` ([`run_flags`]): variables as secrets too, since `ENV` would
//! stay in the image. What reads neither a variable nor the system's bundle (Java's trust store) does not see it there.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable;

/// The id of the secret.
pub const SECRET_ID: &str = "ferrovia-ca";
/// Where it is in a step.
pub const SECRET_PATH: &str = "/run/secrets/ferrovia-ca";
/// Variables that name a file of authorities: of Node, pip, requests, Cargo, Git, curl, OpenSSL and Go.
pub const VARIABLES: [&str; 7] = [
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
];

/// The id of the secret whose value is [`SECRET_PATH`]: what variables are set to.
pub const PATH_SECRET_ID: &str = "ferrovia-ca-path";

/// Flags of a `RUN` that hand the authority in, with a blank at the end.
pub fn run_flags() -> String {
    let variables = VARIABLES
        .iter()
        .map(|name| format!("--mount=type=secret,id={PATH_SECRET_ID},env={name} "));
    format!(
        "--mount=type=secret,id={SECRET_ID},target={SECRET_PATH} {}",
        variables.collect::<String>()
    )
}

/// The host's authorities.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Largest secret that BuildKit hands in, in bytes, with room to spare.
const MAX_BUNDLE_BYTES: usize = 480 * 1024;

/// Writes the file that is handed in: the host's authorities and the extra one, since tools that are told a file use
/// that one alone.
pub async fn write_bundle(extra: &Path, directory: &Path) -> io::Result<PathBuf> {
    let extra = tokio::fs::read_to_string(extra).await?;
    let system = tokio::fs::read_to_string(SYSTEM_BUNDLE).await.unwrap_or_default();
    let path = directory.join("ca.pem");
    durable::ensure_directory(directory).await?;
    durable::write(&path, bundle(&system, &extra).as_bytes()).await?;
    Ok(path)
}

/// Both together where they fit; the extra one alone where it has the system's already.
fn bundle(system: &str, extra: &str) -> String {
    let first = extra
        .lines()
        .find(|line| !line.starts_with('-') && line.len() > 32);
    let known = first.is_some_and(|line| system.contains(line));
    match (known && extra.len() >= system.len(), system.len() + extra.len()) {
        (true, _) => extra.to_owned(),
        (false, size) if size < MAX_BUNDLE_BYTES => format!("{system}\n{extra}"),
        _ => extra.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_authorities_stay_trusted() {
        let (system, extra) = ("-----BEGIN-----\nAAAA\n", "-----BEGIN-----\nBBBB\n");
        assert_eq!(bundle(system, extra), format!("{system}\n{extra}"));
        let long = "C".repeat(64);
        let all = format!("-----BEGIN-----\n{long}\n{long}\n");
        assert_eq!(bundle(&all, &all), all);
    }
}
