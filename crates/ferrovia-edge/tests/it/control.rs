//! A control in memory: rows for edges, and what edges say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_core::table::{
    Audience, Draining, EdgeRow, Route, RouteTarget, Row, Upstream, Version, WeightedDeployment,
};
use ferrovia_table::change::raw;
use ferrovia_table::{Change, InFlightReport, Notifier, Peers, RawRow, Server, Source, SourceError, listen};
use uuid::Uuid;

use crate::eventually;

#[derive(Debug, Default)]
struct State {
    version: Version,
    rows: BTreeMap<String, (u64, Option<EdgeRow>)>,
    acknowledged: BTreeMap<String, Version>,
    reports: BTreeMap<String, InFlightReport>,
    gone: Vec<String>,
}

#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
pub struct Control {
    state: Memory,
    notifier: Notifier,
}

pub fn replica(n: u128) -> ReplicaId {
    ReplicaId::from_uuid(Uuid::from_u128(n))
}

pub fn instance() -> InstanceId {
    InstanceId::from_uuid(Uuid::from_u128(77))
}

pub fn route(host: &str, target: RouteTarget) -> EdgeRow {
    EdgeRow::Route(Route {
        host: host.to_owned(),
        instance_id: instance(),
        label: "p/e/s".to_owned(),
        target,
    })
}

/// A route to replicas with these numbers at these addresses.
pub fn to(host: &str, replicas: &[(u128, SocketAddr)]) -> EdgeRow {
    let upstream = |&(n, address): &(u128, SocketAddr)| {
        let SocketAddr::V4(address) = address else {
            panic!("IPv4 only")
        };
        Upstream {
            replica_id: replica(n),
            address,
            started_at_ms: 1,
        }
    };
    let deployment = WeightedDeployment {
        deployment_id: DeploymentId::from_uuid(Uuid::from_u128(replicas.first().map_or(0, |(n, _)| *n))),
        weight: 1,
        replicas: replicas.iter().map(upstream).collect(),
    };
    route(
        host,
        RouteTarget::Deployments {
            deployments: vec![deployment],
        },
    )
}

pub fn draining(n: u128, until_ms: i64) -> EdgeRow {
    EdgeRow::Draining(Draining {
        replica_id: replica(n),
        instance_id: instance(),
        until_ms,
    })
}

impl Control {
    pub fn start(run_dir: &Path) -> Self {
        let state = State {
            version: Version {
                epoch: 1,
                revision: 1,
            },
            ..State::default()
        };
        let memory = Memory(Arc::new(Mutex::new(state)));
        let server = Server::new(memory.clone(), Peers::same_user());
        let notifier = server.notifier();
        tokio::spawn(server.serve(listen(&run_dir.join("tables.sock")).unwrap()));
        Self {
            state: memory,
            notifier,
        }
    }

    /// Writes rows and takes keys out; the version with them.
    pub fn write(&self, rows: Vec<EdgeRow>, gone: &[String]) -> Version {
        let mut state = self.state.0.lock().unwrap();
        state.version.revision += 1;
        let revision = state.version.revision;
        state
            .rows
            .extend(gone.iter().map(|key| (key.clone(), (revision, None))));
        state
            .rows
            .extend(rows.into_iter().map(|row| (row.key(), (revision, Some(row)))));
        drop(state);
        self.notifier.changed();
        self.version()
    }

    /// Writes rows and waits until the edge serves from them.
    pub async fn publish(&self, rows: Vec<EdgeRow>) -> Version {
        self.replace(rows, &[]).await
    }

    pub async fn replace(&self, rows: Vec<EdgeRow>, gone: &[String]) -> Version {
        let version = self.write(rows, gone);
        eventually("the edge acknowledges", async || {
            self.acknowledged("edge") >= Some(version)
        })
        .await;
        version
    }

    pub fn version(&self) -> Version {
        self.state.0.lock().unwrap().version
    }

    pub fn acknowledged(&self, reader: &str) -> Option<Version> {
        self.state.0.lock().unwrap().acknowledged.get(reader).copied()
    }

    /// What all connected edges have open at a replica; `None` while one has not counted under `version`.
    pub fn open(&self, n: u128, version: Version) -> Option<u32> {
        let state = self.state.0.lock().unwrap();
        state.reports.values().try_fold(0, |sum, report| {
            let open = report
                .open
                .iter()
                .find(|entry| entry.replica_id == replica(n))
                .map_or(0, |entry| entry.open);
            (report.version >= version).then_some(sum + open)
        })
    }

    pub fn readers(&self) -> Vec<String> {
        self.state.0.lock().unwrap().reports.keys().cloned().collect()
    }

    pub fn said_goodbye(&self) -> Vec<String> {
        self.state.0.lock().unwrap().gone.clone()
    }
}

impl Source for Memory {
    async fn head(&self) -> Result<Version, SourceError> {
        Ok(self.0.lock().unwrap().version)
    }

    async fn snapshot(&self, _: Audience) -> Result<(Version, Vec<RawRow>), SourceError> {
        let state = self.0.lock().unwrap();
        let rows = state
            .rows
            .values()
            .filter_map(|(_, row)| row.as_ref())
            .map(raw)
            .collect::<Result<_, _>>()?;
        Ok((state.version, rows))
    }

    async fn changes_since(
        &self,
        _: Audience,
        since: Version,
    ) -> Result<Option<Change<RawRow>>, SourceError> {
        let state = self.0.lock().unwrap();
        let newer = || {
            state
                .rows
                .iter()
                .filter(|(_, (revision, _))| *revision > since.revision)
        };
        Ok(Some(Change {
            from: Some(since),
            to: state.version,
            upserts: newer()
                .filter_map(|(_, (_, row))| row.as_ref())
                .map(raw)
                .collect::<Result<_, _>>()?,
            deletes: newer()
                .filter(|(_, (_, row))| row.is_none())
                .map(|(key, _)| key.clone())
                .collect(),
        }))
    }

    async fn connected(&self, _: &str, _: Audience, _: Version) -> Result<(), SourceError> {
        Ok(())
    }

    async fn acknowledged(&self, reader: &str, version: Version) -> Result<(), SourceError> {
        self.0
            .lock()
            .unwrap()
            .acknowledged
            .insert(reader.to_owned(), version);
        Ok(())
    }

    async fn in_flight(&self, reader: &str, report: InFlightReport) -> Result<(), SourceError> {
        self.0.lock().unwrap().reports.insert(reader.to_owned(), report);
        Ok(())
    }

    async fn trouble(&self, reader: &str, text: String) -> Result<(), SourceError> {
        panic!("{reader}: {text}")
    }

    async fn disconnected(&self, reader: &str, for_good: bool) -> Result<(), SourceError> {
        let mut state = self.0.lock().unwrap();
        state.reports.remove(reader);
        if for_good {
            state.gone.push(reader.to_owned());
        }
        Ok(())
    }

    async fn ahead(&self, _: &str, _: Version) -> Result<(), SourceError> {
        Ok(())
    }
}
