//! `node`'s observations on their way to control and edge, and requests to wake back to it: `RUN_DIR/node.sock`.
//!
//! A subscriber gets everything that is known, then what changes. Observations are states, not events: a slow
//! subscriber misses intermediate ones and never the last. Figures (CPU, memory) go to those who ask for them, and are
//! read only while somebody does.

mod board;
mod client;
mod server;

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::observation::{Figures, Observation};
use serde::{Deserialize, Serialize};

pub use board::Board;
pub use client::AllFigures;
pub use client::{Observations, Observer, ObserverHandle};
pub use server::ObservationServer;

/// Observations in one message.
const BATCH: usize = 500;

/// From `node` to a subscriber.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromNode {
    /// A piece of news; nothing takes effect before the last one came.
    News {
        /// Everything that is not named in this news is gone.
        all: bool,
        seen: Vec<Observation>,
        gone: Vec<ReplicaId>,
        last: bool,
    },
    /// The newest figures of all replicas that run, in pieces.
    Figures {
        /// Whether those before are of no use any more.
        first: bool,
        /// Whether nothing more comes of these.
        last: bool,
        figures: Vec<Figures>,
    },
    /// `node` lives.
    Heartbeat,
}

/// From a subscriber to `node`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromSubscriber {
    /// Somebody waits for an instance that sleeps.
    Wake(InstanceId),
    /// From now on figures are wanted too.
    Figures,
    /// The subscriber lives.
    Heartbeat,
}
