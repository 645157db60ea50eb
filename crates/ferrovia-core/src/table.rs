//! The tables that edge and node serve from: keyed rows under one version.
//!
//! A table is a set of rows, each with a key of its own, so that a change travels as the rows that changed. The
//! version is `(epoch, revision)`, given by one writer; the epoch grows when a database was restored, so that a
//! reader never mistakes an older truth for a newer one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, EnvironmentId, InstanceId, ReplicaId};
use crate::name::Name;
use crate::settings::RestartPolicy;

/// Version of the rows' shapes. A reader that does not know a format keeps its last good table and says so.
pub const FORMAT: u32 = 1;

/// Which truth a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// Grows when a database was restored.
    pub epoch: u64,
    /// Grows with every change.
    pub revision: u64,
}

/// A row of a table.
pub trait Row: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its key, unique in the table.
    fn key(&self) -> String;
}

/// The rows of one reader under one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "R: Row")]
pub struct Table<R: Row> {
    /// Which truth this is.
    pub version: Version,
    /// The rows by key.
    pub rows: BTreeMap<String, R>,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self {
            version: Version::default(),
            rows: BTreeMap::new(),
        }
    }
}

/// What changed between two versions of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "R: Row")]
pub struct Delta<R: Row> {
    /// The version it applies to.
    pub from: Version,
    /// The version it leads to.
    pub to: Version,
    /// Rows that are new or changed.
    pub upserts: Vec<R>,
    /// Keys of the rows that are gone.
    pub deletes: Vec<String>,
}

/// A delta that does not fit the table at hand: the reader asks for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change from {from:?} does not fit a table at {at:?}")]
pub struct DeltaError {
    /// What the table holds.
    pub at: Version,
    /// What the delta starts from.
    pub from: Version,
}

impl<R: Row> Table<R> {
    /// The table after `delta`.
    ///
    /// # Errors
    /// [`DeltaError`] when the delta starts from another version; the table stays as it was.
    pub fn apply(&mut self, delta: Delta<R>) -> Result<(), DeltaError> {
        if delta.from != self.version {
            return Err(DeltaError {
                at: self.version,
                from: delta.from,
            });
        }
        for key in &delta.deletes {
            self.rows.remove(key);
        }
        for row in delta.upserts {
            self.rows.insert(row.key(), row);
        }
        self.version = delta.to;
        Ok(())
    }
}

/// Who reads a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Public traffic.
    Edge,
    /// Names, firewall, probes, logs.
    Node,
}

impl Audience {
    /// The word used in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Node => "node",
        }
    }
}

/// A row of the edge's table: what a host name leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EdgeRow {
    /// Requests for a host go to an instance.
    Route(Route),
    /// A replica that left the routes and may end what it has in hand.
    Draining(Draining),
}

impl Row for EdgeRow {
    fn key(&self) -> String {
        match self {
            Self::Route(route) => format!("host/{}", route.host),
            Self::Draining(draining) => format!("draining/{}", draining.replica_id),
        }
    }
}

/// A replica on its way out. The row comes with the change that takes the replica out of its routes and goes when
/// the replica is stopped. Requests in flight go on; upgraded connections (WebSockets) are closed in good order at
/// `until_ms`, or when the row goes, so that control stops the replica a few seconds after `until_ms` at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// The replica.
    pub replica_id: ReplicaId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// End of the drain, in milliseconds since 1970: by then the edge closes what never ends by itself.
    pub until_ms: i64,
}

/// Requests for one host name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Host name in lower case, without port.
    pub host: String,
    /// The instance it leads to.
    pub instance_id: InstanceId,
    /// For people: `PROJECT/ENVIRONMENT/SERVICE`.
    pub label: String,
    /// What answers.
    pub target: RouteTarget,
}

/// What answers for a host name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum RouteTarget {
    /// Replicas of one or more deployments.
    Deployments {
        /// With their weights.
        deployments: Vec<WeightedDeployment>,
    },
    /// Requests wait until another target comes, at most this long; then 503.
    Hold {
        /// Longest wait, in milliseconds.
        max_wait_ms: u32,
    },
    /// Put to sleep: the edge asks `node` to wake it and holds the request.
    Asleep,
    /// Nothing answers, and why: a page that says so, with status 503.
    Unavailable {
        /// In a sentence.
        reason: String,
    },
}

/// A deployment's share of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedDeployment {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Share against the others; 0 is none.
    pub weight: u32,
    /// Its replicas.
    pub replicas: Vec<Upstream>,
}

/// One replica that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The replica.
    pub replica_id: ReplicaId,
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Start of the run that was healthy when this row was written, in milliseconds since 1970. A pool belongs to
    /// deployment, replica and start, never to the address alone; `node` tells of later starts.
    pub started_at_ms: i64,
}

/// A row of the node's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NodeRow {
    /// An address that belongs to a replica.
    Member(Member),
    /// A service's stable address and names.
    Service(ServiceAddress),
}

impl Row for NodeRow {
    fn key(&self) -> String {
        match self {
            Self::Member(member) => format!("member/{}", member.address),
            Self::Service(service) => format!("service/{}", service.instance_id),
        }
    }
}

/// A replica's address and what `node` does for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The replica's address on the bridge; its hardware address follows from it ([`hardware_address`]).
    pub address: Ipv4Addr,
    /// The replica.
    pub replica_id: ReplicaId,
    /// Its deployment.
    pub deployment_id: DeploymentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its environment.
    pub environment_id: EnvironmentId,
    /// The environment's number in the firewall, from 1.
    pub mark: u32,
    /// How to tell that it is healthy.
    pub probe: Probe,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Whether it is in its service's life: `starting`, `serving` or `draining`.
    pub phase: MemberPhase,
}

/// Where in its life a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberPhase {
    /// Not yet proven: control counts its tries and starts it again.
    Starting,
    /// Its deployment succeeded: the engine starts it again, `node` counts crashes.
    Serving,
    /// On its way out: nothing starts it again.
    Draining,
}

/// How to tell that a replica is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum Probe {
    /// It runs for this long without an exit.
    Alive {
        /// In milliseconds.
        after_ms: u32,
    },
    /// The port takes a connection; `GET /` is tried once beside it and its status recorded.
    Tcp {
        /// Port.
        port: u16,
    },
    /// The path answers below 400.
    Http {
        /// Port.
        port: u16,
        /// Path with its leading slash.
        path: String,
    },
}

/// A service's stable address in its environment: names lead to it, new connections spread over the backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its environment.
    pub environment_id: EnvironmentId,
    /// The environment's number in the firewall.
    pub mark: u32,
    /// The service's name: answers to `NAME` and `NAME.ferrovia.internal` inside the environment.
    pub name: Name,
    /// The stable address.
    pub address: Ipv4Addr,
    /// Addresses of the replicas that take new connections.
    pub backends: Vec<Ipv4Addr>,
    /// Whether it sleeps: new connections are held by `node`, which wakes it.
    pub asleep: bool,
}

/// The hardware address that the platform gives to an address on its bridge: `02:fe` and the address' four bytes.
pub fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:fe:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str) -> EdgeRow {
        EdgeRow::Route(Route {
            host: host.to_owned(),
            instance_id: InstanceId::from_uuid(uuid::Uuid::nil()),
            label: "shop/production/web".to_owned(),
            target: RouteTarget::Asleep,
        })
    }

    #[test]
    fn a_delta_applies_to_its_own_version_only() {
        let mut table = Table::<EdgeRow>::default();
        let at = |revision| Version { epoch: 1, revision };
        table.version = at(4);
        let delta = Delta {
            from: at(4),
            to: at(5),
            upserts: vec![route("a"), route("b")],
            deletes: vec![],
        };
        table.apply(delta.clone()).unwrap();
        assert_eq!((table.version, table.rows.len()), (at(5), 2));
        assert!(table.apply(delta).is_err());
        let gone = Delta {
            from: at(5),
            to: at(6),
            upserts: vec![],
            deletes: vec!["host/a".to_owned()],
        };
        table.apply(gone).unwrap();
        assert_eq!(table.rows.len(), 1);
    }

    #[test]
    fn an_epoch_outweighs_every_revision() {
        assert!(
            Version {
                epoch: 2,
                revision: 0
            } > Version {
                epoch: 1,
                revision: u64::MAX
            }
        );
    }

    #[test]
    fn hardware_addresses_are_local_and_follow_the_address() {
        assert_eq!(
            hardware_address(Ipv4Addr::new(10, 210, 0, 17)),
            "02:fe:0a:d2:00:11"
        );
    }
}
