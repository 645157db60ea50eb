//! Uploading source: the manifest first, then only the contents that the project lacks, many in one request, then the
//! manifest again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Everything in it, in any order; directories only where they are empty.
    pub entries: Vec<ManifestEntry>,
}

/// One thing in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ManifestEntry {
    /// A regular file.
    File {
        /// Relative, `/`-separated, without `.` and `..`.
        #[schema(min_length = 1, max_length = 1024, example = "src/main.rs")]
        path: String,
        /// Whether it may be executed.
        #[serde(default)]
        executable: bool,
        /// SHA-256 of its content: `sha256:` and 64 hexadecimal digits.
        #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
        digest: String,
        /// Size of its content, in bytes.
        size: u64,
    },
    /// A symbolic link; it may not lead out of the tree.
    Symlink {
        /// Relative, `/`-separated, without `.` and `..`.
        #[schema(min_length = 1, max_length = 1024)]
        path: String,
        /// Its text.
        #[schema(min_length = 1, max_length = 1024)]
        target: String,
    },
    /// An empty directory.
    Directory {
        /// Relative, `/`-separated, without `.` and `..`.
        #[schema(min_length = 1, max_length = 1024)]
        path: String,
    },
}

/// What the project has of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeStatus {
    /// The tree's digest, computed by the server.
    pub digest: String,
    /// Whether everything is there: the tree can be deployed.
    pub complete: bool,
    /// Digests of the files that have to be sent.
    pub missing: Vec<String>,
}

/// Media type of contents: each a line of its digest, a blank and its size in bytes, then as many bytes.
pub const CONTENTS_TYPE: &str = "application/vnd.ferrovia.contents";

/// Contents one after the other: each a line of its digest, a blank and its size in bytes, then as many bytes.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct ContentsBody(pub Vec<u8>);

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contents {
    /// How many contents.
    pub count: u64,
}
