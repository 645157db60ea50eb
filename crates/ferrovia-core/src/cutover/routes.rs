//! The rows of the tables that one instance gives: computed anew from its replicas' phases at every change, so that
//! the cost does not depend on how many environments there are.
//!
//! Rows follow from phases alone, never from health: edges and nodes learn health from observations, at once and
//! without control.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Attempt, Phase, Replica};
use crate::id::{DeploymentId, EnvironmentId, InstanceId};
use crate::intent::Intent;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::settings::PORTLESS_HEALTHY_AFTER_MS;
use crate::table::{
    Draining, EdgeRow, Member, MemberPhase, NodeRow, Probe, Route, RouteTarget, ServiceAddress, Upstream,
    WeightedDeployment,
};

/// Where an instance stands in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its environment.
    pub environment_id: EnvironmentId,
    /// The environment's number in the firewall.
    pub mark: u32,
    /// The service's name.
    pub service: Name,
    /// `PROJECT/ENVIRONMENT/SERVICE`.
    pub label: String,
    /// The instance's stable address.
    pub virtual_address: Ipv4Addr,
    /// Whether the instance or something above it is deleted.
    pub deleted: bool,
    /// Host names that lead to whatever the instance serves.
    pub hosts: Vec<String>,
    /// Host names that lead to one deployment only.
    pub deployment_hosts: Vec<(DeploymentId, String)>,
}

/// The rows of one instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableRows {
    /// For edges.
    pub edge: Vec<EdgeRow>,
    /// For nodes.
    pub node: Vec<NodeRow>,
}

/// The rows of the instance.
pub fn table_rows(place: &Place, intent: &Intent, attempts: &[Attempt], replicas: &[Replica]) -> TableRows {
    let rows = Rows {
        place,
        intent,
        attempts,
        replicas,
    };
    TableRows {
        edge: rows.edge(),
        node: rows.node(),
    }
}

struct Rows<'a> {
    place: &'a Place,
    intent: &'a Intent,
    attempts: &'a [Attempt],
    replicas: &'a [Replica],
}

impl<'a> Rows<'a> {
    fn attempt(&self, id: DeploymentId) -> Option<&'a Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    fn serving(&self, deployment: DeploymentId) -> impl Iterator<Item = &'a Replica> {
        self.replicas
            .iter()
            .filter(move |replica| replica.deployment_id == deployment && replica.phase == Phase::Serving)
    }

    /// The deployment that new requests go to: the candidate once it is in the routes, else the target, else the
    /// newest that serves.
    fn winner(&self) -> Option<DeploymentId> {
        let mut serving: Vec<&Attempt> = self
            .attempts
            .iter()
            .filter(|attempt| self.serving(attempt.id).next().is_some())
            .collect();
        serving.sort_by_key(|attempt| {
            (
                attempt.outcome == Outcome::Deploying,
                Some(attempt.id) == self.intent.target,
                attempt.number,
            )
        });
        serving.last().map(|attempt| attempt.id)
    }

    fn upstreams(&self, deployment: DeploymentId) -> Vec<Upstream> {
        let port = self.attempt(deployment).and_then(|attempt| attempt.port);
        let mut upstreams: Vec<Upstream> = self
            .serving(deployment)
            .filter_map(|replica| {
                Some(Upstream {
                    replica_id: replica.id,
                    address: SocketAddrV4::new(replica.address, port?),
                    started_at_ms: replica.started_at_ms.unwrap_or_default(),
                })
            })
            .collect();
        upstreams.sort_by_key(|upstream| upstream.replica_id);
        upstreams
    }

    fn weighted(&self, deployment: DeploymentId, weight: u32) -> Option<WeightedDeployment> {
        let replicas = self.upstreams(deployment);
        (!replicas.is_empty()).then_some(WeightedDeployment {
            deployment_id: deployment,
            weight,
            replicas,
        })
    }

    fn route_target(&self) -> RouteTarget {
        if self.intent.asleep {
            return RouteTarget::Asleep;
        }
        let winner = self.winner();
        let mut ids: Vec<DeploymentId> = self.attempts.iter().map(|attempt| attempt.id).collect();
        ids.sort_unstable();
        let deployments: Vec<WeightedDeployment> = ids
            .into_iter()
            .filter_map(|id| self.weighted(id, u32::from(Some(id) == winner)))
            .collect();
        if deployments.is_empty() {
            RouteTarget::Unavailable {
                reason: self.reason(),
            }
        } else {
            RouteTarget::Deployments { deployments }
        }
    }

    /// Why nothing answers, for the visitor's page and the operator.
    fn reason(&self) -> String {
        let label = &self.place.label;
        let Some(newest) = self.attempts.iter().max_by_key(|attempt| attempt.number) else {
            return format!("`{label}` has not been deployed");
        };
        let number = newest.number;
        match newest.outcome {
            Outcome::Queued | Outcome::Building => format!("`v{number}` of `{label}` is being built"),
            Outcome::Deploying => format!("`v{number}` of `{label}` is starting"),
            _ if self.intent.target.is_none() => format!("`{label}` is not running"),
            _ if self.intent.replicas == 0 => format!("`{label}` is scaled to no replicas"),
            Outcome::Succeeded if newest.port.is_none() => {
                format!("`{label}` takes no requests: it has no port")
            }
            _ => format!("no replica of `{label}` is ready"),
        }
    }

    fn edge(&self) -> Vec<EdgeRow> {
        let mut rows = Vec::new();
        let route = |host: &str, target: RouteTarget| {
            EdgeRow::Route(Route {
                host: host.to_owned(),
                instance_id: self.place.instance_id,
                label: self.place.label.clone(),
                target,
            })
        };
        if !self.place.deleted {
            let target = self.route_target();
            rows.extend(self.place.hosts.iter().map(|host| route(host, target.clone())));
            for (deployment, host) in &self.place.deployment_hosts {
                if let Some(weighted) = self.weighted(*deployment, 1) {
                    let deployments = vec![weighted];
                    rows.push(route(host, RouteTarget::Deployments { deployments }));
                }
            }
        }
        for replica in self
            .replicas
            .iter()
            .filter(|replica| replica.phase == Phase::Draining)
        {
            let drain_ms = match self.attempt(replica.deployment_id) {
                _ if self.place.deleted => 0,
                Some(attempt) => attempt.settings.drain_ms,
                None => crate::settings::DEFAULT_DRAIN_MS,
            };
            rows.push(EdgeRow::Draining(Draining {
                replica_id: replica.id,
                instance_id: self.place.instance_id,
                until_ms: replica.phase_ms.saturating_add(i64::from(drain_ms)),
            }));
        }
        rows
    }

    fn node(&self) -> Vec<NodeRow> {
        let place = self.place;
        let mut rows = Vec::new();
        for replica in self
            .replicas
            .iter()
            .filter(|replica| replica.phase != Phase::Leaving)
        {
            let Some(attempt) = self.attempt(replica.deployment_id) else {
                continue;
            };
            let phase = match replica.phase {
                Phase::Serving if attempt.outcome == Outcome::Succeeded => MemberPhase::Serving,
                Phase::Admitting | Phase::Starting | Phase::Serving => MemberPhase::Starting,
                Phase::Draining | Phase::Stopping | Phase::Leaving => MemberPhase::Draining,
            };
            rows.push(NodeRow::Member(Member {
                address: replica.address,
                replica_id: replica.id,
                deployment_id: replica.deployment_id,
                instance_id: place.instance_id,
                environment_id: place.environment_id,
                mark: place.mark,
                probe: probe(attempt),
                restart: attempt.settings.restart,
                phase,
            }));
        }
        if !place.deleted {
            let mut backends: Vec<Ipv4Addr> = self
                .winner()
                .into_iter()
                .flat_map(|winner| self.serving(winner))
                .map(|replica| replica.address)
                .collect();
            backends.sort_unstable();
            rows.push(NodeRow::Service(ServiceAddress {
                instance_id: place.instance_id,
                environment_id: place.environment_id,
                mark: place.mark,
                name: place.service.clone(),
                address: place.virtual_address,
                backends,
                asleep: self.intent.asleep,
            }));
        }
        rows
    }
}

fn probe(attempt: &Attempt) -> Probe {
    match (attempt.port, &attempt.settings.health_path) {
        (None, _) => Probe::Alive {
            after_ms: PORTLESS_HEALTHY_AFTER_MS,
        },
        (Some(port), None) => Probe::Tcp { port },
        (Some(port), Some(path)) => Probe::Http {
            port,
            path: path.clone(),
        },
    }
}
