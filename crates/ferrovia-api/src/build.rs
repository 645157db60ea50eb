//! Builds: source tree, plan and base images turned into an image.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Report;
use crate::deployment::DeploymentSource;

/// Source turned into an image; feeds one or more deployments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Build {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project_id: Uuid,
    /// The service it is for.
    pub service_id: Uuid,
    /// What it is made from.
    pub source: DeploymentSource,
    /// `dockerfile`, `auto` or `image`, once it is planned.
    pub builder: Option<String>,
    /// The plan, once there is one: what will be installed, built and started, and why.
    #[schema(value_type = Option<Object>)]
    pub plan: Option<serde_json::Value>,
    /// How far it has come, or how it ended.
    pub outcome: BuildOutcome,
    /// Why it failed.
    pub error: Option<Report>,
    /// What should be known although it went on.
    pub warnings: Vec<Report>,
    /// Digest of its image.
    pub image: Option<String>,
    /// Whether an equal image was found and nothing was built.
    pub reused: bool,
    /// The build that made the image, when that was an earlier one: its log tells how.
    pub made_by: Option<Uuid>,
    /// Builds that are before it in the queue, while it waits.
    pub queue_position: Option<u32>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How far a build has come, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildOutcome {
    /// It waits for its turn.
    Queued,
    /// It runs.
    Building,
    /// There is an image.
    Succeeded,
    /// There is none; `error` says why.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}
