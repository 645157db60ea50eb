//! What goes wrong between two ends of a socket, or with a file.

use ferrovia_core::error::Class;

/// A failure of the table protocol or of the last good file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end went away or cannot be reached.
    #[error("the connection failed")]
    Connection(#[source] std::io::Error),
    /// The other end closed the connection.
    #[error("the other end closed the connection")]
    Closed,
    /// Nothing came for so long that the other end counts as dead.
    #[error("nothing was heard for {0} ms")]
    Silent(u64),
    /// The other end did not take what was sent to it.
    #[error("the other end took nothing for {0} ms")]
    Stuck(u64),
    /// The other end is not who may be there.
    #[error("the peer runs as user {found}; only user {wanted} and root are taken")]
    Peer {
        /// The peer's user id.
        found: u32,
        /// The user id that was configured.
        wanted: u32,
    },
    /// A frame is longer than any that is ever sent.
    #[error("a frame of {0} bytes is longer than the limit")]
    FrameTooLong(usize),
    /// A frame's checksum does not fit its content.
    #[error("a frame's checksum is wrong")]
    Checksum,
    /// A frame is in a format that this build does not understand.
    #[error("a frame has format {0}, which this build does not understand")]
    UnknownFormat(u32),
    /// A frame's content is not what the protocol says.
    #[error("a frame's content is not understood")]
    Content(#[source] serde_json::Error),
    /// A message came where another was due.
    #[error("a message came out of turn: {0}")]
    OutOfTurn(&'static str),
    /// The last good file cannot be read or written.
    #[error("the table file `{path}` cannot be used")]
    File {
        /// The file or directory.
        path: std::path::PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A blocking task ended early.
    #[error("a file task ended early")]
    Task(#[source] tokio::task::JoinError),
    /// The source of the tables failed.
    #[error("the source of the tables failed")]
    Source(#[source] crate::server::SourceError),
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Connection(_) | Self::Closed | Self::Silent(_) | Self::Stuck(_) | Self::Source(_) => {
                Class::Transient
            }
            Self::Peer { .. } => Class::Denied,
            Self::FrameTooLong(_) => Class::Limit,
            Self::Checksum | Self::UnknownFormat(_) | Self::Content(_) | Self::OutOfTurn(_) => Class::Invalid,
            Self::File { .. } => Class::Unavailable,
            Self::Task(_) => Class::Bug,
        }
    }

    /// The whole chain in one line, for logs and for reports to the other end.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}
