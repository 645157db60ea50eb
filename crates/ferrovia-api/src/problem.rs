//! The problem document (RFC 9457): every refusal of the API has this shape.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// What `type` begins with; the code follows.
pub const TYPE_PREFIX: &str = "urn:ferrovia:error:";

/// Why a request was refused or failed (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:ferrovia:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words, the same for every problem of a class.
    pub title: String,
    /// The HTTP status of the answer (RFC 9457 section 3.1.2); clients decide by `code`.
    pub status: u16,
    /// Stable, snake case; `docs/error-codes/CODE.md` explains it.
    #[schema(example = "project_not_found")]
    pub code: String,
    /// What drives retries.
    pub class: ProblemClass,
    /// What happened, in one sentence.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The field, parameter or header that is wrong, as a dotted path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The request's id, also in the server's log.
    pub request_id: String,
}

/// What kind of failure a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemClass {
    /// The request is wrong and stays wrong.
    Invalid,
    /// The actor may not do this.
    Denied,
    /// The thing does not exist.
    NotFound,
    /// The thing is in a state that does not allow this, or changed meanwhile.
    Conflict,
    /// A bound was reached.
    Limit,
    /// It may work when tried again.
    Transient,
    /// A part that is needed does not answer.
    Unavailable,
    /// A mistake in Ferrovia.
    Bug,
}
