//! What runs replicas: one trait, and the engines behind it.
//!
//! The only crate that speaks Docker. Nothing without our labels is ever touched. A call that timed out leaves the
//! state unknown ([`Error::Unknown`]): the caller observes again before it acts.

pub mod docker;
mod error;
pub mod fake;
mod naming;
#[cfg(test)]
mod sample;
mod socket;

use async_trait::async_trait;
use ferrovia_core::id::{DeploymentId, EnvironmentId, InstanceId};
use ferrovia_core::secret::Secret;
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, Workload};
use futures_util::stream::BoxStream;

pub use crate::error::Error;
pub use crate::naming::{MAX_REPLICA_NAME_BYTES, replica_name};

/// An engine: applies, observes and removes workloads. Every method is safe to call again.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What this engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Who answers, and whether it is fit to run workloads.
    async fn info(&self) -> Result<EngineInfo, Error>;

    /// What the engine knows of an image; `None` when it does not hold it.
    async fn find_image(&self, image: &ImageReference) -> Result<Option<ImageInfo>, Error>;

    /// Fetches an image from the platform's registry, unless it is there.
    async fn ensure_image(&self, image: &ImageReference, login: &RegistryLogin) -> Result<ImageInfo, Error>;

    /// The images of the platform's registry that the engine holds, by repository prefix.
    async fn images(&self, repository_prefix: &str) -> Result<Vec<ImageReference>, Error>;

    /// Takes an image away; one that is not there is success.
    ///
    /// # Errors
    /// [`Error::InUse`] while a replica is made of it, running or not.
    async fn remove_image(&self, image: &ImageReference) -> Result<(), Error>;

    /// Makes every slot of the workload exist and run, with restart policy `no` for new ones. A slot that exists with
    /// the same replica id and hash is started when it never was, and left as it is otherwise, whatever it does
    /// (`start` starts it again). Nothing is removed. The answer has one entry for each slot, in their order.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when a slot's name belongs to another replica; [`Error::Image`] when the engine does not
    /// hold the image; [`Error::CannotStart`] with a sentence for people. Slots before the failed one stay.
    async fn apply(&self, workload: &Workload) -> Result<Vec<Observed>, Error>;

    /// Makes the replicas exist without starting them: what can be done before an address is acknowledged. Errors as
    /// for `apply`.
    async fn prepare(&self, workload: &Workload) -> Result<Vec<Observed>, Error>;

    /// Everything with our labels in this scope, in one bulk call.
    async fn observe(&self, scope: Scope) -> Result<Vec<Observed>, Error>;

    /// One replica by its handle; `None` when it is gone.
    async fn find(&self, handle: &str) -> Result<Option<Observed>, Error>;

    /// Starts a replica that is created or exited; a running one is success.
    ///
    /// # Errors
    /// [`Error::Gone`] when it is not there; [`Error::CannotStart`] with a sentence for people.
    async fn start(&self, handle: &str) -> Result<(), Error>;

    /// Sets whether the engine starts a replica again; it does not start one that is down.
    ///
    /// # Errors
    /// [`Error::Gone`] when it is not there.
    async fn set_restart(&self, handle: &str, restart: EngineRestart) -> Result<(), Error>;

    /// SIGTERM, after `grace_ms` SIGKILL; one that does not run or is gone is success.
    async fn stop(&self, handle: &str, grace_ms: u32) -> Result<(), Error>;

    /// Takes a stopped replica away; one that is gone is success.
    ///
    /// # Errors
    /// [`Error::InUse`] while it runs.
    async fn remove(&self, handle: &str) -> Result<(), Error>;

    /// Hints that something changed: which deployment, not what. May lose some, may repeat; ends when the engine goes.
    async fn events(&self) -> Result<BoxStream<'static, Result<Hint, Error>>, Error>;

    /// Figures of one running replica; `None` when it does not run.
    async fn stats(&self, handle: &str) -> Result<Option<Stats>, Error>;

    /// Where the engine writes the replica's log, when `node` must read it from files.
    async fn log_file(&self, handle: &str) -> Result<Option<std::path::PathBuf>, Error>;

    /// The process id of the replica's first process on this host, for looking at its sockets.
    async fn process_id(&self, handle: &str) -> Result<Option<u32>, Error>;
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Replicas get the addresses that the platform allocated.
    pub static_addresses: bool,
    /// Replicas can be frozen.
    pub pause: bool,
    /// Listening sockets inside a replica can be seen from outside.
    pub socket_inspection: bool,
}

/// Who answers at the engine's socket.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EngineInfo {
    /// For people: `Docker 20.10.24`.
    pub name: String,
    /// API version in use: `1.41`.
    pub api_version: String,
    /// Whether containers go on when the engine itself stops.
    pub live_restore: bool,
    /// Processor architecture in OCI's words: `amd64`.
    pub architecture: String,
    /// What keeps it from running workloads as designed, in sentences with the remedy; empty when it is fit.
    pub problems: Vec<String>,
}

/// What is known of an image that the engine holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageInfo {
    /// TCP ports that it exposes.
    pub exposed_ports: Vec<u16>,
    /// Its entry point followed by its command.
    pub command: Vec<String>,
    /// The user that it runs as; empty is root.
    pub user: String,
    /// Size of its layers in bytes.
    pub size_bytes: u64,
}

/// How the engine signs in to the platform's registry.
#[derive(Debug, Clone)]
pub struct RegistryLogin {
    /// User name.
    pub user: String,
    /// Password or token.
    pub password: Secret,
}

/// Which replicas are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scope {
    /// Everything of this installation.
    All,
    /// Of one environment.
    Environment(EnvironmentId),
    /// Of one instance.
    Instance(InstanceId),
    /// Of one deployment.
    Deployment(DeploymentId),
}

/// Something changed for this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hint {
    /// Which instance; look again.
    pub instance_id: InstanceId,
}

/// Figures of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// CPU time used since its start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use without the page cache, in bytes.
    pub memory_bytes: u64,
    /// Its memory limit, in bytes.
    pub memory_limit_bytes: u64,
    /// Received since its start, in bytes.
    pub received_bytes: u64,
    /// Sent since its start, in bytes.
    pub sent_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}
