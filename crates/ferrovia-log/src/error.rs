//! What can go wrong with a log on disk.

use std::path::PathBuf;

use ferrovia_core::error::Class;

/// A failed operation on a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried: `open`, `append to`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process writes this log.
    #[error("the log `{0}` has another writer")]
    Locked(PathBuf),
    /// More was appended at once than a frame holds.
    #[error("{bytes} bytes were appended at once; at most {max_bytes} fit")]
    TooLarge {
        /// What was asked.
        bytes: usize,
        /// What fits.
        max_bytes: usize,
    },
    /// A sealed segment is not what was written.
    #[error("the log segment `{0}` is damaged")]
    Damaged(PathBuf),
    /// An append failed and could not be taken back; the writer must be opened again.
    #[error("the log `{0}` is in an unknown state after a failed write")]
    Poisoned(PathBuf),
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Io { .. } | Self::Poisoned(_) => Class::Transient,
            Self::Locked(_) => Class::Conflict,
            Self::TooLarge { .. } => Class::Limit,
            Self::Damaged(_) => Class::Bug,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
