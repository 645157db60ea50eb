//! Deployments: immutable attempts to run an instance.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::instance::State;
use crate::settings::SettingsPatch;
use crate::{Named, Report};

/// One immutable attempt to run an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// Its number in the instance: `v12`.
    pub number: u32,
    /// Its instance.
    pub instance_id: Uuid,
    /// Its project.
    pub project: Named,
    /// Its environment.
    pub environment: Named,
    /// Its service.
    pub service: Named,
    /// What made its image.
    pub build_id: Uuid,
    /// How far it has come, or how it ended.
    pub outcome: Outcome,
    /// Why it ended, when it did not succeed.
    pub error: Option<Report>,
    /// What should be known although it went on.
    pub warnings: Vec<Report>,
    /// What was last seen of what it runs.
    pub state: State,
    /// What it waits for, while it waits.
    pub waits_for: Option<String>,
    /// Why what it runs is not healthy, as soon as it is known and while it has not failed for it.
    pub reason: Option<Report>,
    /// Where it answers; null for a service without a port.
    pub url: Option<String>,
    /// Digest of its image, once there is one.
    pub image: Option<String>,
    /// Where its source came from, as far as it is known.
    pub git: GitInfo,
    /// How long its steps took.
    pub durations_ms: Durations,
    /// Whether somebody asked to stop it.
    pub cancel_requested: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A page of deployments, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentList {
    /// The deployments.
    pub items: Vec<Deployment>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// How far an attempt has come, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted; nothing has been done.
    Queued,
    /// Its image is being built or fetched.
    Building,
    /// Its replicas are being started and taken into the tables.
    Deploying,
    /// Healthy, and every live edge and node serves it.
    Succeeded,
    /// It ended without success; `error` says why.
    Failed,
    /// Somebody stopped it before its end.
    Cancelled,
    /// A newer attempt took its place before its end.
    Superseded,
}

/// How long the steps of a deployment took, in milliseconds; null while not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Durations {
    /// Sending the source.
    pub upload: Option<u64>,
    /// Waiting for its turn.
    pub queue: Option<u64>,
    /// Making the image.
    pub build: Option<u64>,
    /// From the image to every edge serving it.
    pub deploy: Option<u64>,
    /// Everything.
    pub total: Option<u64>,
}

/// The commit that source came from; each part is absent when it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GitInfo {
    /// The commit's full hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_sha: Option<String>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who wrote the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The commit's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A deployment to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// Where its image comes from.
    pub source: DeploymentSource,
    /// Settings of the instance that are changed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsPatch>,
    /// Where the source came from.
    #[serde(default)]
    pub git: GitInfo,
    /// How long sending the source took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_ms: Option<u32>,
    /// Builds although an equal image exists.
    #[serde(default)]
    pub rebuild: bool,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DeploymentSource {
    /// A source tree that was uploaded to the project.
    Tree {
        /// Its digest: `sha256:` and 64 hexadecimal digits.
        #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
        digest: String,
    },
    /// An image in some registry.
    Image {
        /// `nginx:1.27`, `ghcr.io/owner/name@sha256:…`.
        #[schema(min_length = 1, max_length = 512, example = "nginx:1.27")]
        reference: String,
    },
}

/// The last line of `up`, `deploy` and `redeploy` with `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultLine {
    /// Always `result`.
    pub event: String,
    /// The deployment; null when it never came to be.
    pub deployment_id: Option<Uuid>,
    /// Its number.
    pub number: Option<u32>,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// The environment's name.
    pub environment: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was last seen of what it runs.
    pub state: State,
    /// Where it answers.
    pub url: Option<String>,
    /// Digest of its image.
    pub image: Option<String>,
    /// How long its steps took, in milliseconds.
    pub durations_ms: Durations,
    /// What should be known although it went on.
    pub warnings: Vec<Report>,
    /// Why it did not succeed.
    pub error: Option<Report>,
}
