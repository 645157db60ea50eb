//! Control as a node meets it: tables from memory, and what the node says noted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrovia_core::id::ReplicaId;
use ferrovia_core::table::{Audience, NodeRow, Version};
use ferrovia_table::change::raw;
use ferrovia_table::{Change, InFlightReport, Notifier, Peers, RawRow, Server, Source, SourceError, listen};
use ferrovia_testkit::wait_for;

#[derive(Default)]
struct State {
    version: Version,
    rows: Vec<NodeRow>,
    acknowledged: Version,
    in_flight: Option<InFlightReport>,
    troubles: Vec<String>,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

/// Serves tables until it is dropped.
pub struct Control {
    memory: Memory,
    notifier: Notifier,
    serving: tokio::task::JoinHandle<()>,
}

impl Control {
    pub fn start(socket: &Path, epoch: u64) -> Self {
        let memory = Memory::default();
        memory.0.lock().unwrap().version = Version { epoch, revision: 0 };
        let server = Server::new(memory.clone(), Peers::same_user());
        let notifier = server.notifier();
        let serving = tokio::spawn(server.serve(listen(socket).unwrap()));
        Self {
            memory,
            notifier,
            serving,
        }
    }

    /// Publishes a table and waits until the node has it in use.
    pub async fn publish(&self, rows: &[NodeRow]) -> Version {
        let version = {
            let mut state = self.memory.0.lock().unwrap();
            state.rows = rows.to_vec();
            state.version.revision += 1;
            state.version
        };
        self.notifier.changed();
        wait_for("the node acknowledges", Duration::from_secs(20), async || {
            (self.memory.0.lock().unwrap().acknowledged == version).then_some(())
        })
        .await;
        version
    }

    /// Private connections of draining replicas, once counted under this version.
    pub fn in_flight(&self, version: Version) -> Option<BTreeMap<ReplicaId, u32>> {
        let state = self.memory.0.lock().unwrap();
        let report = state
            .in_flight
            .as_ref()
            .filter(|report| report.version >= version)?;
        Some(
            report
                .open
                .iter()
                .map(|open| (open.replica_id, open.open))
                .collect(),
        )
    }

    pub fn troubles(&self) -> Vec<String> {
        self.memory.0.lock().unwrap().troubles.clone()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Source for Memory {
    async fn head(&self) -> Result<Version, SourceError> {
        Ok(self.0.lock().unwrap().version)
    }

    async fn snapshot(&self, _: Audience) -> Result<(Version, Vec<RawRow>), SourceError> {
        let state = self.0.lock().unwrap();
        Ok((
            state.version,
            state.rows.iter().map(raw).collect::<Result<_, _>>()?,
        ))
    }

    async fn changes_since(&self, _: Audience, _: Version) -> Result<Option<Change<RawRow>>, SourceError> {
        Ok(None)
    }

    async fn connected(&self, _: &str, _: Audience, _: Version) -> Result<(), SourceError> {
        Ok(())
    }

    async fn acknowledged(&self, _: &str, version: Version) -> Result<(), SourceError> {
        self.0.lock().unwrap().acknowledged = version;
        Ok(())
    }

    async fn in_flight(&self, _: &str, report: InFlightReport) -> Result<(), SourceError> {
        self.0.lock().unwrap().in_flight = Some(report);
        Ok(())
    }

    async fn trouble(&self, _: &str, text: String) -> Result<(), SourceError> {
        self.0.lock().unwrap().troubles.push(text);
        Ok(())
    }

    async fn disconnected(&self, _: &str, _: bool) -> Result<(), SourceError> {
        Ok(())
    }

    async fn ahead(&self, _: &str, _: Version) -> Result<(), SourceError> {
        Ok(())
    }
}
