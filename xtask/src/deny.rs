//! What may be in the tree, as `deny.toml` says: licences, banned crates, one version of each.
//!
//! The file is cargo-deny's, so that `cargo deny check` says the same and more (advisories, yanked crates). Building
//! that tool takes longer than everything else that `tidy` looks at, so what must hold at every landing is looked at
//! here, from what cargo itself says is compiled: its metadata also lists what is only possible.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::semver::{Version, VersionReq};
use serde::Deserialize;

/// The part of `deny.toml` that is checked here; cargo-deny reads the rest too.
#[derive(Debug, Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Graph {
    /// Platforms that are built for.
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Named>,
    /// Versions that may be there beside another.
    skip: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// `NAME`, or `NAME@VERSION` for what a requirement of this version takes.
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// A crate that is compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Compiled {
    name: String,
    version: String,
    licence: String,
}

/// Every finding about the tree of dependencies.
///
/// # Errors
/// When `deny.toml` or cargo's answer cannot be read.
pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let text =
        std::fs::read_to_string(root.join("deny.toml")).map_err(|error| format!("deny.toml: {error}"))?;
    let policy: Policy = toml::from_str(&text).map_err(|error| format!("deny.toml: {error}"))?;
    let mut compiled = BTreeSet::new();
    for target in &policy.graph.targets {
        compiled.extend(read(&tree(root, target)?)?);
    }
    Ok(findings(&policy, &compiled))
}

/// What cargo compiles for a platform, with the features in use: `NAME vVERSION (…)|LICENCE` a line.
fn tree(root: &Path, target: &str) -> Result<String, String> {
    let output = Command::new("cargo")
        .args(["tree", "--locked", "--workspace", "--edges", "normal,build,dev"])
        .args(["--prefix", "none", "--format", "{p}|{l}", "--target", target])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo tree: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)))
}

fn read(tree: &str) -> Result<BTreeSet<Compiled>, String> {
    let lines = tree.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (package, licence) = line.split_once('|').unwrap_or((line, ""));
            let mut words = package.split(' ');
            let (Some(name), Some(version)) = (words.next(), words.next()) else {
                return Err(format!("cargo tree: `{line}` is not understood"));
            };
            Ok(Compiled {
                name: name.to_owned(),
                version: version.trim_start_matches('v').to_owned(),
                // A crate that was listed before is marked so.
                licence: licence.trim_end_matches("(*)").trim().to_owned(),
            })
        })
        .collect()
}

fn findings(policy: &Policy, compiled: &BTreeSet<Compiled>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Compiled {
        name,
        version,
        licence,
    } in compiled
    {
        versions.entry(name).or_default().insert(version);
        match licence::is_allowed(licence, &policy.licenses.allow) {
            Ok(true) => {}
            Ok(false) => findings.push(format!(
                "`{name} {version}` has the licence `{licence}`, and deny.toml allows none that it can be taken under"
            )),
            Err(why) => findings.push(format!("`{name} {version}` has the licence `{licence}`: {why}")),
        }
    }
    for Named { name, reason } in &policy.bans.deny {
        if versions.contains_key(name.as_str()) {
            findings.push(format!(
                "`{name}` is in the tree, and banned: {reason}; `cargo tree -i {name}` says why it is there"
            ));
        }
    }
    duplicates(policy, &versions, &mut findings);
    findings
}

fn duplicates(policy: &Policy, versions: &BTreeMap<&str, BTreeSet<&str>>, findings: &mut Vec<String>) {
    let mut skipped: BTreeSet<(&str, &str)> = BTreeSet::new();
    for Named { name: skip, reason } in &policy.bans.skip {
        if reason.trim().is_empty() {
            findings.push(format!("deny.toml: the skipped `{skip}` has no reason"));
        }
        let wanted = skip
            .split_once('@')
            .and_then(|(name, version)| Some((name, VersionReq::parse(version).ok()?)));
        let Some((name, wanted)) = wanted else {
            findings.push(format!(
                "deny.toml: `{skip}` is not skipped: write `NAME@VERSION`"
            ));
            continue;
        };
        let found = versions.get(name).filter(|found| found.len() > 1);
        let matched = found
            .into_iter()
            .flatten()
            .filter(|version| fits(&wanted, version));
        let before = skipped.len();
        skipped.extend(matched.map(|version| (name, *version)));
        if skipped.len() == before {
            findings.push(format!(
                "deny.toml: `{skip}` is skipped, and stands beside no other version any more; take the line out"
            ));
        }
    }
    for (name, found) in versions {
        let counted = found.iter().filter(|version| !skipped.contains(&(name, version)));
        if counted.count() > 1 {
            let found: Vec<&str> = found.iter().copied().collect();
            findings.push(format!(
                "`{name}` is in the tree in the versions {}; bring them together, or skip one in deny.toml with the \
                 reason (`cargo tree -i {name}@VERSION` says who wants it)",
                found.join(" and ")
            ));
        }
    }
}

fn fits(wanted: &VersionReq, version: &str) -> bool {
    Version::parse(version).is_ok_and(|version| wanted.matches(&version))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    const POLICY: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        all-features = false
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        [bans]
        multiple-versions = "deny"
        deny = [{ crate = "ring", reason = "one cryptographic library" }]
        skip = [{ crate = "syn@2", reason = "macros of others" }]
    "#;

    fn found(tree: &str) -> Vec<String> {
        findings(&toml::from_str(POLICY).unwrap(), &read(tree).unwrap())
    }

    const FINE: &str = "ferrovia-core v0.1.0 (/x/ferrovia-core)|Apache-2.0\n\nsyn v2.0.0|MIT OR Apache-2.0\n\
                        syn v3.0.0 (proc-macro)|MIT OR Apache-2.0\nsyn v2.0.0|MIT OR Apache-2.0 (*)\n";

    #[test]
    fn a_tree_as_it_should_be_has_no_findings() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn what_may_not_be_there_is_named() {
        for (line, wanted) in [
            (
                "ring v0.17.0|Apache-2.0",
                "`ring` is in the tree, and banned: one cryptographic library",
            ),
            (
                "copyleft v1.0.0|GPL-3.0-only",
                "`copyleft 1.0.0` has the licence `GPL-3.0-only`",
            ),
            (
                "unsaid v1.0.0|",
                "`unsaid 1.0.0` has the licence ``: it says none",
            ),
            (
                "syn v1.0.0|MIT",
                "`syn` is in the tree in the versions 1.0.0 and 2.0.0 and 3.0.0",
            ),
        ] {
            let found = found(&format!("{FINE}{line}\n"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(wanted), "{found:?}");
        }
    }

    #[test]
    fn a_skip_that_nothing_needs_any_more_is_named() {
        let found = found("syn v3.0.0|MIT\n");
        assert!(found[0].contains("`syn@2` is skipped"), "{found:?}");
    }
}
