//! Cut-over: what to do next for one instance, from everything that is known of it.
//!
//! A pure function from a [`View`] to a [`Plan`]. It keeps no memory: after a crash, a lost call or a changed intent
//! the next plan starts from what is seen then. The order that it keeps, whatever happens in between:
//!
//! new replicas' addresses acknowledged by the nodes -> started -> healthy -> in the routes, acknowledged by every
//! live edge and node (the deployment has succeeded) -> old replicas out of the routes, acknowledged -> nothing in
//! flight, or the drain's end -> stopped -> log read to its end -> container removed -> address out of the tables,
//! acknowledged -> the row goes and the address may be used again.
//!
//! Why the old ones stay named with weight 0 until the new ones are acknowledged: an edge that has the new table
//! sends to the new version only, one that has not sends to the old one, and both find somebody. Why `succeeded`
//! writes the target: a deployment that fails then changes nothing, and no path has to put anything back.
//!
//! Two rules about readers, on purpose not the same. A deployment has succeeded when every *connected* edge and node
//! serves it (at least one each): an absent edge must not block deploys. A replica stops, and its address is used
//! again, when also those that were seen in the last ten minutes have acknowledged, and the last one of each kind
//! always: an edge that cannot hear us may still be sending.
//!
//! Deliberately absent: the tables' own writing (`routes` computes rows, control writes them), fetching and retrying,
//! volumes (the old replica stops before the new one starts: another order, another planner).

mod attempts;
mod candidate;
mod failure;
mod readers;
mod reason;
mod replicas;
mod retire;
mod routes;
mod slots;
mod state;
mod view;

use crate::error::Report;
use crate::id::{DeploymentId, ReplicaId};
use crate::outcome::Outcome;
use crate::workload::EngineRestart;

pub use readers::{InFlightReport, Reader, Readers};
pub use reason::{QUIET_START_MS, reason, reason_without_replica};
pub use routes::{Place, TableRows, table_rows};
pub use state::{STATE_STALE_MS, Standing, standing};
pub use view::{Attempt, BuildStanding, ImageStanding, Phase, Problem, Replica, View};

/// An absent edge or node counts as gone after this; the last one of its kind never, in milliseconds.
pub const READER_GONE_AFTER_MS: i64 = 600_000;
/// Wait before the first restart by the platform; it doubles with each, in milliseconds.
pub const FIRST_TRY_DELAY_MS: i64 = 1_000;
/// Longest wait between two restarts of a replica whose deployment had succeeded, in milliseconds.
pub const MAX_TRY_DELAY_MS: i64 = 60_000;
/// After a drain's end the edge closes what is left in good order; the stop waits this much longer, in milliseconds.
pub const DRAIN_CLOSE_MS: i64 = 3_000;
/// How long the last words of a crashed replica are waited for before its deployment fails, in milliseconds.
pub const LAST_WORDS_MS: i64 = 3_000;
/// How long a success waits for the answer to `GET /` beside a TCP probe, in milliseconds.
pub const ROOT_ANSWER_MS: i64 = 500;
/// A container is removed although its log was not read to its end, when a connected node does not manage it for so
/// long, in milliseconds.
pub const LOG_DRAIN_MS: i64 = 600_000;
/// Wait between two attempts to fetch an image, in milliseconds.
pub const IMAGE_RETRY_MS: i64 = 5_000;
/// Attempts to fetch an image before its deployment fails.
pub const IMAGE_TRIES: u32 = 3;

/// What to do now, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Changes of rows: one transaction, before any action.
    pub changes: Vec<Change>,
    /// Calls to the engine, after the changes are committed; each may fail without harm.
    pub actions: Vec<Action>,
    /// When to look again if nothing happens before, in milliseconds since 1970.
    pub wake_at_ms: Option<i64>,
    /// What it waits for, for people.
    pub waiting: Vec<Waiting>,
}

/// A change of the rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The deployment's build runs: `queued` becomes `building`.
    Building(DeploymentId),
    /// The deployment's image exists: it becomes `deploying`, unless the image is condemned.
    Begin(DeploymentId),
    /// The deployment ends without success.
    End {
        /// Which.
        deployment: DeploymentId,
        /// `failed`, `cancelled` or `superseded`.
        outcome: Outcome,
        /// What people are told.
        report: Report,
        /// Whose last log lines belong to the report.
        last_words_of: Option<ReplicaId>,
    },
    /// The deployment has succeeded and is the target from now on.
    Succeed {
        /// Which.
        deployment: DeploymentId,
        /// What should be told although it succeeded.
        warnings: Vec<Report>,
    },
    /// A new replica in phase `admitting`, with an address that no row has.
    Allocate {
        /// Its deployment.
        deployment: DeploymentId,
        /// Its place among the deployment's copies.
        ordinal: u32,
        /// The intent's restart nonce.
        restart_nonce: i64,
    },
    /// A replica enters a phase; the tables follow in the same transaction.
    Move {
        /// Which.
        replica: ReplicaId,
        /// Where to.
        to: Phase,
        /// Start of the run that was healthy, when it enters the routes.
        started_at_ms: Option<i64>,
    },
    /// The count of restarts by the platform, and when the next one is due.
    Tries {
        /// Which.
        replica: ReplicaId,
        /// Restarts so far.
        tries: u32,
        /// When the next one is due, in milliseconds since 1970.
        next_try_ms: Option<i64>,
    },
    /// The replica's row goes: its address may be used again.
    Release(ReplicaId),
}

/// A call to the engine. None of them is needed twice, all of them may be made twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have the deployment's image on the engine; may take long, so it does not block the other actions.
    FetchImage(DeploymentId),
    /// Create the containers of these replicas without starting them.
    Prepare {
        /// Their deployment.
        deployment: DeploymentId,
        /// Which.
        replicas: Vec<ReplicaId>,
    },
    /// Start a container.
    Start {
        /// Whose.
        replica: ReplicaId,
        /// The engine's id of the container.
        handle: String,
    },
    /// Set whether the engine starts it again.
    SetRestart {
        /// The engine's id of the container.
        handle: String,
        /// What it should do.
        restart: EngineRestart,
    },
    /// Stop a container; may take the whole grace, so it does not block the other actions.
    Stop {
        /// The engine's id of the container.
        handle: String,
        /// Time between SIGTERM and SIGKILL, in milliseconds.
        grace_ms: u32,
    },
    /// Remove a container that does not run.
    Remove {
        /// The engine's id of the container.
        handle: String,
    },
}

/// What a plan waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// An operator holds the instance.
    Held,
    /// The engine does not answer.
    Engine,
    /// The image comes to the engine.
    Image(DeploymentId),
    /// Nodes do not yet know the address.
    Admission(ReplicaId),
    /// It has not yet answered.
    Health(ReplicaId),
    /// Edges or nodes do not yet serve the new version.
    Acknowledgement(DeploymentId),
    /// Requests are in flight, or edges and nodes have not yet taken it out of their routes.
    Drain(ReplicaId),
    /// Its process ends.
    Exit(ReplicaId),
    /// Its log is read to the end.
    Log(ReplicaId),
    /// Edges or nodes may still know its address.
    Address(ReplicaId),
}

/// What to do next for the instance. A plan that changes nothing and acts on nothing is the fixed point: the same
/// view gives it again.
pub fn plan(view: &View) -> Plan {
    replicas::Pass::new(view).run()
}
