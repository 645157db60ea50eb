//! One class of an error drives what is retried, what the API answers and what the metrics count.

use serde::{Deserialize, Serialize};

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The request is wrong and stays wrong; the caller must change it.
    Invalid,
    /// The actor may not do this.
    Denied,
    /// The thing does not exist, or not for this actor.
    NotFound,
    /// The thing is in a state that does not allow this, or changed meanwhile.
    Conflict,
    /// A bound was reached: a size, a count, a quota.
    Limit,
    /// It may work when tried again.
    Transient,
    /// A part that is needed does not answer.
    Unavailable,
    /// A mistake in Ferrovia.
    Bug,
}

impl Class {
    /// Whether the same call may succeed later without the caller's doing.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Unavailable)
    }
}

/// What is told to people about a failure: a code with a page of its own, one sentence, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Stable, snake case, documented in `docs/error-codes/CODE.md`.
    pub code: String,
    /// What happened, in one sentence without a period.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines that the application or the build wrote, where they help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Report {
    /// A report without a remedy.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            hint: None,
            log: Vec::new(),
        }
    }

    /// The same report with its remedy.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same report with the last lines of a log.
    #[must_use]
    pub fn with_log(mut self, log: Vec<String>) -> Self {
        self.log = log;
        self
    }
}
