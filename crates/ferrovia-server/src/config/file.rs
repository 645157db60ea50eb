//! The configuration file. An unknown key is an error: a mistyped setting must not be a silent default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ferrovia_core::network::AddressPlan;
use ferrovia_core::secret::Secret;
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, EngineKind, database};

/// The whole file. A relative path in it starts at its own directory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// As `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// As `--run-dir`.
    pub run_dir: Option<PathBuf>,
    /// As `--database-url`. A file that says it must be closed to everybody but its owner.
    #[serde(deserialize_with = "secret")]
    pub database_url: Option<Secret>,
    /// As `--database-url-file`.
    pub database_url_file: Option<PathBuf>,
    /// As `--engine`.
    pub engine: Option<EngineKind>,
    /// As `--docker-host`.
    pub docker_host: Option<String>,
    /// As `--api-listen`.
    pub api_listen: Option<SocketAddr>,
    /// As `--registry-listen`.
    pub registry_listen: Option<SocketAddr>,
    /// As `--http-listen`.
    pub http_listen: Option<SocketAddr>,
    /// As `--apps-domain`.
    pub apps_domain: Option<String>,
    /// The private network.
    pub network: NetworkFile,
    /// Builds.
    pub build: BuildFile,
    /// Public traffic.
    pub edge: EdgeFile,
    /// Registries that images come from, by host name: `[registries."docker.io"]`.
    pub registries: BTreeMap<String, RegistryFile>,
}

/// `[network]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkFile {
    /// The address ranges of the private network.
    pub addresses: Option<AddressPlan>,
    /// Private ranges outside that applications and builds may reach; closed otherwise.
    pub open: Vec<Ipv4Net>,
}

/// `[build]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildFile {
    /// Builds that run at the same time.
    pub slots: u32,
    /// Memory of all builds together, in bytes; none: half of the host's.
    pub memory_bytes: Option<u64>,
    /// Processor time of all builds together, in thousandths of a core; none: all but half a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads of all builds together.
    pub pids: u32,
    /// Longest build, in seconds.
    pub timeout_s: u32,
    /// Room for caches, in bytes.
    pub cache_bytes: u64,
    /// A certificate authority that builds trust as well: a PEM file, handed in as a secret, never part of an image.
    pub extra_ca_file: Option<PathBuf>,
    /// Directory with `buildkitd` and `buildctl`, looked at before `PATH`.
    pub buildkit_dir: Option<PathBuf>,
    /// Directory of base images that were made on this machine, shared with other installations on it.
    pub seed_dir: Option<PathBuf>,
}

impl Default for BuildFile {
    fn default() -> Self {
        Self {
            slots: 1,
            memory_bytes: None,
            cpu_millis: None,
            pids: 4096,
            timeout_s: 1800,
            cache_bytes: 10 * 1024 * 1024 * 1024,
            extra_ca_file: None,
            buildkit_dir: None,
            seed_dir: None,
        }
    }
}

/// `[edge]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeFile {
    /// Threads that serve; none: one per core.
    pub workers: Option<usize>,
    /// The user that the edge runs as; none: `ferrovia` if there is one, else `nobody`.
    pub user: Option<String>,
}

/// `[registries."HOST"]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryFile {
    /// Asked first, in order: `https://mirror.example.com`.
    pub mirrors: Vec<String>,
    /// User name for pulling.
    pub user: Option<String>,
    /// File with the password, readable by root only.
    pub password_file: Option<PathBuf>,
    /// Whether plain HTTP is meant.
    pub plain_http: bool,
}

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

impl ConfigFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file, and the line where the file itself is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |why: String| ConfigError::Read {
            path: path.to_owned(),
            why,
        };
        let metadata = std::fs::metadata(path).map_err(|error| read(error.to_string()))?;
        let size = metadata.len();
        if size > MAX_FILE_BYTES {
            return Err(read(format!("it has {size} bytes, more than {MAX_FILE_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| read(error.to_string()))?;
        let parse = |why: String| ConfigError::Parse {
            path: path.to_owned(),
            why,
        };
        let mut file: Self = toml::from_str(&text).map_err(|error| parse(explained(&text, &error)))?;
        if file.database_url.is_some() && database::is_open_to_others(&metadata) {
            return Err(parse(format!(
                "it holds `database_url` and can be read by others; run `chmod 600 {}`, or put the URL into a file of \
                 its own and name that as `database_url_file`",
                path.display()
            )));
        }
        let own = std::path::absolute(path).map_err(|error| read(error.to_string()))?;
        if let Some(directory) = own.parent() {
            file.start_at(directory);
        }
        Ok(file)
    }

    /// Every process reads the file, and each in a directory of its own.
    fn start_at(&mut self, directory: &Path) {
        let registries = self.registries.values_mut();
        let paths = [
            &mut self.data_dir,
            &mut self.run_dir,
            &mut self.database_url_file,
            &mut self.build.extra_ca_file,
            &mut self.build.buildkit_dir,
            &mut self.build.seed_dir,
        ];
        let paths = paths
            .into_iter()
            .chain(registries.map(|registry| &mut registry.password_file));
        for path in paths.flatten() {
            // An empty one is no path, and is refused by whoever needs it.
            if !path.as_os_str().is_empty() {
                *path = directory.join(&*path);
            }
        }
    }
}

/// Where and why, without the line itself, which may hold a password.
fn explained(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {}", before.matches('\n').count() + 1, error.message()),
        None => error.message().to_owned(),
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(from).map(|text| Some(Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, "[build]\nslotz = 3\n").unwrap();
        let error = ConfigFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: unknown field `slotz`"), "{error}");
    }

    #[test]
    fn a_password_is_in_no_error_and_no_debug_output() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        let url = "postgres://u:hunter2@h/d";
        let read = |text: String, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            ConfigFile::read(&path)
        };
        for (text, wanted) in [
            (
                format!("database_ulr = \"{url}\"\n"),
                "line 1: unknown field `database_ulr`",
            ),
            (format!("\ndatabase_url = \"{url}\n"), "line 2: "),
            (format!("database_url = [\"{url}\"]\n"), "line 1: invalid type"),
        ] {
            let error = read(text, 0o600).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
        let text = format!("database_url = \"{url}\"\n");
        for mode in [0o644, 0o640, 0o604] {
            let error = read(text.clone(), mode).unwrap_err().to_string();
            assert!(
                error.contains("chmod 600") && !error.contains("hunter2"),
                "{error}"
            );
        }
        let file = read(text, 0o600).unwrap();
        assert_eq!(file.database_url.as_ref().unwrap().expose(), url);
        assert!(!format!("{file:?}").contains("hunter2"));
        assert!(read("engine = \"fake\"\n".to_owned(), 0o644).is_ok());
    }
}
