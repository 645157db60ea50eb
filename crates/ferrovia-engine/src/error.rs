//! What can go wrong with an engine, by what the caller should do about it.

use ferrovia_core::error::Class;

/// A failed call to an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The engine does not answer; nothing happened.
    #[error("the engine does not answer: {0}")]
    Unavailable(String),
    /// The call ended without an answer: it may or may not have happened.
    #[error("the engine did not answer `{call}` in {timeout_ms} ms; whether it happened is unknown")]
    Unknown {
        /// Which call.
        call: &'static str,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
    },
    /// The image is not in the registry or cannot be fetched.
    #[error("the image `{image}` cannot be fetched: {why}")]
    Image {
        /// Which image.
        image: String,
        /// The engine's words.
        why: String,
    },
    /// The engine cannot start the replica as asked: a wrong command, a wrong mount.
    #[error("the container cannot be started: {0}")]
    CannotStart(String),
    /// The name is taken by something that is not ours or has another specification.
    #[error("the container name `{0}` is taken by something else")]
    NameTaken(String),
    /// The replica is not there any more, or is none of this installation's.
    #[error("the engine has no container `{0}` of this installation")]
    Gone(String),
    /// What should be taken away is in use.
    #[error("`{0}` is in use")]
    InUse(String),
    /// The platform's network cannot be made or is not as it should be; the sentence has the remedy.
    #[error("{0}")]
    Network(String),
    /// The engine answered something that was not expected.
    #[error("the engine refused `{call}`: {why}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// Its words.
        why: String,
    },
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) => Class::Unavailable,
            Self::Unknown { .. } | Self::Image { .. } | Self::Refused { .. } => Class::Transient,
            Self::CannotStart(_) => Class::Invalid,
            Self::NameTaken(_) | Self::InUse(_) => Class::Conflict,
            Self::Gone(_) => Class::NotFound,
            Self::Network(_) => Class::Unavailable,
        }
    }
}
