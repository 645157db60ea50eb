//! How a command fails: what is told, and the exit code.

use std::process::ExitCode;

use ferrovia_api::Report;
use ferrovia_api::client;
use ferrovia_api::problem::ProblemClass;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed.
    Failed,
    /// Wrong use.
    Usage,
    /// Contact was lost: the outcome is unknown.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Unknown => Self::from(3),
        }
    }
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// What is told.
    pub report: Report,
    /// The exit code.
    pub exit: Exit,
    /// A result line was already printed: stdout is complete.
    pub told: bool,
}

impl Failure {
    /// Something failed on this side.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            report: Report {
                code: code.to_owned(),
                message: message.into(),
                hint: None,
                log: Vec::new(),
            },
            exit: Exit::Failed,
            told: false,
        }
    }

    /// The command was used wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new("wrong_use", message)
        }
    }

    /// The same with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.report.hint = Some(hint.into());
        self
    }
}

/// The remedy when the server does not know what it is asked.
const OTHER_VERSION: &str = "check the URL; `ferrovia` and the server may also be of different versions";

/// The field of a request as people who do not see the request know it: a setting's or an object's name.
fn shown_field(field: &str) -> Option<&str> {
    let field = field.strip_prefix("settings.").unwrap_or(field);
    let of_request = field.contains('[') || field.starts_with("source.") || field == "body";
    (!of_request).then_some(field)
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let message = error.to_string();
        match error {
            client::Error::Problem(problem) => {
                let message = match problem.field.as_deref().and_then(shown_field) {
                    Some(field) if !problem.detail.contains(field) => format!("{message} (`{field}`)"),
                    _ => message,
                };
                let mut failure = Self::new(&problem.code, message);
                failure.report.hint = match problem.code.as_str() {
                    "route_not_found" | "method_not_allowed" => Some(OTHER_VERSION.to_owned()),
                    _ => problem.hint,
                };
                if problem.class == ProblemClass::Invalid {
                    failure.exit = Exit::Usage;
                }
                failure
            }
            client::Error::Unreachable { .. } => Self::new("server_unreachable", message)
                .hint("start it with `script/server` or `ferroviad serve`, or say where it is: `ferrovia login URL`"),
            client::Error::Lost { .. } => Self {
                exit: Exit::Unknown,
                ..Self::new("contact_lost", message)
            }
            .hint("whether it was done is unknown; `ferrovia status` says what is"),
            client::Error::Unexpected { .. } => Self::new("server_unexpected", message)
                .hint(OTHER_VERSION),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_people_know_them() {
        assert_eq!(shown_field("settings.health_path"), Some("health_path"));
        assert_eq!(
            shown_field("resources.memory_bytes"),
            Some("resources.memory_bytes")
        );
        assert_eq!(shown_field("project"), Some("project"));
        assert_eq!(shown_field("set[0].key"), None);
        assert_eq!(shown_field("source.reference"), None);
    }
}
