//! Reads what the replicas use, as long as somebody wants to know.
//!
//! One after the other: figures are not worth a burst of work for the engine. A round is late rather than early.

use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::observation::Figures;
use ferrovia_core::workload::{Observed, ReplicaStatus};
use ferrovia_engine::Engine;
use ferrovia_table::observe::Board;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::now_ms;
use crate::logs::Containers;

/// Pause between two rounds, in milliseconds.
const PAUSE_MS: u64 = 10_000;

/// Tells the board the figures of everything that runs, until it is dropped.
pub async fn report(
    engine: Arc<dyn Engine>,
    board: Board,
    mut containers: watch::Receiver<Option<Containers>>,
) {
    loop {
        board.figures_wanted().await;
        let Ok(newest) = containers
            .wait_for(Option::is_some)
            .await
            .map(|newest| newest.clone())
        else {
            return;
        };
        let mut all = Vec::new();
        for observed in newest.iter().flat_map(|newest| newest.iter()) {
            all.extend(read(&engine, observed).await);
        }
        board.set_figures(all);
        sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

async fn read(engine: &Arc<dyn Engine>, observed: &Observed) -> Option<Figures> {
    if !matches!(observed.status, ReplicaStatus::Running | ReplicaStatus::Paused) {
        return None;
    }
    match engine.stats(&observed.handle).await {
        Ok(stats) => stats.map(|stats| Figures {
            replica_id: observed.replica_id,
            started_at_ms: observed.started_at_ms,
            cpu_nanos: stats.cpu_nanos,
            memory_bytes: stats.memory_bytes,
            memory_limit_bytes: stats.memory_limit_bytes,
            received_bytes: stats.received_bytes,
            sent_bytes: stats.sent_bytes,
            pids: stats.pids,
            read_at_ms: now_ms(),
        }),
        Err(error) => {
            tracing::debug!(container = observed.handle, "no figures were read: {error}");
            None
        }
    }
}
