//! The last lines of a replica's log, for the report of a failure.

use std::path::Path;

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_log::{Order, Query, Reader, place};

/// Lines that a report carries.
const LAST_LINES: usize = 50;
/// Longest line in a report, in bytes.
const LINE_BYTES: usize = 1_000;

/// The last lines of a replica; none when they cannot be read, which must not keep a deployment from ending.
pub(super) async fn read(logs: &Path, instance: InstanceId, replica: ReplicaId) -> Vec<String> {
    let directory = place::of_instance(logs, instance);
    let lines = tokio::task::spawn_blocking(move || {
        Reader::new(directory).read(&Query {
            source: Some(replica.to_string()),
            limit: LAST_LINES,
            order: Order::Newest,
            ..Query::default()
        })
    })
    .await;
    match lines {
        Ok(Ok(lines)) => lines
            .into_iter()
            .map(|mut line| {
                line.text.truncate(line.text.floor_char_boundary(LINE_BYTES));
                line.text
            })
            .collect(),
        Ok(Err(error)) => {
            tracing::warn!(%instance, error = &error as &dyn std::error::Error, "last log lines could not be read");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
