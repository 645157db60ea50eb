//! Logs on disk: lines in compressed segments with a size budget, read back by time and followed.
//!
//! A log is a directory with one writer (a lock says so) and any number of readers, in other processes too. Lines
//! go to one open segment; past a size it is compressed and sealed, and the oldest sealed segments give way to the
//! budget. The names of sealed segments hold their first and last sequence number and time, so that the directory
//! is its own index and no second file can disagree with it.
//!
//! What a writer appends at once is one frame under one checksum: lines **and** the cursor of the source that they
//! were read from. So a kill at any byte leaves either both or neither, and a source that is read on from the
//! cursor loses no line and repeats none. Nothing is synced per append: a kill loses nothing, a power failure may
//! take the newest lines together with their cursor. A sealed segment is synced before the open one is removed.
//!
//! Every line has a sequence number that grows without gaps in its log; readers resume after a number.
//!
//! Deliberately absent: levels, structure inside lines, an index of words. A text filter reads what the time range
//! leaves.

mod error;
mod follow;
mod frame;
pub mod place;
mod reader;
mod segment;
mod writer;

use ferrovia_core::id::DeploymentId;
use serde::{Deserialize, Serialize};

pub use crate::error::Error;
pub use crate::follow::{FOLLOW_POLL_MAX_MS, FOLLOW_POLL_MIN_MS, Follower};
pub use crate::reader::{Order, Query, Reader};
pub use crate::writer::{CursorChange, Limits, Writer};

/// Longest text of one line, in bytes; a longer one is split into lines that are marked as going on.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLine<'a> {
    /// When it was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Where it was written to.
    pub stream: Stream,
    /// Who wrote it: a replica's id, a step's name.
    pub source: &'a str,
    /// The deployment it belongs to.
    pub deployment: Option<DeploymentId>,
    /// Its text without the line's end.
    pub text: &'a str,
    /// Whether the text goes on in the next line of this source.
    pub continues: bool,
}

/// A line as it was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number in this log, from 1, without gaps as they were written.
    pub seq: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Where it was written to.
    pub stream: Stream,
    /// Who wrote it: a replica's id, a step's name.
    pub source: String,
    /// The deployment it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// Its text without the line's end.
    pub text: String,
    /// Whether it was longer than [`MAX_LINE_BYTES`] and goes on in the next line of this source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}
