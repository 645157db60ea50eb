//! What is wrong with this installation, in sentences with remedies. Works with control and database dead: it looks
//! at the host, the locks and the sockets themselves.

mod engine;
mod host;
mod processes;

use std::fmt;

use serde::Serialize;

use crate::config::Config;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// It works, but something will hurt.
    Warning,
    /// Something does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at: `docker`, `firewall`, `disk`.
    pub subject: &'static str,
    /// What was found, in one sentence without a period.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Good, subject, message: message.into(), hint: None }
    }

    fn warning(subject: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, message: message.into(), hint: Some(hint.into()) }
    }

    fn problem(subject: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Problem, subject, message: message.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Good => "ok      ",
            Level::Warning => "warning ",
            Level::Problem => "PROBLEM ",
        };
        write!(f, "{mark} {}: {}", self.subject, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n           {hint}"),
            None => Ok(()),
        }
    }
}

/// What must hold before anything is started. Problems among these keep `serve` from starting.
pub async fn preflight(config: &Config) -> Vec<Finding> {
    let mut findings = host::requirements(config);
    findings.extend(engine::look(config).await);
    findings
}

/// Everything there is to look at.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = preflight(config).await;
    findings.extend(host::surroundings(config));
    findings.extend(processes::look(config).await);
    findings
}
