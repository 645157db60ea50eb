//! What can go wrong with the database, sorted by what the caller can do about it.

use ferrovia_core::error::Class;

/// A failure of the store. `Display` says its own level only; the source is the driver's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, shuts down, or has no room left.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Every connection of the pool was in use for too long.
    #[error("no database connection became free in time")]
    Busy,
    /// A statement or the wait for a lock took longer than it may.
    #[error("a statement of the database took longer than it may")]
    Timeout(#[source] sqlx::Error),
    /// Others changed the same rows at the same time; [`crate::Db::tx`] tries again before it gives this out.
    #[error("the transaction lost against others that changed the same rows")]
    Contention(#[source] sqlx::Error),
    /// The connection was lost while the commit was under way: whether it took effect is not known.
    #[error("the connection was lost during a commit: whether it took effect is not known")]
    CommitUnknown(#[source] sqlx::Error),
    /// The runtime is shutting down; the transaction was rolled back or is about to be.
    #[error("the process is ending: the transaction was given up")]
    Ending,
    /// There is no such row.
    #[error("there is no {what} `{key}`")]
    NotFound {
        /// The kind of thing, in the product's words.
        what: &'static str,
        /// What it was looked for by.
        key: String,
    },
    /// Another row has this name, host or address.
    #[error("the {what} `{key}` is taken")]
    Taken {
        /// The kind of thing, in the product's words.
        what: &'static str,
        /// What is taken.
        key: String,
    },
    /// The row is not what the caller had read.
    #[error("the {what} `{key}` was changed by somebody else")]
    Stale {
        /// The kind of thing, in the product's words.
        what: &'static str,
        /// Which one.
        key: String,
    },
    /// The lease on a key has run out, or somebody else has it.
    #[error("the lease on {kind} `{key}` is lost")]
    LeaseLost {
        /// The kind of work.
        kind: String,
        /// Its key.
        key: String,
    },
    /// A range that the platform gives out of is used up.
    #[error("there is no free {what} left")]
    Exhausted {
        /// What is used up.
        what: &'static str,
    },
    /// A row holds what this release cannot read.
    #[error("a row of `{table}` cannot be read: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A row with the same key is there.
    #[error("a row breaks the rule `{constraint}`")]
    Unique {
        /// Name of the constraint or unique index.
        constraint: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A row refers to one that is not there, or is referred to.
    #[error("a row breaks the reference `{constraint}`")]
    Reference {
        /// Name of the constraint.
        constraint: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The address of the database is wrong, or it refuses the user.
    #[error("the database refuses the connection")]
    Refused(#[source] sqlx::Error),
    /// The server is older than the schema needs.
    #[error("PostgreSQL {found} is too old: at least {wanted} is needed")]
    TooOld {
        /// Its major version.
        found: i32,
        /// The oldest that works.
        wanted: i32,
    },
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A secret could not be sealed or opened, or the keys' file cannot be used.
    #[error(transparent)]
    Seal(#[from] crate::seal::Error),
    /// A statement is wrong: a mistake in Ferrovia.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) | Self::Ending => Class::Unavailable,
            Self::Busy | Self::Timeout(_) | Self::Contention(_) | Self::CommitUnknown(_) => Class::Transient,
            Self::NotFound { .. } => Class::NotFound,
            Self::LeaseLost { .. }
            | Self::Taken { .. }
            | Self::Stale { .. }
            | Self::Unique { .. }
            | Self::Reference { .. } => Class::Conflict,
            Self::Exhausted { .. } => Class::Limit,
            Self::Seal(error) => error.class(),
            Self::Refused(_) | Self::TooOld { .. } => Class::Invalid,
            Self::Corrupt { .. } | Self::Migrate(_) | Self::Statement(_) => Class::Bug,
        }
    }

    /// Whether it is the breach of this unique constraint.
    pub fn is_unique(&self, wanted: &str) -> bool {
        matches!(self, Self::Unique { constraint, .. } if constraint == wanted)
    }

    /// The same error, but [`Error::Taken`] when it is the breach of this unique constraint.
    #[must_use]
    pub fn taken_if(self, constraint: &str, what: &'static str, key: impl ToString) -> Self {
        if self.is_unique(constraint) {
            let key = key.to_string();
            Self::Taken { what, key }
        } else {
            self
        }
    }

    /// A row that this release cannot read.
    pub fn corrupt(table: &'static str, why: impl ToString) -> Self {
        let why = why.to_string();
        Self::Corrupt { table, why }
    }

    /// A row that should be there and is not.
    pub fn not_found(what: &'static str, key: impl ToString) -> Self {
        let key = key.to_string();
        Self::NotFound { what, key }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => Self::Refused(error),
            sqlx::Error::Io(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                let constraint = database.constraint().unwrap_or_default().to_owned();
                Self::from_state(&code, constraint, error)
            }
            _ => Self::Statement(error),
        }
    }
}

impl Error {
    /// Sorts by SQLSTATE (PostgreSQL manual, appendix A).
    fn from_state(code: &str, constraint: String, source: sqlx::Error) -> Self {
        match code {
            "40001" | "40P01" => Self::Contention(source),
            "57014" | "55P03" | "25P03" => Self::Timeout(source),
            "23505" => Self::Unique { constraint, source },
            "23503" => Self::Reference { constraint, source },
            "3D000" | "42501" => Self::Refused(source),
            _ => match code.get(..2) {
                Some("28") => Self::Refused(source),
                Some("08" | "53" | "57" | "58") => Self::Unavailable(source),
                _ => Self::Statement(source),
            },
        }
    }
}

/// Whether `error` or one of its sources says that the transaction lost against others and may be tried again.
pub(crate) fn is_contention(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref::<Error>(), Some(Error::Contention(_))) {
            return true;
        }
        if let Some(sqlx::Error::Database(database)) = error.downcast_ref::<sqlx::Error>() {
            return matches!(database.code().as_deref(), Some("40001" | "40P01"));
        }
        next = error.source();
    }
    false
}
