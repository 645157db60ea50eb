//! An instance: a service in an environment, what is wanted of it and what is seen of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::deployment::Deployment;
use crate::settings::Settings;
use crate::{Named, Report};

/// A service in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: Named,
    /// Its environment.
    pub environment: Named,
    /// Its service.
    pub service: Named,
    /// What is set for it; new deployments take it over.
    pub settings: Settings,
    /// What should run.
    pub intent: Intent,
    /// What was last seen of it.
    pub observed: Observed,
    /// Where it answers; null for a service without a port.
    pub url: Option<String>,
    /// Its name inside its environment.
    pub private_domain: String,
    /// Its newest deployment.
    pub latest: Option<Deployment>,
    /// The deployment that should run, when that is not the newest.
    pub running: Option<Deployment>,
    /// What an operator should know: it is held, it waits, it crashes.
    pub notes: Vec<Report>,
}

/// A page of instances, by the service's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The instances.
    pub items: Vec<Instance>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// What should run of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Intent {
    /// The deployment that should run; null before the first and after `down`.
    pub target_deployment_id: Option<Uuid>,
    /// Copies of it.
    pub replicas: u32,
    /// Put to sleep: no replica runs until a request comes.
    pub asleep: bool,
    /// An operator holds it: the platform keeps off.
    pub held: bool,
    /// Grows with every change.
    pub generation: i64,
}

/// What was last seen, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observed {
    /// The sum of its replicas.
    pub state: State,
    /// When that was seen; null when nothing was.
    pub observed_at: Option<Timestamp>,
    /// How long ago that was when this was answered, in milliseconds.
    pub age_ms: Option<u64>,
    /// Each replica.
    pub replicas: Vec<ObservedReplica>,
}

/// What was last seen of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObservedReplica {
    /// Its id.
    pub id: Uuid,
    /// Number of its deployment.
    pub deployment_number: u32,
    /// Place among the deployment's copies, from 1.
    pub ordinal: u32,
    /// What it does.
    pub state: State,
    /// Why it is not healthy, as far as is known: how its last run ended, what the last probe met.
    pub why: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// Start of its current run.
    pub started_at: Option<Timestamp>,
    /// Runs that ended since it was last healthy for a minute.
    pub crashes: u32,
    /// Exit code of its last run, when that ended.
    pub last_exit_code: Option<i32>,
    /// Whether the kernel killed its last run for its memory limit.
    pub out_of_memory: bool,
}

/// What was last observed of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its replicas run and have not yet answered.
    Starting,
    /// Every wanted replica answers.
    Healthy,
    /// A replica that is in the routes does not answer as it should, or is down.
    Unhealthy,
    /// A replica ends again and again.
    CrashLooping,
    /// Put to sleep; the next request wakes it.
    Sleeping,
    /// No replica is wanted, or none runs.
    Stopped,
    /// Nothing has been heard for too long.
    Unknown,
}

/// How many copies should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Copies; 0 stops it without forgetting what ran.
    #[schema(maximum = 100)]
    pub replicas: u32,
}
