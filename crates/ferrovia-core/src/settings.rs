//! Settings of an instance and their defaults and bounds. A deployment keeps the ones it was made with.

use serde::{Deserialize, Serialize};

/// Port given to an application that names none (`PORT`).
pub const DEFAULT_PORT: u16 = 8080;
/// How long a new version may take to become healthy, in milliseconds.
pub const DEFAULT_START_DEADLINE_MS: u32 = 300_000;
/// How long an old version may finish what it has in hand, in milliseconds.
pub const DEFAULT_DRAIN_MS: u32 = 30_000;
/// Time between SIGTERM and SIGKILL, in milliseconds.
pub const DEFAULT_STOP_GRACE_MS: u32 = 10_000;
/// How long a service without a port must run to count as healthy, in milliseconds.
pub const PORTLESS_HEALTHY_AFTER_MS: u32 = 10_000;
/// Restarts by the platform while a deployment has not yet succeeded, after 1, 2 and 4 seconds.
pub const START_TRIES: u32 = 3;
/// Most replicas of one instance on one machine.
pub const MAX_REPLICAS: u32 = 100;

/// Everything that can be set for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the application listens.
    pub port: PortSetting,
    /// Path that must answer below 400 for a replica to be healthy; none: a TCP connect is enough.
    pub health_path: Option<String>,
    /// How long a new version may take to become healthy, in milliseconds.
    pub start_deadline_ms: u32,
    /// How long an old version may finish what it has in hand, in milliseconds.
    pub drain_ms: u32,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub stop_grace_ms: u32,
    /// What happens when a replica ends.
    pub restart: RestartPolicy,
    /// Limits of one replica.
    pub resources: Resources,
    /// Command that replaces the image's own, run by `/bin/sh -c`.
    pub start_command: Option<String>,
    /// How the image is made.
    pub build: BuildSettings,
    /// Whether replicas also get the variables under Railway's names.
    pub railway_variables: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: PortSetting::Auto,
            health_path: None,
            start_deadline_ms: DEFAULT_START_DEADLINE_MS,
            drain_ms: DEFAULT_DRAIN_MS,
            stop_grace_ms: DEFAULT_STOP_GRACE_MS,
            restart: RestartPolicy::default(),
            resources: Resources::default(),
            start_command: None,
            build: BuildSettings::default(),
            railway_variables: true,
        }
    }
}

/// Where an application listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortSetting {
    /// The image's only EXPOSE, else [`DEFAULT_PORT`].
    #[default]
    Auto,
    /// This one.
    Number(u16),
    /// Nowhere: no URL, no probe.
    None,
}

impl PortSetting {
    /// The port to probe and to send requests to, given the ports that the image exposes.
    pub fn resolve(self, exposed: &[u16]) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Number(port) => Some(port),
            Self::Auto => match exposed {
                [only] => Some(*only),
                _ => Some(DEFAULT_PORT),
            },
        }
    }
}

/// What happens when a replica of a deployment that had succeeded ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Started again whatever its exit code.
    Always,
    /// Started again unless it exited with 0, at most this often in a row.
    OnFailure {
        /// Crashes in a row after which it stays down.
        max_tries: u32,
    },
    /// Never started again.
    Never,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::OnFailure { max_tries: 10 }
    }
}

/// Limits of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory, in bytes; past it the kernel kills the replica.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Share of the CPU against other replicas when there is not enough (1 to 1,000, 100 is usual).
    pub cpu_weight: u32,
    /// Hard limit in thousandths of a core; none: what is idle may be used.
    pub cpu_quota_millis: Option<u32>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            memory_bytes: 512 * 1024 * 1024,
            pids: 1024,
            cpu_weight: 100,
            cpu_quota_millis: None,
        }
    }
}

/// How an image is made from source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildSettings {
    /// Which builder; none: a `Dockerfile` if there is one, else detection.
    pub builder: Option<BuilderKind>,
    /// Directory of the tree that is built, relative, `/`-separated.
    pub root_directory: Option<String>,
    /// Path of the Dockerfile, relative to the root directory.
    pub dockerfile: Option<String>,
    /// Stage of the Dockerfile to build.
    pub target: Option<String>,
    /// Command that replaces the detected install step.
    pub install_command: Option<String>,
    /// Command that replaces the detected build step.
    pub build_command: Option<String>,
    /// Forces a provider of detection: `node`, `python`, `go`, `rust`, `java`, `static`, `procfile`.
    pub provider: Option<String>,
    /// Variables marked "not secret" that are handed to the build as build arguments.
    pub arguments: Vec<String>,
}

/// What makes an image from source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuilderKind {
    /// The tree's own Dockerfile.
    Dockerfile,
    /// Detection, a plan and a rendered Dockerfile.
    Auto,
}
