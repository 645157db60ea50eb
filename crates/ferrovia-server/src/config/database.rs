//! Which PostgreSQL, and how a password for it stays with the one process that needs it.
//!
//! Only control speaks to the database. An address with a password is given as a file that only root may read: every
//! process knows where it is, and only control opens it. One that was given as a flag reaches control through its
//! environment, since arguments can be read by every user of the host; one that stands in the configuration file closes
//! that file to everybody else, which no process minds: the edge, which is not root, reads no file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ferrovia_core::secret::Secret;

use super::ConfigError;

/// Longest file with a URL, in bytes.
const MAX_URL_BYTES: u64 = 8 * 1024;
/// Bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;
/// The name of the setting in errors.
const SETTING: &str = "database-url-file";

/// Which PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A private one under the data directory.
    Private,
    /// Elsewhere, at this URL.
    Url(Secret),
    /// Elsewhere, at the URL in this file.
    File(PathBuf),
}

impl Database {
    /// What flags say, else what the file says. An empty one says nothing: whoever lists every setting means that.
    ///
    /// # Errors
    /// When one of them says both.
    pub(super) fn of(
        flags: (Option<Secret>, Option<PathBuf>),
        file: (Option<Secret>, Option<PathBuf>),
    ) -> Result<Self, ConfigError> {
        let (flags, file) = (said(flags), said(file));
        let given = if flags == (None, None) { file } else { flags };
        match given {
            (None, None) => Ok(Self::Private),
            (Some(url), None) => Ok(Self::Url(url)),
            (None, Some(file)) => std::path::absolute(file)
                .map(Self::File)
                .map_err(|error| wrong(&error)),
            (Some(_), Some(_)) => Err(wrong(&"give it or `database-url`, not both")),
        }
    }

    /// Whether the platform runs it.
    pub const fn is_private(&self) -> bool {
        matches!(self, Self::Private)
    }

    /// Looks whether the file with the URL is there and closed, without opening it.
    ///
    /// # Errors
    /// [`ConfigError::Setting`], with the remedy.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::File(path) => closed(path).map(drop),
            Self::Private | Self::Url(_) => Ok(()),
        }
    }

    /// Where it is; `None` for the private one. Reads the file, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] when the file cannot be read, is open to others, or holds nothing.
    pub fn url(&self) -> Result<Option<Secret>, ConfigError> {
        match self {
            Self::Private => Ok(None),
            Self::Url(url) => Ok(Some(url.clone())),
            Self::File(path) => {
                closed(path)?;
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                match text.trim() {
                    "" => Err(wrong(&format!("`{}` is empty", path.display()))),
                    url => Ok(Some(Secret::new(url))),
                }
            }
        }
    }
}

fn said((url, file): (Option<Secret>, Option<PathBuf>)) -> (Option<Secret>, Option<PathBuf>) {
    (
        url.filter(|url| !url.expose().is_empty()),
        file.filter(|file| !file.as_os_str().is_empty()),
    )
}

/// Whether others than the owner may read a file.
pub(super) fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & OTHERS != 0
}

fn closed(path: &Path) -> Result<Metadata, ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let shown = path.display();
    if is_open_to_others(&metadata) {
        return Err(wrong(&format!(
            "`{shown}` can be read by others; run `chmod 600 {shown}`"
        )));
    }
    if metadata.len() > MAX_URL_BYTES {
        return Err(wrong(&format!(
            "`{shown}` has {} bytes, more than {MAX_URL_BYTES}: it holds the URL and nothing else",
            metadata.len()
        )));
    }
    Ok(metadata)
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    wrong(&format!("`{}` cannot be read: {error}", path.display()))
}

fn wrong(why: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Setting {
        setting: SETTING,
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn flags_win_whole() {
        let url = |text: &str| Some(Secret::new(text));
        let file = || Some(PathBuf::from("/x"));
        assert_eq!(
            Database::of((None, None), (None, None)).unwrap(),
            Database::Private
        );
        let of = Database::of((url("a"), None), (None, file()));
        assert_eq!(of.unwrap(), Database::Url(Secret::new("a")));
        let of = Database::of((None, file()), (url("b"), None));
        assert_eq!(of.unwrap(), Database::File("/x".into()));
        let empty = || (url(""), Some(PathBuf::new()));
        assert_eq!(Database::of(empty(), empty()).unwrap(), Database::Private);
        let of = Database::of(empty(), (None, file()));
        assert_eq!(of.unwrap(), Database::File("/x".into()));
        for both in [
            Database::of((url("a"), file()), (None, None)),
            Database::of((None, None), (url("a"), file())),
        ] {
            assert!(both.unwrap_err().to_string().contains("not both"));
        }
    }

    #[test]
    fn a_file_is_read_only_while_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let database = Database::File(path.clone());
        assert!(
            database
                .check()
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
        std::fs::write(&path, "postgres://u:hunter2@h/d\n").unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        for error in [database.check().unwrap_err(), database.url().unwrap_err()] {
            assert!(error.to_string().contains("run `chmod 600"), "{error}");
        }
        set(0o600);
        database.check().unwrap();
        let url = database.url().unwrap().unwrap();
        assert_eq!(url.expose(), "postgres://u:hunter2@h/d");
        std::fs::write(&path, "\n").unwrap();
        assert!(database.url().unwrap_err().to_string().contains("is empty"));
    }
}
