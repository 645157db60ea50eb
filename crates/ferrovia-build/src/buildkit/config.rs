//! The daemon's configuration file: pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What the daemon is told.
#[derive(Debug, Clone)]
pub struct DaemonConfig<'a> {
    /// Where it keeps its cache.
    pub root: &'a Path,
    /// Its socket.
    pub socket: &'a Path,
    /// Who answers names in steps.
    pub dns: &'a [Ipv4Addr],
    /// The CNI configuration of steps.
    pub conflist: &'a Path,
    /// Where the CNI plugins are.
    pub cni_directory: &'a Path,
    /// The control group of steps.
    pub cgroup_parent: &'a str,
    /// Most steps that run at a time.
    pub parallel_steps: u32,
    /// What the cache may take of the disk, in bytes.
    pub cache_bytes: u64,
    /// The platform's registry.
    pub registry: SocketAddr,
    /// Other registries.
    pub upstreams: &'a [Upstream],
}

/// A registry outside, as far as BuildKit must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its host, and its port when it has one.
    pub host: String,
    /// Asked first, in order: `HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Whether it speaks HTTP without TLS.
    pub plain_http: bool,
}

/// How long what was not used is kept at least, as the daemon writes times.
const KEEP_SOURCES: &str = "168h";
/// Builds that the daemon remembers: none, since it would keep their logs as they were written, secrets and all.
const HISTORY_ENTRIES: u32 = 0;
/// How long signing in to a registry may take.
const AUTH_TIMEOUT: &str = "30s";

#[derive(Serialize)]
struct File<'a> {
    root: &'a Path,
    grpc: Grpc,
    otel: Otel,
    dns: Dns<'a>,
    cdi: Switch,
    history: History,
    worker: Worker<'a>,
    frontend: BTreeMap<&'static str, Enabled>,
    system: System,
    registry: BTreeMap<String, Registry>,
}

#[derive(Serialize)]
struct Grpc {
    address: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Otel {
    socket_path: PathBuf,
}

#[derive(Serialize)]
struct Dns<'a> {
    nameservers: &'a [Ipv4Addr],
}

#[derive(Serialize)]
struct Switch {
    disabled: bool,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    max_entries: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct System {
    session_auth_timeout: &'static str,
}

#[derive(Serialize)]
struct Worker<'a> {
    oci: Oci<'a>,
    containerd: Enabled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Oci<'a> {
    enabled: bool,
    snapshotter: &'static str,
    network_mode: &'static str,
    cni_config_path: &'a Path,
    cni_binary_path: &'a Path,
    cni_pool_size: u32,
    default_cgroup_parent: &'a str,
    #[serde(rename = "max-parallelism")]
    max_parallelism: u32,
    gc: bool,
    gcpolicy: [Policy; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_duration: Option<&'static str>,
    filters: Vec<&'static str>,
    reserved_space: u64,
    max_used_space: u64,
}

#[derive(Serialize)]
struct Registry {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<String>,
    http: bool,
}

impl DaemonConfig<'_> {
    /// The file's text.
    pub fn render(&self) -> Result<String, toml::ser::Error> {
        let mut registry = BTreeMap::new();
        for upstream in self.upstreams {
            let entry = Registry {
                mirrors: upstream.mirrors.clone(),
                http: upstream.plain_http,
            };
            registry.insert(upstream.host.clone(), entry);
        }
        let own = Registry {
            mirrors: Vec::new(),
            http: true,
        };
        registry.insert(self.registry.to_string(), own);
        let directory = self.socket.parent().unwrap_or(Path::new("/"));
        toml::to_string(&File {
            root: self.root,
            grpc: Grpc {
                address: [format!("unix://{}", self.socket.display())],
            },
            otel: Otel {
                socket_path: directory.join("otel.sock"),
            },
            dns: Dns {
                nameservers: self.dns,
            },
            cdi: Switch { disabled: true },
            history: History {
                max_entries: HISTORY_ENTRIES,
            },
            worker: Worker {
                oci: self.oci(),
                containerd: Enabled { enabled: false },
            },
            // A frontend that is an image would run whatever somebody pushed, as part of the daemon's own work.
            frontend: BTreeMap::from([("gateway.v0", Enabled { enabled: false })]),
            system: System {
                session_auth_timeout: AUTH_TIMEOUT,
            },
            registry,
        })
    }

    fn oci(&self) -> Oci<'_> {
        Oci {
            enabled: true,
            snapshotter: "auto",
            network_mode: "cni",
            cni_config_path: self.conflist,
            cni_binary_path: self.cni_directory,
            cni_pool_size: 0,
            default_cgroup_parent: self.cgroup_parent,
            max_parallelism: self.parallel_steps,
            gc: true,
            gcpolicy: [
                Policy {
                    all: false,
                    keep_duration: Some(KEEP_SOURCES),
                    filters: vec!["type==source.local,type==source.git.checkout"],
                    reserved_space: 0,
                    max_used_space: self.cache_bytes / 8,
                },
                Policy {
                    all: true,
                    keep_duration: None,
                    filters: Vec::new(),
                    reserved_space: 0,
                    max_used_space: self.cache_bytes,
                },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_the_daemon_needs() {
        let upstreams = [Upstream {
            host: "docker.io".into(),
            mirrors: vec!["mirror.example.com".into()],
            plain_http: false,
        }];
        let text = DaemonConfig {
            root: Path::new("/var/lib/ferrovia/buildkit/root"),
            socket: Path::new("/run/ferrovia/buildkit/buildkitd.sock"),
            dns: &[Ipv4Addr::new(10, 212, 0, 1)],
            conflist: Path::new("/run/ferrovia/buildkit/cni.conflist"),
            cni_directory: Path::new("/usr/lib/cni"),
            cgroup_parent: "ferrovia-builds",
            parallel_steps: 2,
            cache_bytes: 8_000_000_000,
            registry: SocketAddr::from(([127, 0, 0, 1], 7071)),
            upstreams: &upstreams,
        }
        .render()
        .unwrap();
        insta::assert_snapshot!(text);
    }
}
