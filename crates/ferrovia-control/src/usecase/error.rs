//! How a use case refuses or fails: always with a report for people.

use ferrovia_core::error::{Class, Report};
use ferrovia_store as store;

use super::code::{self, Code};

/// A use case that did not do what it was asked to. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.report.message)]
pub struct Error(#[source] Box<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("{}", report.message)]
struct Inner {
    report: Report,
    class: Class,
    field: Option<String>,
    #[source]
    source: Option<store::Error>,
}

impl Error {
    /// A refusal.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            report: Report::new(code.name, message),
            class: code.class,
            field: None,
            source: None,
        }))
    }

    /// A refusal in words that another part found.
    pub fn of(report: Report, class: Class) -> Self {
        Self(Box::new(Inner {
            report,
            class,
            field: None,
            source: None,
        }))
    }

    /// The same with its remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.report.hint = Some(hint.into());
        self
    }

    /// The same with the field that is wrong, as a dotted path.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// What people are told.
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The field that is wrong, as a dotted path.
    pub fn wrong_field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    fn from_store(source: store::Error, code: &'static Code, message: impl Into<String>) -> Self {
        let mut error = Self::new(code, message);
        error.0.source = Some(source);
        error
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let message = error.to_string();
        match &error {
            store::Error::NotFound { .. } => Self::from_store(error, &code::NOT_FOUND, message),
            store::Error::Taken { .. } => {
                Self::from_store(error, &code::NAME_TAKEN, message).hint("choose another name")
            }
            store::Error::Stale { .. } => Self::from_store(error, &code::CHANGED_MEANWHILE, message)
                .hint("read it again, look at what changed, and repeat with the new `ETag`"),
            store::Error::Exhausted { .. } => Self::from_store(error, &code::EXHAUSTED, message),
            _ => {
                let (code, message) = match error.class() {
                    Class::Unavailable => (&code::DATABASE_UNAVAILABLE, "the database does not answer"),
                    Class::Transient | Class::Conflict => (
                        &code::TRY_AGAIN,
                        "too much happened at the same time in the database",
                    ),
                    _ => (&code::INTERNAL, "something went wrong inside Ferrovia"),
                };
                let hint = match error.class() {
                    Class::Unavailable => "`ferroviad doctor` on the server's host says more",
                    Class::Transient | Class::Conflict => "try again",
                    _ => "the server's log tells more under the request's id",
                };
                Self::from_store(error, code, message).hint(hint)
            }
        }
    }
}
