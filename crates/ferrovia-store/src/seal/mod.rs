//! Envelopes of secrets: what makes a copy of the database, its log or a dump worth nothing without one file.
//!
//! Master keys lie in a file beside the database ([`MasterKeys`]). Each project has a data key, which is kept sealed by
//! a master key; every secret of the project is sealed by the data key. So changing the master key means sealing a row
//! per project again, and not every secret.
//!
//! A sealed value is AES-256-GCM with a random nonce. What it is sealed with says where it belongs ([`Place`]): a
//! sealed value that somebody moves to another row or table does not open. Keys are known by ids, which stand in the
//! rows and in the sealed bytes.
//!
//! Deliberately absent: hiding that a value changed or how long it is, and protection from root on the host.

mod envelope;
mod keyring;
mod master;

pub use envelope::{DataKey, MAC_BYTES, Place};
pub use keyring::Keyring;
pub use master::MasterKeys;

use std::io;
use std::path::PathBuf;

use ferrovia_core::error::{Class, Report};

/// A failure of sealing or of the keys' file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the master keys cannot be read or written.
    #[error("the master key's file `{path}` cannot be used")]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read the file, or it is somebody else's.
    #[error("the master key's file `{path}` has mode {mode:03o} and owner {owner}")]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// The file is not what was written.
    #[error("line {line} of the master key's file `{path}` is damaged")]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// From 1; 0 when it has no key at all.
        line: usize,
    },
    /// The database has secrets, and there is no file.
    #[error(
        "the master key's file `{path}` is missing, and the database holds secrets that were sealed with it"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A sealed value names a key that is not there.
    #[error("a secret is sealed with key {id}, which is not there")]
    UnknownKey {
        /// The key's id.
        id: String,
    },
    /// A sealed value was changed, moved, or sealed with another key.
    #[error("a secret of `{table}` does not open: it was changed or moved")]
    Tampered {
        /// Where it was read.
        table: &'static str,
    },
    /// The system gives no random bytes, or the library refuses the key.
    #[error("sealing failed")]
    Failed,
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::File { .. } | Self::Exposed { .. } | Self::Damaged { .. } | Self::Missing { .. } => {
                Class::Invalid
            }
            Self::UnknownKey { .. } => Class::Unavailable,
            Self::Tampered { .. } | Self::Failed => Class::Bug,
        }
    }

    /// For people, with the remedy.
    pub fn report(&self) -> Report {
        let (code, hint) = match self {
            Self::File { .. } => (
                "master_key_unusable",
                "make the file readable and writable for the platform".to_owned(),
            ),
            Self::Exposed { path, .. } => (
                "master_key_exposed",
                format!(
                    "run `chown $(id -u) {0}; chmod 600 {0}` as the platform's user",
                    path.display()
                ),
            ),
            Self::Damaged { .. } => ("master_key_damaged", "put the file back from a backup".to_owned()),
            Self::Missing { .. } | Self::UnknownKey { .. } => (
                "master_key_missing",
                "put the file back from a backup; without it the secrets cannot be read".to_owned(),
            ),
            Self::Tampered { .. } => ("secret_damaged", "set the variable again".to_owned()),
            Self::Failed => ("sealing_failed", "try again".to_owned()),
        };
        Report::new(code, self.to_string()).with_hint(hint)
    }
}
