//! What the CLI remembers for its user: servers with their tokens, and which directory belongs to which service.
//!
//! One TOML file, readable by its owner only, written whole: to a new file beside it, then renamed over it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Everything that is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The server that is used when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Servers by URL.
    pub contexts: BTreeMap<String, Context>,
    /// Directories by absolute path.
    pub links: BTreeMap<String, Link>,
}

/// A server that was signed in to.
#[derive(Serialize, Deserialize)]
pub struct Context {
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// What a directory belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl Config {
    /// Reads the file; without one everything is empty.
    pub fn load() -> Result<Self, Failure> {
        Self::load_from(&path()?)
    }

    fn load_from(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unusable(path, &error)),
        };
        toml::from_str(&text).map_err(|error| {
            // The message shows the place but could show a token: only its position is told.
            let place = error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            Failure::new(
                "config_invalid",
                format!("`{}` line {place} cannot be read", path.display()),
            )
            .hint("correct it, or remove the file and run `ferrovia login` again")
        })
    }

    /// Writes the file.
    pub fn save(&self) -> Result<(), Failure> {
        self.save_to(&path()?)
    }

    fn save_to(&self, path: &Path) -> Result<(), Failure> {
        let write = || -> std::io::Result<()> {
            let directory = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)?;
            let text = toml::to_string_pretty(self).map_err(std::io::Error::other)?;
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            std::fs::File::open(directory)?.sync_all()
        };
        write().map_err(|error| unusable(path, &error))
    }

    /// The link of a directory or of the nearest one above it.
    pub fn link_of(&self, directory: &Path) -> Option<&Link> {
        directory
            .ancestors()
            .find_map(|ancestor| self.links.get(&ancestor.to_string_lossy().into_owned()))
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        "config_unusable",
        format!("`{}` cannot be used: {error}", path.display()),
    )
    .hint("give a directory of your own with `FERROVIA_CONFIG_DIR`")
}

fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let directory = set("FERROVIA_CONFIG_DIR")
        .or_else(|| Some(set("XDG_CONFIG_HOME")?.join("ferrovia")))
        .or_else(|| Some(set("HOME")?.join(".config/ferrovia")))
        .ok_or_else(|| {
            Failure::new("config_unusable", "there is no home directory to keep tokens in")
                .hint("set `FERROVIA_CONFIG_DIR`")
        })?;
    Ok(directory.join("cli.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/cli.toml");
        assert!(Config::load_from(&path).unwrap().contexts.is_empty());
        let mut config = Config::default();
        let token = "fv_secret".to_owned();
        config
            .contexts
            .insert("http://127.0.0.1:7070/".into(), Context { token });
        let project = Some("shop".to_owned());
        config.links.insert(
            "/home/me/shop".into(),
            Link {
                project,
                ..Link::default()
            },
        );
        config.save_to(&path).unwrap();
        let read = Config::load_from(&path).unwrap();
        assert_eq!(read.contexts["http://127.0.0.1:7070/"].token, "fv_secret");
        assert_eq!(
            read.link_of(Path::new("/home/me/shop/src")),
            config.links.get("/home/me/shop")
        );
        assert_eq!(read.link_of(Path::new("/home/me")), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(!format!("{read:?}").contains("fv_secret"));
    }

    #[test]
    fn a_broken_file_is_told_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cli.toml");
        std::fs::write(&path, "current = 1\n[contexts.\"x\"]\ntoken = \"fv_secret\n").unwrap();
        let failure = Config::load_from(&path).unwrap_err();
        assert!(
            !failure.report.message.contains("secret"),
            "{}",
            failure.report.message
        );
    }
}
