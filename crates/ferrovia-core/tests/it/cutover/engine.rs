//! The world's engine: calls with a fate, and what must hold at each of them.

use ferrovia_core::cutover::{Action, ImageStanding, LOG_DRAIN_MS, Problem};
use ferrovia_core::id::{Id, ReplicaId};
use ferrovia_core::table::{Audience, NodeRow};
use ferrovia_core::workload::{EngineRestart, Exit, Observed, ReplicaStatus};
use uuid::Uuid;

use super::checks::upstreams;
use super::world::{Fate, Kind, World};

impl World {
    pub fn act(&mut self, action: &Action, fate: Fate) {
        self.note(format!("{action:?}: {fate:?}"));
        if let Action::FetchImage(deployment) = action {
            let bad = self.kinds[deployment] == Kind::NoImage;
            let now_ms = self.now_ms;
            let attempt = self.attempt(*deployment);
            let tries = match &attempt.image {
                ImageStanding::Failed { tries, .. } => tries + 1,
                _ => 1,
            };
            attempt.image = if bad || fate != Fate::Done {
                ImageStanding::Failed {
                    why: "no".into(),
                    at_ms: now_ms,
                    tries,
                }
            } else {
                ImageStanding::Ready
            };
            return;
        }
        if matches!(fate, Fate::Refused | Fate::CallLost) {
            self.problems.push(Problem::Engine { why: "no".into() });
            return;
        }
        match action {
            Action::FetchImage(_) => {}
            Action::Prepare { replicas, .. } => {
                for &id in replicas {
                    self.create(id);
                }
            }
            Action::Start { replica, handle } => self.start(*replica, handle),
            Action::SetRestart { handle, restart } => {
                if let Some(container) = self.containers.get_mut(handle) {
                    container.restart = *restart;
                }
            }
            Action::Stop { handle, .. } => self.stop(handle),
            Action::Remove { handle } => self.remove(handle),
        }
    }

    fn create(&mut self, id: ReplicaId) {
        let Some(row) = self.replicas.iter().find(|row| row.id == id).cloned() else {
            return;
        };
        if self
            .containers
            .values()
            .any(|container| container.replica_id == id)
        {
            return;
        }
        let twin = self.containers.values().find(|container| {
            (container.deployment_id, container.ordinal) == (row.deployment_id, row.ordinal)
        });
        assert!(twin.is_none(), "two containers for one slot: {twin:?}");
        self.next_id += 1;
        let handle = format!("{:04}", self.next_id);
        self.containers.insert(
            handle.clone(),
            Observed {
                name: handle.clone(),
                handle,
                replica_id: id,
                deployment_id: row.deployment_id,
                instance_id: Self::instance(),
                environment_id: Id::from_uuid(Uuid::nil()),
                ordinal: row.ordinal,
                spec_hash: String::new(),
                status: ReplicaStatus::Created,
                address: Some(row.address),
                started_at_ms: None,
                last_exit: None,
                engine_restarts: 0,
                restart: EngineRestart::No,
            },
        );
    }

    fn start(&mut self, id: ReplicaId, handle: &str) {
        let Some(container) = self.containers.get(handle) else {
            return;
        };
        if container.status == ReplicaStatus::Running {
            return;
        }
        let address = container.address.expect("static");
        for holder in self
            .readers
            .iter()
            .filter(|h| h.reader.audience == Audience::Node && h.reader.connected)
        {
            let held = &self.history[holder.reader.version.revision as usize];
            let admitted = held
                .node
                .iter()
                .any(|row| matches!(row, NodeRow::Member(m) if m.replica_id == id && m.address == address));
            assert!(admitted, "{address} starts before the node knows it");
        }
        if self.kinds[&container.deployment_id] == Kind::CannotStart {
            let at_ms = self.now_ms;
            self.problems.push(Problem::CannotStart {
                replica: id,
                why: "no such program".into(),
                at_ms,
            });
            return;
        }
        self.problems
            .retain(|problem| !matches!(problem, Problem::CannotStart { replica, .. } if *replica == id));
        let now_ms = self.now_ms;
        if let Some(container) = self.containers.get_mut(handle) {
            container.status = ReplicaStatus::Running;
            container.started_at_ms = Some(now_ms);
        }
    }

    fn stop(&mut self, handle: &str) {
        let Some(container) = self.containers.get(handle).cloned() else {
            return;
        };
        for holder in self.holders().filter(|h| h.reader.audience == Audience::Edge) {
            let held = &self.history[holder.reader.version.revision as usize];
            let routed = upstreams(held)
                .iter()
                .any(|(_, up)| up.replica_id == container.replica_id);
            assert!(
                !routed,
                "`{}` is stopped while `{}` routes to it",
                container.name, holder.reader.name
            );
        }
        assert_eq!(
            container.restart,
            EngineRestart::No,
            "stopped while the engine would start it"
        );
        if container.status == ReplicaStatus::Running {
            let at_ms = self.now_ms;
            if let Some(container) = self.containers.get_mut(handle) {
                container.status = ReplicaStatus::Exited(Exit {
                    code: 143,
                    out_of_memory: false,
                    at_ms,
                    error: None,
                });
            }
        }
        self.check_answers();
    }

    fn remove(&mut self, handle: &str) {
        let Some(container) = self.containers.get(handle) else {
            return;
        };
        match &container.status {
            ReplicaStatus::Created => {}
            ReplicaStatus::Exited(exit) => {
                let drained = self.observations.get(handle).is_some_and(|seen| seen.log_drained);
                let given_up = self.now_ms >= exit.at_ms + LOG_DRAIN_MS;
                assert!(
                    drained || given_up,
                    "`{handle}` is removed before its log was read"
                );
            }
            other => panic!("`{handle}` is removed while it is {other:?}"),
        }
        self.containers.remove(handle);
        self.observations.remove(handle);
    }
}
