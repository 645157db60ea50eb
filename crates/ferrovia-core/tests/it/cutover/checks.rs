//! What must always hold.

use ferrovia_core::cutover::{Change, Phase, Plan, TableRows};
use ferrovia_core::id::{DeploymentId, ReplicaId};
use ferrovia_core::outcome::Outcome;
use ferrovia_core::table::{Audience, EdgeRow, MemberPhase, NodeRow, RouteTarget, Upstream};

use super::world::World;

impl World {
    /// Every edge that holds a route to replicas reaches one that answers, once a version has succeeded.
    pub fn check_answers(&self) {
        if !self.must_answer {
            return;
        }
        for holder in self.holders().filter(|h| h.reader.audience == Audience::Edge) {
            let held = &self.history[holder.reader.version.revision as usize];
            let named = upstreams(held);
            let answered = named.iter().any(|(weight, up)| {
                *weight > 0
                    && self
                        .containers
                        .values()
                        .any(|container| container.replica_id == up.replica_id && self.answers(container))
            });
            // An edge that never had the service cannot lose it.
            assert!(
                named.is_empty() || answered,
                "nobody answers behind `{}` at revision {}: {named:?}\n{}",
                holder.reader.name,
                holder.reader.version.revision,
                self.log.join("\n")
            );
        }
    }

    pub fn check_success(&self, deployment: DeploymentId) {
        for audience in [Audience::Edge, Audience::Node] {
            let mut live = self
                .readers
                .iter()
                .filter(|h| h.reader.audience == audience && h.reader.connected)
                .peekable();
            assert!(live.peek().is_some(), "a success without any {audience:?}");
            for holder in live {
                let held = &self.history[holder.reader.version.revision as usize];
                let serves = match audience {
                    Audience::Edge => upstreams(held).iter().any(|(weight, up)| {
                        *weight > 0
                            && self
                                .replicas
                                .iter()
                                .any(|row| row.id == up.replica_id && row.deployment_id == deployment)
                    }),
                    Audience::Node => true,
                };
                assert!(serves, "a success that `{}` does not know", holder.reader.name);
            }
        }
    }

    /// A copy of the target leaves the routes for a newer copy only when every live edge has the newer one.
    pub fn check_replaced(&self, id: ReplicaId) {
        let leaving = self
            .replicas
            .iter()
            .find(|row| row.id == id)
            .expect("it is there");
        let is_replaced = !self.deleted
            && self.intent.target == Some(leaving.deployment_id)
            && self.intent.replicas > 0
            && leaving.restart_nonce != self.intent.restart_nonce
            && self.attempts.iter().all(|attempt| attempt.outcome.is_final());
        if !is_replaced {
            return;
        }
        let known = self.replicas.iter().any(|row| {
            row.restart_nonce == self.intent.restart_nonce
                && row.phase == Phase::Serving
                && self
                    .readers
                    .iter()
                    .filter(|holder| holder.reader.connected)
                    .all(|holder| holder.reader.version.revision >= row.phase_revision)
        });
        assert!(known, "{id} leaves before its replacement is known");
    }

    pub fn check_plan(&self, plan: &Plan) {
        if self.intent.held && !self.deleted {
            assert!(plan.actions.is_empty(), "held, and yet {:?}", plan.actions);
        }
        if let Some(wake_ms) = plan.wake_at_ms {
            assert!(wake_ms >= self.now_ms);
        }
        for change in &plan.changes {
            if let Change::Move {
                replica,
                to: Phase::Draining,
                ..
            } = change
            {
                self.check_replaced(*replica);
            }
        }
        let succeeded = self.history.last().expect("never empty");
        for row in &succeeded.node {
            if let NodeRow::Member(member) = row
                && member.phase == MemberPhase::Serving
            {
                let proven = self
                    .attempts
                    .iter()
                    .any(|a| a.id == member.deployment_id && a.outcome == Outcome::Succeeded);
                assert!(proven, "the engine may start only what has succeeded");
            }
        }
    }
}

/// The upstreams that an edge's table names, with their weights.
pub fn upstreams(rows: &TableRows) -> Vec<(u32, Upstream)> {
    rows.edge
        .iter()
        .filter_map(|row| match row {
            EdgeRow::Route(route) => match &route.target {
                RouteTarget::Deployments { deployments } => Some(deployments),
                _ => None,
            },
            EdgeRow::Draining(_) => None,
        })
        .flatten()
        .flat_map(|deployment| {
            deployment
                .replicas
                .iter()
                .map(|up| (deployment.weight, up.clone()))
        })
        .collect()
}
