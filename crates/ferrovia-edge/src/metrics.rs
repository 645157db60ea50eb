//! Counters of one worker. Only its thread writes them; anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters while they count.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// What was counted since the process started.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Adds what one worker counted.
            pub fn add(&mut self, metrics: &Metrics) {
                $(self.$name += metrics.$name.get();)*
            }
        }
    };
}

counters! {
    /// Connections that were accepted.
    accepted,
    /// Connections that are over.
    closed,
    /// Connections that were ended to make room or for a deadline.
    ended,
    /// Requests whose head was taken.
    requests,
    /// Requests that were answered by an application.
    answered,
    /// Requests for a host that nobody knows.
    unknown_host,
    /// Requests whose head was refused.
    refused,
    /// Requests answered with the reason why nothing answers.
    unavailable,
    /// Requests that waited for a replica.
    held,
    /// Requests that waited for a replica in vain.
    held_in_vain,
    /// Requests for which no connection to a replica was made.
    unreachable,
    /// Requests whose connection to a replica broke before the answer's head.
    broken,
    /// Requests whose answer's head did not come in time.
    late,
    /// Answers that were cut off by the application.
    cut,
    /// Requests whose client went away before the end of the answer.
    abandoned,
    /// Requests that were sent a second time.
    replayed,
    /// Connections made to replicas.
    connects,
    /// Connections to replicas that could not be made.
    connect_failures,
    /// Requests that were sent over a connection that was there already.
    reused,
    /// Connections that became tunnels.
    tunnels,
    /// Records of requests that nobody took.
    log_dropped,
}

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
