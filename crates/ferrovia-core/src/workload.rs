//! What an engine is asked to run, and what it says that it runs.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, EnvironmentId, InstanceId, ProjectId, ReplicaId, ServiceId};
use crate::name::Name;
use crate::secret::Secret;
use crate::settings::Resources;

/// Whose workload this is: names for people, ids for the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The project's id.
    pub project_id: ProjectId,
    /// The project's name when the deployment was made.
    pub project: Name,
    /// The environment's id.
    pub environment_id: EnvironmentId,
    /// The environment's name when the deployment was made.
    pub environment: Name,
    /// The service's id.
    pub service_id: ServiceId,
    /// The service's name when the deployment was made.
    pub service: Name,
    /// The instance's id.
    pub instance_id: InstanceId,
    /// The deployment's id.
    pub deployment_id: DeploymentId,
    /// The deployment's number in its instance: `v12`.
    pub number: u32,
}

/// One deployment's desired run. It is applied, observed and removed as a whole.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Whose it is.
    pub owner: Owner,
    /// The image, by digest, in the platform's own registry.
    pub image: ImageReference,
    /// Replaces the image's command and entry point; an argument list, no shell.
    pub command: Option<Vec<String>>,
    /// Environment variables, in order; values are taken literally.
    pub variables: Vec<(String, Secret)>,
    /// Limits of each replica.
    pub resources: Resources,
    /// Volumes and where they are mounted.
    pub mounts: Vec<Mount>,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub stop_grace_ms: u32,
    /// HMAC over everything above except what only the number of replicas changes, in hex.
    pub spec_hash: String,
    /// The copies that should exist.
    pub replicas: Vec<ReplicaSlot>,
}

/// One copy that should exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSlot {
    /// Its id, given before it exists.
    pub id: ReplicaId,
    /// Its place among the deployment's copies, from 1.
    pub ordinal: u32,
    /// Its address, on engines with static addresses.
    pub address: Option<Ipv4Addr>,
    /// The intent's restart nonce when it was made.
    pub restart_nonce: i64,
}

/// An image by digest: `127.0.0.1:7071/apps/PROJECT/NAME@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageReference {
    /// Host and port of the registry, and the repository in it.
    pub repository: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

impl std::fmt::Display for ImageReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

/// A volume in a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Directory on the host (or claim name on Kubernetes).
    pub source: String,
    /// Absolute path in the replica.
    pub target: String,
}

/// Whether the engine itself starts a replica again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineRestart {
    /// It stays down when it ends: while it is not yet proven, and while it drains.
    No,
    /// It is started again, after a restart of the engine or the host too.
    UnlessStopped,
}

/// A replica as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The engine's own id (the full container id on Docker): the only thing that stop and remove act on.
    pub handle: String,
    /// The engine's name for it: what `FERROVIA_REPLICA_ID` says.
    pub name: String,
    /// From its labels.
    pub replica_id: ReplicaId,
    /// From its labels.
    pub deployment_id: DeploymentId,
    /// From its labels.
    pub instance_id: InstanceId,
    /// From its labels.
    pub environment_id: EnvironmentId,
    /// Place among the deployment's copies, from 1.
    pub ordinal: u32,
    /// The hash it was created with.
    pub spec_hash: String,
    /// What it does.
    pub status: ReplicaStatus,
    /// Its address while it has one.
    pub address: Option<Ipv4Addr>,
    /// Start of its current or last run, in milliseconds since 1970; tells two runs at one address apart.
    pub started_at_ms: Option<i64>,
    /// How its last run ended, as long as the engine knows: while the engine is about to start it again, too.
    #[serde(default)]
    pub last_exit: Option<Exit>,
    /// How often the engine itself started it again.
    pub engine_restarts: u32,
    /// Whether the engine starts it again.
    pub restart: EngineRestart,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ReplicaStatus {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// The engine is about to start it again.
    Restarting,
    /// Its process ended.
    Exited(Exit),
    /// The engine is taking it away or cannot say.
    Dead,
}

/// How a replica's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Whether the kernel killed it for its memory limit.
    pub out_of_memory: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The engine's own words when it could not even start.
    pub error: Option<String>,
}
