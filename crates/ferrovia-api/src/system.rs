//! The installation itself: whether it is ready, and what is wrong with it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// The server's version.
    pub version: String,
}

/// Whether work is accepted, and what each part does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether every part that is needed is ready.
    pub ready: bool,
    /// The parts.
    pub components: Vec<Component>,
}

/// A part of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Component {
    /// `database`, `engine`, `edge`, `node`, `builder`.
    pub name: String,
    /// Whether it does its work.
    pub ready: bool,
    /// Whether the platform can accept work without it.
    pub required: bool,
    /// In a sentence, for people.
    pub detail: Option<String>,
}

/// What is wrong with an installation, in sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Everything that was looked at, the worst first.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `docker`, `disk`, `firewall`.
    pub subject: String,
    /// Stable, snake case.
    pub code: String,
    /// What was found, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How bad a finding is; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, but not as it should.
    Warning,
    /// Something does not work.
    Error,
}
