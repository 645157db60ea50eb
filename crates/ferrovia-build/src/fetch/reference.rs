//! Names of images as people write them, with Docker's defaults: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::registry::{Repository, Tag};

/// The host that a name without one means.
pub const DOCKER_HUB: &str = "docker.io";
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// An image somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageName {
    /// Host of the registry, and its port when it has one.
    pub host: String,
    /// The repository in it.
    pub repository: Repository,
    /// The tag; `latest` when neither it nor a digest was given.
    pub tag: Option<Tag>,
    /// The digest, which says more than a tag.
    pub digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name an image; images look like `nginx:1.27` or `ghcr.io/owner/name:tag`")]
pub struct ParseImageError(pub String);

impl FromStr for ImageName {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseImageError(text.chars().take(100).collect());
        let trimmed = text.trim();
        if trimmed.is_empty() || trimmed.len() > MAX_NAME_BYTES || trimmed.contains("://") {
            return Err(wrong());
        }
        let (name, digest) = match trimmed.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| wrong())?)),
            None => (trimmed, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse().map_err(|_| wrong())?)),
            _ => (name, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_ascii_lowercase(), path.to_owned()),
            _ => (DOCKER_HUB.to_owned(), name.to_owned()),
        };
        let host = match host.as_str() {
            "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB.to_owned(),
            _ => host,
        };
        let path = match host == DOCKER_HUB && !path.contains('/') {
            true => format!("library/{path}"),
            false => path,
        };
        if !is_valid_host(&host) {
            return Err(wrong());
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".parse().map_err(|_| wrong())?),
            (tag, _) => tag,
        };
        Ok(Self {
            host,
            repository: path.parse().map_err(|_| wrong())?,
            tag,
            digest,
        })
    }
}

/// The first word of a name is a host when it has a dot or a port, or is `localhost`.
fn is_host(word: &str) -> bool {
    word.contains(['.', ':']) || word == "localhost"
}

/// Letters, digits, dots and hyphens, and a port; or an IPv6 address in brackets.
fn is_valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let name_is_valid = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.split('.')
                .all(|label| !label.is_empty() && !label.starts_with('-'))
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        }
    };
    name_is_valid && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host == DOCKER_HUB {
            let name = self.repository.as_str();
            f.write_str(name.strip_prefix("library/").unwrap_or(name))?;
        } else {
            write!(f, "{}/{}", self.host, self.repository)?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_dockers_defaults() {
        let digest = Digest::of(b"x");
        let cases = [
            ("nginx", "docker.io", "library/nginx", "nginx:latest"),
            ("nginx:1.27", "docker.io", "library/nginx", "nginx:1.27"),
            ("bitnami/redis:7", "docker.io", "bitnami/redis", "bitnami/redis:7"),
            (
                "index.docker.io/library/nginx",
                "docker.io",
                "library/nginx",
                "nginx:latest",
            ),
            ("ghcr.io/o/n:t", "ghcr.io", "o/n", "ghcr.io/o/n:t"),
            (
                "localhost:5000/a/b",
                "localhost:5000",
                "a/b",
                "localhost:5000/a/b:latest",
            ),
            ("[::1]:5000/a", "[::1]:5000", "a", "[::1]:5000/a:latest"),
        ];
        for (text, host, repository, printed) in cases {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(
                (name.host.as_str(), name.repository.as_str()),
                (host, repository),
                "{text}"
            );
            assert_eq!(name.to_string(), printed);
        }
        let name: ImageName = format!("nginx:1.27@{digest}").parse().unwrap();
        assert_eq!((name.digest, name.tag.unwrap().as_str()), (Some(digest), "1.27"));
        let name: ImageName = format!("nginx@{digest}").parse().unwrap();
        assert_eq!(name.tag, None);
    }

    #[test]
    fn what_names_no_image() {
        for text in [
            "",
            " ",
            "NGINX",
            "a b",
            "http://a/b",
            "nginx:",
            "nginx@sha256:1",
            "a..b/c",
            "-x.y/z",
            "host:0/a",
            "host:99999/a",
            "a/../b",
            "user@host.x/a",
            "x.y/a?b",
            "[::1/a",
            "a\nb",
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_names_the_same(text in "[a-z0-9.:/@_-]{1,40}") {
            if let Ok(name) = text.parse::<ImageName>() {
                prop_assert_eq!(name.to_string().parse::<ImageName>().unwrap(), name);
            }
        }
    }
}
