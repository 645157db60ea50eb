//! Lines of logs: of applications and of builds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its place in its log: grows; what `after` takes.
    pub cursor: String,
    /// When it was written.
    pub at: Timestamp,
    /// Where it was written to.
    pub stream: LogStream,
    /// Who wrote it: a replica's id, a step of a build.
    pub source: String,
    /// The deployment it belongs to.
    pub deployment_id: Option<Uuid>,
    /// Its text without the line's end.
    pub text: String,
    /// Whether it was too long for one line and goes on in the next of this source.
    pub continues: bool,
}

/// A page of lines, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The lines.
    pub items: Vec<LogLine>,
    /// What to give as `after` for the lines that follow, also those to come.
    pub next: Option<String>,
}

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
