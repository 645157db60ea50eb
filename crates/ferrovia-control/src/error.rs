//! What keeps a reconciler from its work; the next pass is the retry.

use ferrovia_core::error::Class;
use ferrovia_core::id::DeploymentId;

/// A failed pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] ferrovia_store::Error),
    /// What was decided from is not so any more.
    #[error("the rows changed while it was decided what to do")]
    Stale,
    /// The image that a deployment is to run is on its way out.
    #[error("the image of deployment `{0}` is being deleted")]
    ImageCondemned(DeploymentId),
    /// A log on this host's disk.
    #[error(transparent)]
    Log(#[from] ferrovia_log::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] ferrovia_engine::Error),
    /// A directory on this host.
    #[error("`{path}` cannot be read or removed")]
    Disk {
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Stale | Self::ImageCondemned(_) => Class::Conflict,
            Self::Log(_) | Self::Disk { .. } => Class::Unavailable,
            Self::Engine(error) => error.class(),
        }
    }

    /// Whether looking again is all that is needed.
    pub fn is_stale(&self) -> bool {
        matches!(
            self,
            Self::Stale | Self::Store(ferrovia_store::Error::Stale { .. })
        )
    }

    /// The whole chain in one line, for the queue's `last_error`.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
