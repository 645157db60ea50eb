//! Which of the platform's bases stands in for an image of Docker Hub, where no registry answers. Pure.
//!
//! Only where the programs are the same and at the same place: what builds with `node:20-slim` builds with ours. Alpine's
//! images (another C library and package manager) and servers (nginx, whose paths differ) are not stood in for.

use ferrovia_core::bases::{BASES, Base};

/// A base that stands in for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitute {
    /// The key of the base.
    pub key: String,
    /// What differs, for people; none when nothing that matters does.
    pub difference: Option<String>,
}

/// Releases of Debian that tags name.
const RELEASES: [&str; 4] = ["trixie", "bookworm", "bullseye", "buster"];

/// The base for an image as it stands in a `FROM` line; `None` when there is none.
pub fn substitute(reference: &str) -> Option<Substitute> {
    let (name, tag) = docker_hub_name(reference)?;
    if tag
        .split('-')
        .any(|word| word.starts_with("alpine") || word.starts_with("windows"))
    {
        return None;
    }
    let mut words: Vec<&str> = tag.split('-').filter(|word| *word != "slim").collect();
    let release = words.iter().position(|word| RELEASES.contains(word));
    let release = release.map(|place| words.remove(place));
    let version = words.first().copied().unwrap_or("latest");
    let (base, only_runtime) = match name {
        "debian" => ("debian", false),
        "node" => ("node", false),
        "python" => ("python", false),
        "golang" => ("go", false),
        "rust" => ("rust", false),
        "maven" | "openjdk" => ("java", false),
        "eclipse-temurin" => ("java", words.contains(&"jre")),
        _ => return None,
    };
    let base = if only_runtime { "java-runtime" } else { base };
    let line = match name {
        "debian" => Some("trixie"),
        "maven" => words.iter().rev().find_map(|word| line_of(base, word)),
        _ => line_of(base, version),
    }?;
    let found = BASES
        .iter()
        .find(|found| found.name == base && found.line == line && found.recipe.is_some())?;
    Some(Substitute {
        key: found.key(),
        difference: difference(name, release, version, found),
    })
}

fn difference(name: &str, release: Option<&str>, version: &str, base: &Base) -> Option<String> {
    let older = release.filter(|release| *release != "trixie").or_else(|| {
        let named = name == "debian" && matches!(version, "12" | "11" | "10");
        named.then_some(version)
    });
    if let Some(older) = older {
        return Some(format!("it is Debian 13 (trixie), not {older}"));
    }
    let exact = version.split('.').count() == 3 && version != base.version;
    exact.then(|| format!("it has version {}, not {version}", base.version))
}

/// The line of a base that a version lies in: `20.11.1` in `20`, `3.13.2` in `3.13`.
fn line_of(base: &str, version: &str) -> Option<&'static str> {
    let makeable = || {
        BASES
            .iter()
            .filter(|found| found.name == base && found.recipe.is_some())
    };
    if matches!(version, "latest" | "lts" | "current" | "stable") {
        // The oldest that can be made is what Debian itself keeps secure.
        return makeable().next().map(|found| found.line);
    }
    let within =
        |line: &str, of: &str| of == line || of.strip_prefix(line).is_some_and(|rest| rest.starts_with('.'));
    let exact = makeable().find(|found| within(found.line, version));
    // `python:3`, `golang:1`: the newest of the line.
    exact
        .or_else(|| makeable().rev().find(|found| within(version, found.line)))
        .map(|found| found.line)
}

/// Name and tag of an official image of Docker Hub; `None` for everything else, and for digests, which name one image.
fn docker_hub_name(reference: &str) -> Option<(&str, &str)> {
    if reference.contains('@') {
        return None;
    }
    let reference = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|host| reference.strip_prefix(host))
        .unwrap_or(reference);
    let reference = reference.strip_prefix("library/").unwrap_or(reference);
    let (name, tag) = reference.split_once(':').unwrap_or((reference, "latest"));
    (!name.contains('/')).then_some((name, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_what() {
        let cases = [
            ("debian:trixie-slim", Some("debian:trixie")),
            ("debian", Some("debian:trixie")),
            ("docker.io/library/node:20", Some("node:20")),
            ("node:20-slim", Some("node:20")),
            ("node:22.1.0-trixie-slim", Some("node:22")),
            ("node:lts", Some("node:20")),
            ("python:3.13-slim", Some("python:3.13")),
            ("python:3", Some("python:3.13")),
            ("golang:1.24-trixie", Some("go:1.24")),
            ("rust:1.85", Some("rust:1.85")),
            ("maven:3.9-eclipse-temurin-21", Some("java:21")),
            ("eclipse-temurin:21-jre", Some("java-runtime:21")),
            ("node:18", None),
            ("node:20-alpine", None),
            ("node:20-alpine3.20", None),
            ("alpine:3", None),
            ("nginx:1.27", None),
            ("ghcr.io/a/node:20", None),
            ("somebody/node:20", None),
            ("node:20@sha256:00", None),
        ];
        for (reference, key) in cases {
            assert_eq!(
                substitute(reference).map(|found| found.key).as_deref(),
                key,
                "{reference}"
            );
        }
    }

    #[test]
    fn differences_are_told() {
        let told = |reference| substitute(reference).unwrap().difference;
        assert_eq!(
            told("debian:bookworm-slim").unwrap(),
            "it is Debian 13 (trixie), not bookworm"
        );
        assert_eq!(told("debian:12").unwrap(), "it is Debian 13 (trixie), not 12");
        assert_eq!(told("node:20.1.0").unwrap(), "it has version 20.19.2, not 20.1.0");
        assert_eq!(told("node:20-slim"), None);
    }
}
