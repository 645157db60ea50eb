//! What the two ends of `tables.sock` say to each other.

use ferrovia_core::observation::InFlight;
use ferrovia_core::table::{Audience, Version};
use serde::{Deserialize, Serialize};

use crate::change::Part;

/// Replicas in one report; a longer one is sent in several.
pub(crate) const REPORT_ENTRIES: usize = 5_000;
/// Longest text of a trouble, in bytes.
pub(crate) const MAX_TROUBLE_BYTES: usize = 4_096;

/// From a reader to control.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromReader {
    /// The first message of every connection.
    Hello(Hello),
    /// The reader serves from this version, and it is on its disk.
    Ack(Version),
    /// A piece of a report of what is open.
    InFlight {
        version: Version,
        open: Vec<InFlight>,
        last: bool,
    },
    /// Something is wrong at the reader's end.
    Trouble(String),
    /// The reader ends for good: nobody waits for it any more.
    Goodbye,
    /// The reader lives.
    Heartbeat,
}

/// Who connects and what it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) reader: String,
    pub(crate) audience: Audience,
    pub(crate) formats: Vec<u32>,
    pub(crate) version: Version,
}

/// From control to a reader.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromControl<T> {
    /// A piece of a change.
    Change(Part<T>),
    /// Control lives.
    Heartbeat,
}

/// What is open towards each replica: requests at an edge, private connections at a node. Replicas that are not
/// named have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlightReport {
    /// The version that was served from when the counting began. Control believes that a replica has drained only
    /// when this version no longer leads to it.
    pub version: Version,
    /// Replicas with something open.
    pub open: Vec<InFlight>,
}
