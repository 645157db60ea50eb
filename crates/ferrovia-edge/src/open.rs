//! What is open towards each replica: one count per worker, added up for reports.
//!
//! A request is counted in the same step in which its worker resolves the route, with no wait between: a worker is one
//! thread, so that it has either swapped the table or counted the request. Once every worker has swapped, a replica
//! that left the routes can therefore only lose requests, and a sum of zero means that it has none and gets none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

/// The counts of one replica.
#[derive(Debug)]
pub struct OpenCount {
    by_worker: Box<[AtomicU32]>,
    leaving: AtomicBool,
    idle: Arc<Notify>,
}

impl OpenCount {
    /// Counts for a number of workers; `idle` is told when a replica that is leaving has one count less at zero.
    pub fn new(workers: usize, idle: Arc<Notify>) -> Self {
        Self {
            by_worker: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            leaving: AtomicBool::new(false),
            idle,
        }
    }

    /// What is open at all workers.
    pub fn total(&self) -> u32 {
        self.by_worker
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .sum()
    }

    /// Whether the replica is out of the routes, so that zero is awaited.
    pub fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Release);
    }

    /// Counts one more at this worker.
    pub fn enter(&self, worker: usize) {
        if let Some(count) = self.by_worker.get(worker) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts one less at this worker.
    pub fn leave(&self, worker: usize) {
        let Some(count) = self.by_worker.get(worker) else {
            return;
        };
        if count.fetch_sub(1, Ordering::AcqRel) == 1 && self.leaving.load(Ordering::Acquire) {
            self.idle.notify_one();
        }
    }
}
