//! Where `buildkitd`, `buildctl` and what they need are.

use std::path::{Path, PathBuf};

use ferrovia_core::error::{Class, Report};

use crate::BuildError;

/// The version that the platform is tested with.
pub const TESTED_VERSION: &str = "v0.34.2";

/// The programs of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The daemon.
    pub buildkitd: PathBuf,
    /// The client.
    pub buildctl: PathBuf,
}

/// Programs that building needs beside BuildKit, and the Debian package of each.
const NEEDED: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Where programs of the system are when `PATH` does not say so.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

impl Tools {
    /// Looks in `directories`, then in `path` (a `PATH`).
    pub fn find(directories: &[PathBuf], path: &str) -> Result<Self, BuildError> {
        let places = directories
            .iter()
            .cloned()
            .chain(path.split(':').map(PathBuf::from));
        for place in places {
            let tools = Self {
                buildkitd: place.join("buildkitd"),
                buildctl: place.join("buildctl"),
            };
            if is_program(&tools.buildkitd) && is_program(&tools.buildctl) {
                return Ok(tools);
            }
        }
        Err(BuildError {
            report: Report::new("buildkit_missing", "`buildkitd` and `buildctl` were not found, so nothing can be built")
                .with_hint(format!(
                    "install BuildKit {TESTED_VERSION} on the `PATH`, or run `script/buildkit`, which builds it from \
                     source, or say where it is with `--buildkit-dir`"
                )),
            class: Class::Unavailable,
        })
    }
}

/// The first of the programs that building needs and that is not there, with the remedy.
pub fn missing_program(path: &str) -> Option<Report> {
    let directories: Vec<&str> = path.split(':').chain(SYSTEM_DIRECTORIES).collect();
    let there = |program: &str| {
        directories
            .iter()
            .any(|place| is_program(&Path::new(place).join(program)))
    };
    let (program, package) = NEEDED.into_iter().find(|(program, _)| !there(program))?;
    Some(
        Report::new(
            "build_tool_missing",
            format!("`{program}` was not found, so nothing can be built"),
        )
        .with_hint(format!("install it: `apt-get install {package}`")),
    )
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn both_programs_must_be_in_one_directory() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |directory: &Path, name: &str| {
            let mut options = std::fs::OpenOptions::new();
            options
                .create(true)
                .write(true)
                .mode(0o755)
                .open(directory.join(name))
                .unwrap();
        };
        make(first.path(), "buildkitd");
        let path = second.path().to_str().unwrap();
        let missing = Tools::find(&[first.path().into()], path).unwrap_err();
        assert_eq!(missing.report.code, "buildkit_missing");
        make(second.path(), "buildkitd");
        make(second.path(), "buildctl");
        let found = Tools::find(&[first.path().into()], path).unwrap();
        assert_eq!(found.buildctl, second.path().join("buildctl"));
    }
}
