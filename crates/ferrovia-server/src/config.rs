//! Configuration: flags and environment over one TOML file over defaults, resolved once.
//!
//! Every process of the platform takes the same flags and the same file, so that each also starts alone. What
//! processes need of each other they find under the run directory.

mod database;
mod file;
mod flags;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use ferrovia_core::network::AddressPlan;

pub use database::Database;
pub use file::{BuildFile, ConfigFile, EdgeFile, NetworkFile, RegistryFile};
pub use flags::{EngineKind, Flags};

/// Where data lies unless told otherwise.
const DEFAULT_DATA_DIR: &str = "/var/lib/ferrovia";
/// Where locks and sockets lie unless told otherwise.
const DEFAULT_RUN_DIR: &str = "/run/ferrovia";
/// The file that is read when there is one.
const DEFAULT_CONFIG: &str = "/etc/ferrovia/ferroviad.toml";
/// Longest path of a Unix socket in bytes, without the closing NUL (`sun_path`, unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Longest file name that is put under the run directory, in bytes.
const LONGEST_SOCKET_NAME_BYTES: usize = 32;

/// What the platform was told, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lies and who listens where.
    pub paths: Paths,
    /// Which PostgreSQL.
    pub database: Database,
    /// What runs replicas.
    pub engine: EngineKind,
    /// The Docker Engine's socket.
    pub docker_socket: PathBuf,
    /// API and panel.
    pub api_listen: SocketAddr,
    /// The registry; image names contain it.
    pub registry_listen: SocketAddr,
    /// Public HTTP.
    pub http_listen: SocketAddr,
    /// Generated host names end in it.
    pub apps_domain: String,
    /// Addresses of the private network.
    pub addresses: AddressPlan,
    /// The rest of the file.
    pub file: ConfigFile,
    /// The flags as they were given, to hand on to the other processes.
    flags: Flags,
}

/// A wrong configuration: which setting, why, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file `{path}` cannot be read: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file is not what is expected.
    #[error("the configuration file `{path}` is wrong: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A setting has a value that cannot be.
    #[error("`{setting}` is wrong: {why}")]
    Setting {
        /// Its flag or key.
        setting: &'static str,
        /// Why, and the remedy.
        why: String,
    },
}

impl Config {
    /// Reads the file, if there is one, and puts the flags over it.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting; nothing has been changed.
    pub fn load(mut flags: Flags) -> Result<Self, ConfigError> {
        // The other processes run in another directory than this one.
        if let Some(path) = &mut flags.config {
            *path = absolute("config", path)?;
        }
        let mut file = match &flags.config {
            _ if flags.resolved.is_some() => ConfigFile::default(),
            Some(path) => ConfigFile::read(path)?,
            None if Path::new(DEFAULT_CONFIG).exists() => ConfigFile::read(Path::new(DEFAULT_CONFIG))?,
            None => ConfigFile::default(),
        };
        for (name, flag, setting) in [
            (
                "build-extra-ca-file",
                &flags.build_extra_ca_file,
                &mut file.build.extra_ca_file,
            ),
            ("buildkit-dir", &flags.buildkit_dir, &mut file.build.buildkit_dir),
            ("build-seed-dir", &flags.build_seed_dir, &mut file.build.seed_dir),
        ] {
            if let Some(given) = flag.as_ref().or(setting.as_ref()) {
                *setting = Some(absolute(name, given)?);
            }
        }
        if flags.edge_workers.is_some() {
            file.edge.workers = flags.edge_workers;
        }
        let database = Database::of(
            (flags.database_url.clone(), flags.database_url_file.clone()),
            (file.database_url.take(), file.database_url_file.take()),
        )?;
        let data_dir = match flags.data_dir.as_ref().or(file.data_dir.as_ref()) {
            Some(given) => absolute("data-dir", given)?,
            None => PathBuf::from(DEFAULT_DATA_DIR),
        };
        let run_dir = match flags.run_dir.as_ref().or(file.run_dir.as_ref()) {
            Some(given) => absolute("run-dir", given)?,
            None if data_dir == Path::new(DEFAULT_DATA_DIR) => PathBuf::from(DEFAULT_RUN_DIR),
            None => PathBuf::from(format!(
                "{DEFAULT_RUN_DIR}-{}",
                short_hash(data_dir.as_os_str().as_encoded_bytes())
            )),
        };
        if run_dir.as_os_str().len() + LONGEST_SOCKET_NAME_BYTES > MAX_SOCKET_PATH_BYTES {
            return Err(ConfigError::Setting {
                setting: "run-dir",
                why: format!(
                    "`{}` is too long for the path of a socket; give a shorter directory",
                    run_dir.display()
                ),
            });
        }
        let api_listen = flags
            .api_listen
            .or(file.api_listen)
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7070)));
        let registry_listen = flags
            .registry_listen
            .or(file.registry_listen)
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7071)));
        for (setting, address) in [("api-listen", api_listen), ("registry-listen", registry_listen)] {
            if !address.ip().is_loopback() {
                return Err(ConfigError::Setting {
                    setting,
                    why: format!(
                        "{address} is not a loopback address, and plain HTTP beyond loopback is refused; use 127.0.0.1 and an SSH tunnel"
                    ),
                });
            }
        }
        let docker_host = flags
            .docker_host
            .clone()
            .or_else(|| file.docker_host.clone())
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let docker_socket = match docker_host.strip_prefix("unix://") {
            Some(path) => absolute("docker-host", Path::new(path))?,
            None => {
                return Err(ConfigError::Setting {
                    setting: "docker-host",
                    why: format!(
                        "`{docker_host}` is not a local Unix socket; use `unix:///var/run/docker.sock`"
                    ),
                });
            }
        };
        let apps_domain = flags
            .apps_domain
            .clone()
            .or_else(|| file.apps_domain.clone())
            .unwrap_or_else(|| "localhost".to_owned())
            .to_ascii_lowercase();
        check_domain(&apps_domain)?;
        let engine = flags.engine.or(file.engine).unwrap_or(EngineKind::Docker);
        Ok(Self {
            paths: Paths {
                data: data_dir,
                run: run_dir,
            },
            database,
            engine,
            docker_socket,
            api_listen,
            registry_listen,
            http_listen: flags
                .http_listen
                .or(file.http_listen)
                .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 80))),
            apps_domain,
            addresses: file
                .network
                .addresses
                .clone()
                .unwrap_or_else(|| engine.default_addresses()),
            file,
            flags,
        })
    }

    /// The arguments that give another process of the platform the same configuration. The database is not among
    /// them: only control is told, in its environment, since arguments can be read by every user of the host.
    pub fn arguments(&self) -> Vec<String> {
        self.flags.arguments(self)
    }

    /// The arguments that give the edge what it needs. It reads no file: it is not root, and there is nothing for it in
    /// a file that only root may read.
    pub fn edge_arguments(&self) -> Vec<String> {
        let mut arguments = flags::resolved(self);
        arguments.extend(flags::workers(self));
        arguments.push(format!("--resolved={}", self.hash()));
        arguments
    }

    /// A digest over everything that a process was configured with: two equal ones need no restart. The database is not
    /// in it: control, which alone knows it, is renewed with every `serve`.
    pub fn hash(&self) -> String {
        if let Some(hash) = &self.flags.resolved {
            return hash.clone();
        }
        let mut text = self.arguments().join("\u{0}");
        // Writing to a string does not fail.
        let _ = write!(text, "\u{0}{:?}", self.file);
        short_hash(text.as_bytes())
    }
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What must survive.
    pub data: PathBuf,
    /// Locks and sockets; may be lost at a reboot.
    pub run: PathBuf,
}

impl Paths {
    /// The socket on which control serves tables.
    pub fn tables_socket(&self) -> PathBuf {
        self.run.join("tables.sock")
    }
    /// The socket on which node serves observations.
    pub fn node_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }
    /// The directory of the edge's socket, which belongs to the edge's user.
    pub fn edge_run(&self) -> PathBuf {
        self.run.join("edge")
    }
    /// The socket on which the edge gives its listeners back and tells its figures.
    pub fn edge_socket(&self) -> PathBuf {
        self.edge_run().join("edge.sock")
    }
    /// The socket on which `serve` hands listeners to a starting edge.
    pub fn serve_socket(&self) -> PathBuf {
        self.run.join("serve.sock")
    }
    /// The API for root on this host.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }
    /// The fake engine's socket.
    pub fn fake_socket(&self) -> PathBuf {
        self.run.join("fake.sock")
    }
    /// What builds need while they run: sockets, secrets.
    pub fn build_run(&self) -> PathBuf {
        self.run.join("build")
    }
    /// Logs of applications and builds.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }
    /// Logs of the platform's own processes.
    pub fn process_logs(&self) -> PathBuf {
        self.data.join("log")
    }
    /// The master key of the secret envelopes.
    pub fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }
    /// The embedded PostgreSQL.
    pub fn postgres(&self) -> PathBuf {
        self.data.join("postgres")
    }
    /// The registry's blobs.
    pub fn registry(&self) -> PathBuf {
        self.data.join("registry")
    }
    /// Source trees.
    pub fn trees(&self) -> PathBuf {
        self.data.join("trees")
    }
    /// BuildKit's state.
    pub fn buildkit(&self) -> PathBuf {
        self.data.join("buildkit")
    }
    /// The edge's last good table; belongs to the edge's user.
    pub fn edge_data(&self) -> PathBuf {
        self.data.join("edge")
    }
    /// The node's last good table.
    pub fn node_data(&self) -> PathBuf {
        self.data.join("node")
    }
    /// Files that the engine mounts into replicas.
    pub fn engine_data(&self) -> PathBuf {
        self.data.join("engine")
    }
}

fn absolute(setting: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path)
        .map(|path| path.components().collect())
        .map_err(|error| ConfigError::Setting {
            setting,
            why: format!("`{}`: {error}", path.display()),
        })
}

fn check_domain(domain: &str) -> Result<(), ConfigError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() <= 180 && domain.split('.').all(label) {
        return Ok(());
    }
    Err(ConfigError::Setting {
        setting: "apps-domain",
        why: format!("`{domain}` is not a domain name; give one like `apps.example.com`"),
    })
}

/// Twelve hexadecimal digits of a SHA-256.
fn short_hash(bytes: &[u8]) -> String {
    hex::encode(&digest::digest(&digest::SHA256, bytes).as_ref()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_data_directory_gets_a_run_directory_of_its_own() {
        let load = |dir: &str| {
            Config::load(Flags {
                data_dir: Some(dir.into()),
                ..Flags::default()
            })
            .unwrap()
        };
        let (a, b) = (load("/srv/a"), load("/srv/b"));
        assert_ne!(a.paths.run, b.paths.run);
        assert_eq!(load("/srv/a/").paths.run, a.paths.run);
        assert_eq!(load(DEFAULT_DATA_DIR).paths.run, Path::new(DEFAULT_RUN_DIR));
    }

    #[test]
    fn the_other_processes_get_the_same_configuration() {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            flags: Flags,
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, "engine = \"docker\"\n[build]\nslots = 2\n").unwrap();
        // Every flag by name, so that a new one is thought of here.
        let given = Flags {
            data_dir: Some("/srv/x".into()),
            run_dir: Some("/srv/run".into()),
            config: Some(path),
            database_url: None,
            database_url_file: Some("/srv/url".into()),
            engine: Some(EngineKind::Fake),
            docker_host: Some("unix:///srv/docker.sock".to_owned()),
            api_listen: Some("127.0.0.1:8070".parse().unwrap()),
            registry_listen: Some("127.0.0.1:8071".parse().unwrap()),
            http_listen: Some("127.0.0.1:8080".parse().unwrap()),
            apps_domain: Some("apps.example".to_owned()),
            build_extra_ca_file: Some("/srv/ca.pem".into()),
            buildkit_dir: Some("/srv/buildkit".into()),
            build_seed_dir: Some("/srv/seed".into()),
            edge_workers: Some(2),
            resolved: None,
        };
        let first = Config::load(given).unwrap();
        let parsed = |arguments: Vec<String>| {
            let arguments = std::iter::once("ferroviad".to_owned()).chain(arguments);
            Config::load(Only::parse_from(arguments).flags).unwrap()
        };
        let second = parsed(first.arguments());
        assert_eq!(first.hash(), second.hash());
        assert_eq!(first.paths, second.paths);
        assert_eq!(parsed(second.edge_arguments()).hash(), first.hash());

        // The edge gets the same without the file, which it may not be able to read.
        let path = dir.path().join("g.toml");
        let text = "database_url_file = \"/srv/url\"\nhttp_listen = \"127.0.0.1:81\"\n[edge]\nworkers = 3\n";
        std::fs::write(&path, text).unwrap();
        let first = Config::load(Flags {
            config: Some(path.clone()),
            ..Flags::default()
        })
        .unwrap();
        assert_eq!(first.database, Database::File("/srv/url".into()));
        let arguments = first.edge_arguments();
        assert!(!arguments.iter().any(|argument| argument.contains("/srv/url")));
        std::fs::remove_file(path).unwrap();
        let edge = parsed(arguments);
        assert_eq!(first.hash(), edge.hash());
        assert_eq!((&first.paths, first.http_listen), (&edge.paths, edge.http_listen));
        assert_eq!(edge.file.edge.workers, Some(3));
        assert!(edge.database.is_private());
    }

    #[test]
    fn paths_are_meant_from_where_they_were_given() {
        let dir = tempfile::tempdir().unwrap();
        let up = "../".repeat(std::env::current_dir().unwrap().components().count() - 1);
        // From this process' directory to the temporary one; the other processes run in `/`.
        let relative =
            |name: &str| PathBuf::from(format!("{up}{}/{name}", &dir.path().to_str().unwrap()[1..]));
        let text = "data_dir = \"data\"\n[build]\nseed_dir = \"seed\"\n\
                    [registries.\"r.example\"]\npassword_file = \"password\"\n";
        std::fs::write(dir.path().join("f.toml"), text).unwrap();
        let config = Config::load(Flags {
            config: Some(relative("f.toml")),
            build_extra_ca_file: Some(relative("ca.pem")),
            buildkit_dir: Some("tools".into()),
            docker_host: Some("unix://docker.sock".to_owned()),
            ..Flags::default()
        })
        .unwrap();
        let arguments = config.arguments();
        for flag in [
            "--config=",
            "--build-extra-ca-file=",
            "--buildkit-dir=",
            "--docker-host=unix://",
        ] {
            let given = arguments.iter().find_map(|argument| argument.strip_prefix(flag));
            assert!(given.unwrap().starts_with('/'), "{arguments:?}");
        }
        // What stands in the file is meant from the file.
        let there = |path: &Path, name: &str| {
            assert!(path.is_absolute() && path.ends_with(name), "{}", path.display());
            assert_eq!(
                path.parent().unwrap().canonicalize().unwrap(),
                dir.path().canonicalize().unwrap()
            );
        };
        there(&config.paths.data, "data");
        there(config.file.build.seed_dir.as_ref().unwrap(), "seed");
        there(
            config.file.registries["r.example"]
                .password_file
                .as_ref()
                .unwrap(),
            "password",
        );
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = |flags| Config::load(flags).unwrap_err().to_string();
        let api = Flags {
            api_listen: Some("0.0.0.0:7070".parse().unwrap()),
            ..Flags::default()
        };
        assert!(error(api).contains("`api-listen` is wrong: 0.0.0.0:7070 is not a loopback address"));
        let docker = Flags {
            docker_host: Some("tcp://10.0.0.1:2375".to_owned()),
            ..Flags::default()
        };
        assert!(error(docker).contains("not a local Unix socket"));
        let domain = Flags {
            apps_domain: Some("-x.example".to_owned()),
            ..Flags::default()
        };
        assert!(error(domain).contains("not a domain name"));
    }
}
