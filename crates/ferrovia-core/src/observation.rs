//! What `node` sees of a replica, and what it tells control and edge.

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, InstanceId, ReplicaId};
use crate::workload::Exit;

/// What is known of one replica, with the time it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The replica.
    pub replica_id: ReplicaId,
    /// Its deployment.
    pub deployment_id: DeploymentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// The engine's id of the container.
    pub handle: String,
    /// Start of the run that was seen, in milliseconds since 1970; `None` before the first.
    pub started_at_ms: Option<i64>,
    /// What the probes say.
    pub health: Health,
    /// How its last run ended, if one did.
    pub last_exit: Option<Exit>,
    /// Runs that ended since it was last healthy for a minute.
    pub crashes: u32,
    /// Ports on which something listens inside, when it does not answer where it should: `127.0.0.1:3000`.
    pub listens_on: Vec<String>,
    /// What `GET /` answered once, beside a TCP probe.
    pub root_status: Option<u16>,
    /// Whether its log was read to the end after its last run ended: only then is the container removed.
    #[serde(default)]
    pub log_drained: bool,
    /// When this was seen, in milliseconds since 1970.
    pub seen_at_ms: i64,
}

impl Observation {
    /// Whether both say the same, whenever it was seen.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        *self
            == Self {
                seen_at_ms: self.seen_at_ms,
                ..other.clone()
            }
    }
}

/// What the probes say of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health", rename_all = "snake_case")]
pub enum Health {
    /// It does not run.
    Down,
    /// It runs and has not yet answered.
    Starting {
        /// What the last probe met: `connection refused`, or what became of [`asked`].
        last: Option<String>,
    },
    /// It answers.
    Healthy {
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
    /// It answered once and does not any more.
    Unhealthy {
        /// What the last probe met.
        why: String,
    },
}

impl Health {
    /// Whether requests may be sent to it.
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy { .. })
    }
}

/// What one running replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The replica.
    pub replica_id: ReplicaId,
    /// The run: its start, in milliseconds since 1970. Sums begin with it.
    pub started_at_ms: Option<i64>,
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
    /// When this was read, in milliseconds since 1970.
    pub read_at_ms: i64,
}

/// Requests or connections open towards one replica, as an edge or a node counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The replica.
    pub replica_id: ReplicaId,
    /// How many are open.
    pub open: u32,
}

/// The request of a probe, as it is named in what the probe met: `` `GET /health` ``.
pub fn asked(path: &str) -> String {
    format!("`GET {path}`")
}

/// Whether a probe's request was taken by something that listens, whatever it answered.
pub fn was_asked(met: &str) -> bool {
    met.contains("`GET ")
}
