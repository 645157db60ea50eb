//! What can go wrong in the registry, in its clients' words and in ours.

use std::io;

use ferrovia_core::error::Class;

use crate::digest::Digest;

/// A request to the registry that was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository's name is not one.
    #[error("a repository is named by lower-case words separated by `/`, at most 255 characters")]
    NameInvalid,
    /// The digest is not one.
    #[error("a digest looks like `sha256:` and 64 lower-case hexadecimal digits")]
    DigestInvalid,
    /// The tag is not one.
    #[error("a tag has letters, digits, `_`, `.` and `-`, at most 128 characters")]
    TagInvalid,
    /// The repository holds no such blob.
    #[error("blob `{0}` is not in this repository")]
    BlobUnknown(Digest),
    /// The repository holds no such manifest.
    #[error("manifest `{0}` is not in this repository")]
    ManifestUnknown(String),
    /// The upload ended, expired or never was.
    #[error("this upload does not exist (any more); begin it again")]
    UploadUnknown,
    /// A chunk does not follow the one before.
    #[error("the next chunk of this upload begins at byte {offset}")]
    RangeInvalid {
        /// Where it must begin.
        offset: u64,
    },
    /// The content is not what its digest says.
    #[error("the content has the digest `{actual}`, not `{expected}`")]
    DigestMismatch {
        /// What the client said.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content is larger than allowed.
    #[error("it is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// Too many uploads are open.
    #[error("{limit} uploads are open already; try again later")]
    TooManyUploads {
        /// The bound.
        limit: usize,
    },
    /// The manifest is not one that is understood.
    #[error("the manifest is not valid: {0}")]
    ManifestInvalid(String),
    /// The manifest refers to something that was not pushed.
    #[error("the manifest refers to `{0}`, which is not in this repository")]
    ManifestBlobUnknown(Digest),
    /// The disk has no room.
    #[error("the disk of the registry is full")]
    NoSpace,
    /// The client went away or stalled in the middle of a body.
    #[error("the body of the request did not come whole")]
    Interrupted,
    /// The disk refused something.
    #[error("the registry could not {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// An error of the disk; a full one is told apart.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io { what, source },
        }
    }

    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::NameInvalid
            | Self::DigestInvalid
            | Self::TagInvalid
            | Self::RangeInvalid { .. }
            | Self::DigestMismatch { .. }
            | Self::ManifestInvalid(_)
            | Self::ManifestBlobUnknown(_) => Class::Invalid,
            Self::BlobUnknown(_) | Self::ManifestUnknown(_) | Self::UploadUnknown => Class::NotFound,
            Self::TooLarge { .. } | Self::NoSpace => Class::Limit,
            Self::TooManyUploads { .. } | Self::Interrupted => Class::Transient,
            Self::Io { .. } => Class::Unavailable,
        }
    }
}
