//! PostgreSQL's programs: in Debian's version directories, which are not on the `PATH`, and on the `PATH`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's and Ubuntu's directory: `VERSION/bin` below it.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Programs that must be there.
const NEEDED: [&str; 2] = ["initdb", "postgres"];

/// The programs of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) major: u32,
    dir: PathBuf,
}

impl Programs {
    /// What is installed and new enough, oldest first.
    pub(super) fn installed() -> Vec<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::look(Path::new(DEBIAN), std::env::split_paths(&path))
    }

    fn look(versions: &Path, path: impl Iterator<Item = PathBuf>) -> Vec<Self> {
        let entries = fs::read_dir(versions).into_iter().flatten().flatten();
        let mut found: Vec<Self> = entries
            .map(|entry| entry.path().join("bin"))
            .chain(path)
            .filter(|dir| NEEDED.iter().all(|program| dir.join(program).is_file()))
            // Links of the distribution on the `PATH` lead to the same programs.
            .filter_map(|dir| {
                dir.join("postgres")
                    .canonicalize()
                    .ok()?
                    .parent()
                    .map(Path::to_owned)
            })
            .filter_map(|dir| {
                Some(Self {
                    major: major_of(&dir)?,
                    dir,
                })
            })
            .collect();
        found.retain(|programs| i64::from(programs.major) >= i64::from(crate::db::OLDEST_MAJOR));
        found.sort_by(|a, b| (a.major, &a.dir).cmp(&(b.major, &b.dir)));
        found.dedup();
        found
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }
}

/// As it says itself: `postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)`.
fn major_of(dir: &Path) -> Option<u32> {
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn one_directory_is_found_once() {
        let found = Programs::installed();
        let first = found.first().expect("PostgreSQL is installed");
        let twice = Programs::look(
            Path::new(DEBIAN),
            [first.dir.clone(), first.dir.clone()].into_iter(),
        );
        assert_eq!(
            twice.iter().filter(|programs| programs.dir == first.dir).count(),
            1
        );
        assert!(Programs::look(Path::new("/nowhere"), std::iter::empty()).is_empty());
    }
}
