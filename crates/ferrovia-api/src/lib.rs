//! What travels between the API and its clients: types, the problem document, and a typed client.
//!
//! Wire types are a family of their own: neither the domain's nor the rows'. The server converts, exhaustively, so that
//! a new field is a compile error and not a surprise. What is accepted refuses unknown fields; what is answered may
//! grow. Times are RFC 3339 texts, spans are whole milliseconds (`*_ms`), sizes are bytes (`*_bytes`).
//!
//! Deliberately absent: HTTP status codes. Clients decide by `code` and `class` of a [`problem::Problem`].

pub mod build;
#[cfg(feature = "client")]
pub mod client;
pub mod deployment;
pub mod instance;
pub mod log;
pub mod problem;
pub mod project;
pub mod settings;
pub mod source;
pub mod system;
pub mod token;
pub mod variable;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most things in one page of a list.
pub const MAX_PAGE: u32 = 500;
/// Things in one page of a list when nothing is asked for.
pub const DEFAULT_PAGE: u32 = 50;
/// Longest time between two signs of life on a stream, in milliseconds; a client gives up after three.
pub const STREAM_HEARTBEAT_MS: u64 = 10_000;

/// Something by its id and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// An event of a stream. Comments between events are signs of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEvent {
    /// `progress` with a deployment, `line` with a line of a log, `end` after the last.
    #[schema(example = "line")]
    pub event: String,
    /// What to send as `Last-Event-ID` to go on after it.
    pub id: Option<String>,
    /// JSON: a `Deployment` or a `LogLine`.
    pub data: String,
}

/// What is told to people about a failure or a doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Stable, snake case; `docs/error-codes/CODE.md` explains it.
    #[schema(example = "app_not_listening")]
    pub code: String,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The last lines that the application or the build wrote, where they help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}
