//! The table as workers use it: host to shares of replicas, with what `node` sees mixed in.
//!
//! Compiled once for all workers and shared, never changed. Each pool of connections has a number: one for every
//! distinct (deployment, replica, start of the container, address), so that a connection is never used for anything
//! but the very run it was made to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_core::table::{EdgeRow, RouteTarget, Table, Upstream, Version};
use ferrovia_table::observe::Observations;
use tokio::sync::Notify;

use crate::open::OpenCount;

/// What hosts lead to.
#[derive(Debug, Default)]
pub struct Routes {
    /// The table's version.
    pub version: Version,
    hosts: HashMap<String, Route>,
    /// Replicas on their way out and in no route, with the end of their drain in milliseconds since 1970.
    pub draining: HashMap<ReplicaId, i64>,
    /// The pools that may be used, by number.
    pub pools: HashMap<u64, Arc<Replica>>,
}

/// What one host leads to.
#[derive(Debug)]
pub struct Route {
    /// The instance.
    pub instance_id: InstanceId,
    /// What answers.
    pub target: Target,
}

/// What answers for a host.
#[derive(Debug)]
pub enum Target {
    /// Replicas.
    Shares(Vec<Share>),
    /// Nothing yet: wait so many milliseconds.
    Hold(u32),
    /// Nothing until it is woken.
    Asleep,
    /// Nothing, for this reason.
    Unavailable(String),
}

/// A deployment's part of a route.
#[derive(Debug)]
pub struct Share {
    /// Against the others.
    pub weight: u32,
    /// Its replicas.
    pub replicas: Vec<Arc<Replica>>,
}

/// One run of a replica.
#[derive(Debug)]
pub struct Replica {
    /// The number of its pool.
    pub pool: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// The replica.
    pub replica_id: ReplicaId,
    /// Whether it is thought to answer.
    pub healthy: bool,
    /// What is open towards the replica, over all of its runs.
    pub open: Arc<OpenCount>,
}

impl Routes {
    /// What a host leads to.
    pub fn find(&self, host: &str) -> Option<&Route> {
        self.hosts.get(host)
    }

    /// How many hosts are known.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }
}

/// One run of a replica at one address.
type Run = (DeploymentId, ReplicaId, i64, SocketAddr);

/// Makes routes of tables and remembers the numbers and counts that go on from one to the next.
#[derive(Debug)]
pub struct Compiler {
    workers: usize,
    idle: Arc<Notify>,
    numbers: HashMap<Run, u64>,
    next_number: u64,
    counts: HashMap<ReplicaId, Arc<OpenCount>>,
    starts: HashMap<ReplicaId, i64>,
}

impl Compiler {
    /// A compiler for so many workers; `idle` is told when a replica on its way out may have nothing open any more.
    pub fn new(workers: usize, idle: Arc<Notify>) -> Self {
        Self {
            workers,
            idle,
            numbers: HashMap::new(),
            next_number: 1,
            counts: HashMap::new(),
            starts: HashMap::new(),
        }
    }

    /// The routes of a table and of what `node` sees.
    pub fn compile(&mut self, table: &Table<EdgeRow>, seen: &Observations) -> Routes {
        let mut routes = Routes {
            version: table.version,
            ..Routes::default()
        };
        let mut numbers = HashMap::new();
        for row in table.rows.values() {
            match row {
                EdgeRow::Route(route) => {
                    let target = match &route.target {
                        RouteTarget::Deployments { deployments } => Target::Shares(
                            deployments
                                .iter()
                                .map(|share| Share {
                                    weight: share.weight,
                                    replicas: share
                                        .replicas
                                        .iter()
                                        .map(|upstream| {
                                            let run = self.run(share.deployment_id, upstream, seen);
                                            self.replica(run, seen, &mut numbers, &mut routes.pools)
                                        })
                                        .collect(),
                                })
                                .collect(),
                        ),
                        RouteTarget::Hold { max_wait_ms } => Target::Hold(*max_wait_ms),
                        RouteTarget::Asleep => Target::Asleep,
                        RouteTarget::Unavailable { reason } => Target::Unavailable(reason.clone()),
                    };
                    let compiled = Route {
                        instance_id: route.instance_id,
                        target,
                    };
                    routes.hosts.insert(route.host.clone(), compiled);
                }
                EdgeRow::Draining(draining) => {
                    routes.draining.insert(draining.replica_id, draining.until_ms);
                }
            }
        }
        self.numbers = numbers;
        self.forget(&mut routes);
        routes
    }

    /// Whether the routes of the table that was compiled last would be others with what is seen now. Most news is of
    /// replicas that stand in no route, or tells only that the same was seen again.
    pub fn would_change(&self, before: &Observations, now: &Observations) -> bool {
        let said = |seen: &Observations, replica: &ReplicaId| {
            let seen = seen.replicas.get(replica)?;
            Some((seen.started_at_ms, seen.health.is_healthy()))
        };
        before.connected != now.connected
            || self
                .starts
                .keys()
                .any(|replica| said(before, replica) != said(now, replica))
    }

    /// What is open towards replicas that have something open.
    pub fn open(&self) -> Vec<(ReplicaId, u32)> {
        let open = self
            .counts
            .iter()
            .map(|(&replica, count)| (replica, count.total()));
        open.filter(|(_, total)| *total > 0).collect()
    }

    /// The run of a replica: the newest start that anybody told of.
    fn run(&mut self, deployment: DeploymentId, upstream: &Upstream, seen: &Observations) -> Run {
        let start = self
            .starts
            .entry(upstream.replica_id)
            .or_insert(upstream.started_at_ms);
        *start = (*start).max(upstream.started_at_ms);
        if let Some(observed) = seen
            .replicas
            .get(&upstream.replica_id)
            .and_then(|seen| seen.started_at_ms)
        {
            *start = (*start).max(observed);
        }
        (
            deployment,
            upstream.replica_id,
            *start,
            SocketAddr::V4(upstream.address),
        )
    }

    fn replica(
        &mut self,
        run: Run,
        seen: &Observations,
        numbers: &mut HashMap<Run, u64>,
        pools: &mut HashMap<u64, Arc<Replica>>,
    ) -> Arc<Replica> {
        let number = *numbers.entry(run).or_insert_with(|| {
            self.numbers.get(&run).copied().unwrap_or_else(|| {
                self.next_number += 1;
                self.next_number
            })
        });
        let (_, replica_id, _, address) = run;
        let replica = pools.entry(number).or_insert_with(|| {
            let (workers, idle) = (self.workers, &self.idle);
            let count = self
                .counts
                .entry(replica_id)
                .or_insert_with(|| Arc::new(OpenCount::new(workers, Arc::clone(idle))));
            // Without `node`, what it said last is no reason to pass anybody over.
            let healthy = !seen.connected
                || seen
                    .replicas
                    .get(&replica_id)
                    .is_none_or(|seen| seen.health.is_healthy());
            Arc::new(Replica {
                pool: number,
                address,
                replica_id,
                healthy,
                open: Arc::clone(count),
            })
        });
        Arc::clone(replica)
    }

    /// Notes who is in no route any more, and forgets those who have nothing open either.
    fn forget(&mut self, routes: &mut Routes) {
        let routed: std::collections::HashSet<ReplicaId> =
            routes.pools.values().map(|replica| replica.replica_id).collect();
        routes.draining.retain(|replica, _| !routed.contains(replica));
        self.counts.retain(|replica, count| {
            let leaving = !routed.contains(replica);
            count.set_leaving(leaving);
            // A worker that has not swapped yet may still count one in: kept while anybody else holds the count.
            !leaving || Arc::strong_count(count) > 1
        });
        self.starts.retain(|replica, _| routed.contains(replica));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use ferrovia_core::observation::{Health, Observation};
    use ferrovia_core::table::{Draining, Row, WeightedDeployment};
    use uuid::Uuid;

    use super::*;

    /// A share whose replicas have these pool numbers.
    pub(crate) fn share(weight: u32, pools: &[u64]) -> Share {
        let replica = |&pool: &u64| {
            Arc::new(Replica {
                pool,
                address: ([127, 0, 0, 1], 1).into(),
                replica_id: ReplicaId::from_uuid(Uuid::from_u128(pool.into())),
                healthy: true,
                open: Arc::new(OpenCount::new(1, Arc::default())),
            })
        };
        Share {
            weight,
            replicas: pools.iter().map(replica).collect(),
        }
    }

    pub(crate) fn table(replicas: &[(u128, i64)], draining: &[u128]) -> Table<EdgeRow> {
        let upstream = |&(n, started_at_ms): &(u128, i64)| Upstream {
            replica_id: ReplicaId::from_uuid(Uuid::from_u128(n)),
            address: "127.0.0.1:80".parse().unwrap(),
            started_at_ms,
        };
        let mut rows = vec![EdgeRow::Route(ferrovia_core::table::Route {
            host: "a".to_owned(),
            instance_id: InstanceId::from_uuid(Uuid::nil()),
            label: "p/e/s".to_owned(),
            target: RouteTarget::Deployments {
                deployments: vec![WeightedDeployment {
                    deployment_id: DeploymentId::from_uuid(Uuid::nil()),
                    weight: 1,
                    replicas: replicas.iter().map(upstream).collect(),
                }],
            },
        })];
        rows.extend(draining.iter().map(|&n| {
            EdgeRow::Draining(Draining {
                replica_id: ReplicaId::from_uuid(Uuid::from_u128(n)),
                instance_id: InstanceId::from_uuid(Uuid::nil()),
                until_ms: 5,
            })
        }));
        Table {
            version: Version::default(),
            rows: rows.into_iter().map(|row| (row.key(), row)).collect(),
        }
    }

    pub(crate) fn seen(n: u128, start: i64, health: Health) -> Observations {
        let replica_id = ReplicaId::from_uuid(Uuid::from_u128(n));
        let observation = Observation {
            replica_id,
            deployment_id: DeploymentId::from_uuid(Uuid::nil()),
            instance_id: InstanceId::from_uuid(Uuid::nil()),
            handle: String::new(),
            started_at_ms: Some(start),
            health,
            last_exit: None,
            crashes: 0,
            listens_on: vec![],
            root_status: None,
            log_drained: false,
            seen_at_ms: 0,
        };
        Observations {
            connected: true,
            replicas: BTreeMap::from([(replica_id, Arc::new(observation))]),
        }
    }

    fn pools(routes: &Routes) -> Vec<u64> {
        let Target::Shares(shares) = &routes.find("a").unwrap().target else {
            panic!()
        };
        shares
            .iter()
            .flat_map(|share| &share.replicas)
            .map(|replica| replica.pool)
            .collect()
    }

    #[test]
    fn a_pool_lives_as_long_as_its_run() {
        let mut compiler = Compiler::new(1, Arc::default());
        let none = Observations::default();
        let first = pools(&compiler.compile(&table(&[(1, 10), (2, 10)], &[]), &none));
        let same = pools(&compiler.compile(&table(&[(1, 10), (2, 10)], &[]), &none));
        assert_eq!(first, same);
        let restarted =
            pools(&compiler.compile(&table(&[(1, 10), (2, 10)], &[]), &seen(1, 20, Health::Down)));
        assert!(restarted[0] != first[0] && restarted[1] == first[1]);
        // The start that was seen is not forgotten when `node` goes away and the table is behind.
        let alone = pools(&compiler.compile(&table(&[(1, 10), (2, 10)], &[]), &none));
        assert_eq!(alone, restarted);
        // The same containers at the same addresses for another deployment: nothing is shared.
        let mut other = table(&[(1, 10), (2, 10)], &[]);
        for row in other.rows.values_mut() {
            if let EdgeRow::Route(route) = row
                && let RouteTarget::Deployments { deployments } = &mut route.target
            {
                deployments[0].deployment_id = DeploymentId::from_uuid(Uuid::from_u128(9));
            }
        }
        let other = pools(&compiler.compile(&other, &none));
        assert!(other.iter().all(|number| !alone.contains(number)), "{other:?}");
    }

    #[test]
    fn counts_outlive_the_route_until_nothing_is_open() {
        let mut compiler = Compiler::new(2, Arc::default());
        let none = Observations::default();
        let before = compiler.compile(&table(&[(1, 10)], &[]), &none);
        let held = Arc::clone(before.pools.values().next().unwrap());
        held.open.enter(1);
        drop(before);
        let after = compiler.compile(&table(&[(2, 10)], &[1]), &none);
        assert_eq!(after.draining.len(), 1);
        assert_eq!(compiler.open(), [(held.replica_id, 1)]);
        held.open.leave(1);
        drop(held);
        compiler.compile(&table(&[(2, 10)], &[1]), &none);
        assert_eq!(compiler.counts.len(), 1);
    }

    #[test]
    fn health_counts_only_while_node_is_there_and_draining_only_outside_the_routes() {
        let mut compiler = Compiler::new(1, Arc::default());
        let healthy = |routes: &Routes| routes.pools.values().all(|replica| replica.healthy);
        let mut sick = seen(1, 10, Health::Unhealthy { why: String::new() });
        let routes = compiler.compile(&table(&[(1, 10)], &[1]), &sick);
        assert!(!healthy(&routes) && routes.draining.is_empty());
        sick.connected = false;
        assert!(healthy(&compiler.compile(&table(&[(1, 10)], &[]), &sick)));
    }
}
