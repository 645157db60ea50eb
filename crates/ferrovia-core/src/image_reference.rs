//! References to images, as people give them: `nginx:1.27`, `ghcr.io/owner/name@sha256:…`.
//!
//! What cannot be one is refused before a registry is asked and before anything is made (distribution's reference
//! grammar). Deliberately absent: default registries and tags, which belong to whoever fetches.

use crate::tree::Sha256;

/// Longest reference to an image, in bytes.
pub const MAX_REFERENCE_BYTES: usize = 512;

/// Why a text is no reference to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Empty, or more than [`MAX_REFERENCE_BYTES`].
    #[error("this is no reference to an image: it is empty or too long")]
    Length,
    /// What follows `@` is no digest.
    #[error("this is no reference to an image: after `@` stands a SHA-256 digest")]
    Digest,
    /// What follows `:` is no tag.
    #[error("this is no reference to an image: the tag has letters, digits, `_`, `.` and `-`")]
    Tag,
    /// Host or name.
    #[error("this is no reference to an image: a name has lower-case letters, digits, `_`, `.`, `-` and `/`")]
    Name,
}

impl ReferenceError {
    /// The remedy.
    pub const HINT: &str = "give `nginx:1.27` or `ghcr.io/owner/name@sha256:…`";
}

/// Refuses what cannot be the name of an image.
///
/// # Errors
/// [`ReferenceError`] for the first part that cannot be.
pub fn check_reference(reference: &str) -> Result<(), ReferenceError> {
    if reference.is_empty() || reference.len() > MAX_REFERENCE_BYTES {
        return Err(ReferenceError::Length);
    }
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| digest.parse::<Sha256>().is_err()) {
        return Err(ReferenceError::Digest);
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if tag.is_some_and(|tag| {
        tag.is_empty() || tag.len() > 128 || !tag.bytes().all(word) || tag.starts_with(['.', '-'])
    }) {
        return Err(ReferenceError::Tag);
    }
    let parts: Vec<&str> = path.split('/').collect();
    for (n, part) in parts.iter().enumerate() {
        let host = n == 0 && parts.len() > 1 && (part.contains(['.', ':']) || *part == "localhost");
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
        let in_host = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        let fits = if host {
            part.bytes().all(in_host)
        } else {
            part.bytes().all(good)
        };
        let edges = |c: char| !c.is_ascii_alphanumeric() && c != '[' && c != ']';
        if part.is_empty() || !fits || part.starts_with(edges) || part.ends_with(edges) {
            return Err(ReferenceError::Name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_images() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "nginx",
            "nginx:1.27-alpine",
            "library/nginx",
            "ghcr.io/owner/name:v1",
            "localhost:5000/a/b",
            "127.0.0.1:5000/a",
            "[::1]:5000/a",
            &format!("nginx@{digest}"),
            &format!("ghcr.io/a/b:1@{digest}"),
        ] {
            assert!(check_reference(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "Nginx",
            "a b",
            "a:",
            "a:b:c/",
            "a@sha256:1",
            "a\0",
            "-a",
            "a:-b",
            "ü",
            "../a",
            "a;rm",
            "--flag",
            &"a".repeat(600),
        ] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
    }
}
