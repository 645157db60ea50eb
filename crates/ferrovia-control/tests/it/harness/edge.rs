//! An edge that reads the real tables, sends no requests, and is watched: whom it would send to must answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrovia_core::id::ReplicaId;
use ferrovia_core::observation::InFlight;
use ferrovia_core::table::{Audience, EdgeRow, RouteTarget, Table, Upstream, Version};
use ferrovia_core::workload::ReplicaStatus;
use ferrovia_engine::fake::Memory;
use ferrovia_table::{Apply, Changed, InFlightReport, Peers, Reader, ReaderHandle, ReaderOptions};
use tokio::task::JoinHandle;

pub struct Edge {
    pub state: Arc<Mutex<State>>,
    options: ReaderOptions,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub struct State {
    pub table: Table<EdgeRow>,
    /// What is in flight.
    pub open: BTreeMap<ReplicaId, u32>,
    /// Tables are taken but slowly.
    pub slow_ms: u64,
    handle: Option<ReaderHandle>,
}

struct Taker(Arc<Mutex<State>>);

impl Apply<EdgeRow> for Taker {
    async fn apply(&mut self, table: &Table<EdgeRow>, _: Changed<'_>) -> Result<(), String> {
        let slow_ms = self.0.lock().unwrap().slow_ms;
        tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        self.0.lock().unwrap().table = table.clone();
        report(&self.0);
        Ok(())
    }
}

fn report(state: &Mutex<State>) {
    let state = state.lock().unwrap();
    let open = state
        .open
        .iter()
        .map(|(&replica_id, &open)| InFlight { replica_id, open })
        .collect();
    if let Some(handle) = &state.handle {
        handle.report(InFlightReport {
            version: state.table.version,
            open,
        });
    }
}

impl Edge {
    pub fn start(directory: &Path, name: &str) -> Self {
        let options = ReaderOptions {
            directory: Some(directory.join(name)),
            socket: directory.join("tables.sock"),
            name: name.to_owned(),
            audience: Audience::Edge,
            peers: Peers::same_user(),
        };
        let state = Arc::default();
        let task = read(&options, &state);
        Self { state, options, task }
    }

    /// Ends the reader and starts it again from its last good table: it connects at once.
    pub async fn restart(&mut self) {
        let handle = self.state.lock().unwrap().handle.clone();
        handle.as_ref().unwrap().stop(false);
        (&mut self.task).await.unwrap();
        self.task = read(&self.options, &self.state);
    }

    /// Ends the reader; with `for_good`, control is told that it does not come back.
    pub async fn leave(mut self, for_good: bool) {
        let handle = self.state.lock().unwrap().handle.clone();
        handle.as_ref().unwrap().stop(for_good);
        (&mut self.task).await.unwrap();
    }

    /// What it serves from.
    pub fn version(&self) -> Version {
        self.state.lock().unwrap().table.version
    }

    /// Sets what is in flight towards a replica.
    pub fn set_open(&self, replica: ReplicaId, open: u32) {
        self.state.lock().unwrap().open.insert(replica, open);
        report(&self.state);
    }

    /// Where requests for a host go.
    pub fn route(&self, host: &str) -> Option<RouteTarget> {
        let state = self.state.lock().unwrap();
        match state.table.rows.get(&format!("host/{host}"))? {
            EdgeRow::Route(route) => Some(route.target.clone()),
            EdgeRow::Draining(_) => None,
        }
    }

    /// Looks all the time whether somebody answers where it would send to.
    pub fn watch(
        &self,
        engine: Memory,
        host: String,
        must_answer: Arc<Mutex<bool>>,
        violations: Arc<Mutex<Vec<String>>>,
    ) -> JoinHandle<()> {
        let state = self.state.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !*must_answer.lock().unwrap() {
                    continue;
                }
                let (version, named) = new_requests(&state, &host);
                let answers = named.iter().any(|upstream| answers(&engine, upstream.replica_id));
                // Only what held all the time that was looked counts.
                if new_requests(&state, &host).0 == version && !answers && *must_answer.lock().unwrap() {
                    violations
                        .lock()
                        .unwrap()
                        .push(format!("nobody answers at {version:?}: {named:?}"));
                }
            }
        })
    }
}

fn read(options: &ReaderOptions, state: &Arc<Mutex<State>>) -> JoinHandle<()> {
    let (reader, handle) = Reader::<EdgeRow>::open(options.clone()).unwrap();
    state.lock().unwrap().handle = Some(handle);
    let taker = Taker(state.clone());
    tokio::spawn(async move {
        let _ = reader.run(taker).await;
    })
}

fn answers(engine: &Memory, id: ReplicaId) -> bool {
    engine.replicas().iter().any(|container| {
        container.replica_id == id
            && container.status == ReplicaStatus::Running
            && engine.answer(&container.handle, "/").is_some()
    })
}

fn new_requests(state: &Mutex<State>, host: &str) -> (Version, Vec<Upstream>) {
    let state = state.lock().unwrap();
    let named = match state.table.rows.get(&format!("host/{host}")) {
        Some(EdgeRow::Route(route)) => match &route.target {
            RouteTarget::Deployments { deployments } => deployments
                .iter()
                .filter(|deployment| deployment.weight > 0)
                .flat_map(|deployment| deployment.replicas.clone())
                .collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    (state.table.version, named)
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}
