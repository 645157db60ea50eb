//! What the planner sees: rows, containers, observations and readers, at one moment.

use std::net::Ipv4Addr;

use super::readers::Readers;
use crate::error::Report;
use crate::id::{DeploymentId, ReplicaId};
use crate::intent::Intent;
use crate::observation::Observation;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::workload::Observed;

/// Everything that is known of one instance.
#[derive(Debug, Clone)]
pub struct View {
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// Whether the instance or something above it is deleted.
    pub deleted: bool,
    /// What should run.
    pub intent: Intent,
    /// The deployments that matter: the target, those that have not ended, those with replicas.
    pub attempts: Vec<Attempt>,
    /// Every replica row of the instance. Read **after** the containers: a container without a row has then no
    /// owner, since a row is there before its container and goes after it.
    pub replicas: Vec<Replica>,
    /// The instance's containers; `None` when the engine could not be asked.
    pub containers: Option<Vec<Observed>>,
    /// What nodes say.
    pub observations: Vec<Observation>,
    /// Edges and nodes, and what they have acknowledged.
    pub readers: Readers,
    /// What engine calls of this or an earlier pass met.
    pub problems: Vec<Problem>,
}

/// A deployment, as far as cut-over needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: DeploymentId,
    /// Its number in the instance.
    pub number: u32,
    /// How far it has come.
    pub outcome: Outcome,
    /// The settings it was made with.
    pub settings: Settings,
    /// Where it listens; `None` for a service without a port, and before the image is known.
    pub port: Option<u16>,
    /// How its build stands.
    pub build: BuildStanding,
    /// Whether the engine holds its image.
    pub image: ImageStanding,
    /// Somebody wants it to end.
    pub cancel_requested: bool,
    /// When it became `deploying`, in milliseconds since 1970.
    pub deploy_started_ms: Option<i64>,
}

/// How a deployment's build stands.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildStanding {
    /// It waits for its turn.
    Waiting,
    /// It runs.
    Running,
    /// The image exists.
    Succeeded,
    /// There is no image, and why.
    Failed(Report),
    /// Somebody stopped it.
    Cancelled,
}

/// Whether the engine holds a deployment's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageStanding {
    /// Nobody looked.
    Unknown,
    /// It is on its way.
    Fetching,
    /// It is there.
    Ready,
    /// It could not be fetched.
    Failed {
        /// The engine's words.
        why: String,
        /// When, in milliseconds since 1970.
        at_ms: i64,
        /// How often it was tried.
        tries: u32,
    },
}

/// A replica row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// Its deployment.
    pub deployment_id: DeploymentId,
    /// Its place among the deployment's copies, from 1.
    pub ordinal: u32,
    /// Its address, which no other row has.
    pub address: Ipv4Addr,
    /// The intent's restart nonce when it was made.
    pub restart_nonce: i64,
    /// Where in its life it is.
    pub phase: Phase,
    /// Revision of the tables in which the phase took effect.
    pub phase_revision: u64,
    /// When the phase began, in milliseconds since 1970.
    pub phase_ms: i64,
    /// Start of the run that was healthy when it entered the routes, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// Restarts by the platform.
    pub tries: u32,
    /// When the next restart by the platform is due, in milliseconds since 1970.
    pub next_try_ms: Option<i64>,
}

/// Where in its life a replica is. It goes forward only, but for `serving` back to `starting` (it went away or does
/// not answer any more before its deployment succeeded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its address enters the nodes' tables; its container may exist but does not run.
    Admitting,
    /// It is started and has not yet answered.
    Starting,
    /// It is in the routes.
    Serving,
    /// It is out of the routes and ends what it has in hand.
    Draining,
    /// Nothing uses it; its container goes.
    Stopping,
    /// Its container is gone; its address leaves the tables.
    Leaving,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] = [
        Self::Admitting,
        Self::Starting,
        Self::Serving,
        Self::Draining,
        Self::Stopping,
        Self::Leaving,
    ];

    /// The word used in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitting => "admitting",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Leaving => "leaving",
        }
    }

    /// The phase of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Whether the replica is meant to run on.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Admitting | Self::Starting | Self::Serving)
    }
}

/// What an engine call met, kept in memory until it works: only for reports and for waiting longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The engine cannot start this replica as asked.
    CannotStart {
        /// Which.
        replica: ReplicaId,
        /// The engine's words.
        why: String,
        /// When, in milliseconds since 1970.
        at_ms: i64,
    },
    /// A call failed otherwise.
    Engine {
        /// The error's words.
        why: String,
    },
}
