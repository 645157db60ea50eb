//! A node that reads the real tables and tells what it sees of the fake engine.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrovia_core::observation::{Health, Observation, asked};
use ferrovia_core::table::{Audience, Member, NodeRow, Probe, Table};
use ferrovia_core::workload::{Observed, ReplicaStatus};
use ferrovia_engine::fake::Memory;
use ferrovia_store::Clock;
use ferrovia_table::observe::{Board, ObservationServer};
use ferrovia_table::{Apply, Changed, InFlightReport, Peers, Reader, ReaderHandle, ReaderOptions, listen};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub struct Node {
    pub table: Arc<Mutex<Table<NodeRow>>>,
    options: ReaderOptions,
    reader: JoinHandle<()>,
    handle: ReaderHandle,
    tasks: Vec<JoinHandle<()>>,
}

struct Taker {
    table: Arc<Mutex<Table<NodeRow>>>,
    handle: ReaderHandle,
}

impl Apply<NodeRow> for Taker {
    async fn apply(&mut self, table: &Table<NodeRow>, _: Changed<'_>) -> Result<(), String> {
        *self.table.lock().unwrap() = table.clone();
        self.handle.report(InFlightReport {
            version: table.version,
            open: Vec::new(),
        });
        Ok(())
    }
}

impl Node {
    pub fn start(directory: &Path, engine: Memory, clock: Clock) -> Self {
        let options = ReaderOptions {
            directory: Some(directory.join("node")),
            socket: directory.join("tables.sock"),
            name: "node".to_owned(),
            audience: Audience::Node,
            peers: Peers::same_user(),
        };
        let table = Arc::new(Mutex::new(Table::default()));
        let (reader, handle) = read(&options, &table);
        let board = Board::default();
        let (wake, wakes) = mpsc::channel(1);
        let server = ObservationServer::new(board.clone(), wake, Peers::same_user());
        let listener = listen(&directory.join("node.sock")).unwrap();
        let seen = table.clone();
        let tasks = vec![
            tokio::spawn(async move {
                let _wakes = wakes;
                server.serve(listener).await;
            }),
            tokio::spawn(async move {
                loop {
                    look(&engine, &seen, &board, clock.now_ms());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }),
        ];
        Self {
            table,
            options,
            reader,
            handle,
            tasks,
        }
    }

    /// Ends the reader and starts it again from its last good table: it connects at once.
    pub async fn restart_reader(&mut self) {
        self.handle.stop(false);
        (&mut self.reader).await.unwrap();
        (self.reader, self.handle) = read(&self.options, &self.table);
    }

    /// The members that it knows.
    pub fn members(&self) -> Vec<Member> {
        members(&self.table.lock().unwrap())
    }
}

fn read(options: &ReaderOptions, table: &Arc<Mutex<Table<NodeRow>>>) -> (JoinHandle<()>, ReaderHandle) {
    let (reader, handle) = Reader::<NodeRow>::open(options.clone()).unwrap();
    let taker = Taker {
        table: table.clone(),
        handle: handle.clone(),
    };
    let task = tokio::spawn(async move {
        let _ = reader.run(taker).await;
    });
    (task, handle)
}

fn members(table: &Table<NodeRow>) -> Vec<Member> {
    table
        .rows
        .values()
        .filter_map(|row| match row {
            NodeRow::Member(member) => Some(member.clone()),
            NodeRow::Service(_) => None,
        })
        .collect()
}

fn look(engine: &Memory, table: &Mutex<Table<NodeRow>>, board: &Board, now_ms: i64) {
    engine.tick();
    let members = members(&table.lock().unwrap());
    let containers = engine.replicas();
    for container in &containers {
        let member = members
            .iter()
            .find(|member| member.replica_id == container.replica_id);
        let before = board.find(container.replica_id);
        board.set(Observation {
            replica_id: container.replica_id,
            deployment_id: container.deployment_id,
            instance_id: container.instance_id,
            handle: container.handle.clone(),
            started_at_ms: container.started_at_ms,
            health: health(engine, container, member, before.as_ref(), now_ms),
            last_exit: None,
            crashes: 0,
            listens_on: vec!["127.0.0.1:8080".to_owned()],
            root_status: engine.answer(&container.handle, "/"),
            log_drained: matches!(container.status, ReplicaStatus::Exited(_)),
            seen_at_ms: now_ms,
        });
    }
    let there: HashSet<_> = containers.iter().map(|container| container.replica_id).collect();
    for seen in board.all() {
        if !there.contains(&seen.replica_id) {
            board.remove(seen.replica_id);
        }
    }
}

fn health(
    engine: &Memory,
    container: &Observed,
    member: Option<&Member>,
    before: Option<&Observation>,
    now_ms: i64,
) -> Health {
    if container.status != ReplicaStatus::Running {
        return Health::Down;
    }
    let path = match member.map(|member| &member.probe) {
        Some(Probe::Http { path, .. }) => path.as_str(),
        _ => "/",
    };
    match engine.answer(&container.handle, path) {
        Some(status) if path == "/" || status < 400 => {
            let since_ms = match before.map(|before| &before.health) {
                Some(Health::Healthy { since_ms }) => *since_ms,
                _ => now_ms,
            };
            Health::Healthy { since_ms }
        }
        Some(status) => Health::Starting {
            last: Some(format!("{} answered {status}", asked(path))),
        },
        None => Health::Starting {
            last: Some("connection refused".into()),
        },
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain([&self.reader]) {
            task.abort();
        }
    }
}
