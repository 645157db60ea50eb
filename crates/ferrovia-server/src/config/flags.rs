//! The flags that every process of the platform takes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ferrovia_core::network::AddressPlan;
use ferrovia_core::secret::Secret;
use ferrovia_engine::fake;
use serde::Deserialize;

use super::Config;

/// What runs replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Docker Engine on this host.
    Docker,
    /// Nothing real: for demonstrations, work on the panel and tests of faults.
    Fake,
}

impl EngineKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Fake => "fake",
        }
    }

    /// The addresses of replicas unless the file says otherwise: the fake engine's are the host's own.
    pub(super) fn default_addresses(self) -> AddressPlan {
        match self {
            Self::Docker => AddressPlan::default(),
            Self::Fake => fake::address_plan(fake::ADDRESS_BLOCK),
        }
    }
}

/// Flags, each also an environment variable.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Where everything lies that must survive [default: /var/lib/ferrovia]
    #[arg(long, env = "FERROVIA_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Locks and sockets [default: /run/ferrovia, with a hash for another data directory]
    #[arg(long, env = "FERROVIA_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/ferrovia/ferroviad.toml when there]
    #[arg(long, env = "FERROVIA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// PostgreSQL elsewhere; one with a password is better given by file [default: a private one under the data
    /// directory]
    #[arg(
        long,
        env = "FERROVIA_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text))
    )]
    pub database_url: Option<Secret>,
    /// File with the URL of PostgreSQL elsewhere, which only root may read; only `control` reads it
    #[arg(long, env = "FERROVIA_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// What runs replicas [default: docker]
    #[arg(long, env = "FERROVIA_ENGINE", value_name = "ENGINE")]
    pub engine: Option<EngineKind>,
    /// Local socket of the Docker Engine [default: unix:///var/run/docker.sock]
    #[arg(long, env = "FERROVIA_DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<String>,
    /// API and panel; loopback only [default: 127.0.0.1:7070]
    #[arg(long, env = "FERROVIA_API_LISTEN", value_name = "ADDRESS")]
    pub api_listen: Option<SocketAddr>,
    /// Registry; image names contain it [default: 127.0.0.1:7071]
    #[arg(long, env = "FERROVIA_REGISTRY_LISTEN", value_name = "ADDRESS")]
    pub registry_listen: Option<SocketAddr>,
    /// Public HTTP [default: 0.0.0.0:80]
    #[arg(long, env = "FERROVIA_HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
    /// Generated host names end in it [default: localhost]
    #[arg(long, env = "FERROVIA_APPS_DOMAIN", value_name = "DOMAIN")]
    pub apps_domain: Option<String>,
    /// Certificate authority that builds trust as well, a PEM file [default: none]
    #[arg(long, env = "FERROVIA_BUILD_EXTRA_CA_FILE", value_name = "FILE")]
    pub build_extra_ca_file: Option<PathBuf>,
    /// Directory with `buildkitd` and `buildctl`, looked at before `PATH`
    #[arg(long, env = "FERROVIA_BUILDKIT_DIR", value_name = "DIR")]
    pub buildkit_dir: Option<PathBuf>,
    /// Directory of base images made on this machine, shared with other installations on it [default: none]
    #[arg(long, env = "FERROVIA_BUILD_SEED_DIR", value_name = "DIR")]
    pub build_seed_dir: Option<PathBuf>,
    /// Threads of the edge
    #[arg(long, value_name = "N", hide = true)]
    pub edge_workers: Option<usize>,
    /// Everything is in the arguments and no file is read; the digest of what they were taken from
    #[arg(long, value_name = "DIGEST", hide = true)]
    pub resolved: Option<String>,
}

impl Flags {
    /// The resolved configuration as arguments; the file by its path, so that it is read again.
    pub(super) fn arguments(&self, config: &Config) -> Vec<String> {
        let mut arguments = resolved(config);
        let optional = [
            ("config", &self.config),
            ("build-extra-ca-file", &config.file.build.extra_ca_file),
            ("buildkit-dir", &config.file.build.buildkit_dir),
            ("build-seed-dir", &config.file.build.seed_dir),
        ];
        arguments.extend(
            optional
                .iter()
                .filter_map(|(flag, path)| path.as_ref().map(|path| format!("--{flag}={}", text(path)))),
        );
        arguments.extend(workers(config));
        arguments
    }
}

/// The edge's threads, when they were given. They are configuration of every process: each has the same digest.
pub(super) fn workers(config: &Config) -> Option<String> {
    let workers = config.file.edge.workers;
    workers.map(|workers| format!("--edge-workers={workers}"))
}

/// The settings that are flags and have no place in the file but the top.
pub(super) fn resolved(config: &Config) -> Vec<String> {
    vec![
        format!("--data-dir={}", text(&config.paths.data)),
        format!("--run-dir={}", text(&config.paths.run)),
        format!("--engine={}", config.engine.as_str()),
        format!("--docker-host=unix://{}", text(&config.docker_socket)),
        format!("--api-listen={}", config.api_listen),
        format!("--registry-listen={}", config.registry_listen),
        format!("--http-listen={}", config.http_listen),
        format!("--apps-domain={}", config.apps_domain),
    ]
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
