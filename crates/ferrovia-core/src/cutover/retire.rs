//! The way out: from the routes to the row's end, for replicas that nobody wants, and for containers without a row.

use super::replicas::{Pass, Wanted};
use super::{Action, Change, DRAIN_CLOSE_MS, LOG_DRAIN_MS, Phase, Replica, Waiting};
use crate::id::ReplicaId;
use crate::outcome::Outcome;
use crate::settings::DEFAULT_STOP_GRACE_MS;
use crate::table::Audience;
use crate::workload::{EngineRestart, Observed, ReplicaStatus};

impl Pass<'_> {
    /// Sends away what is neither the target nor the candidate. What serves stays until the target serves in its
    /// place: healthy, complete, and acknowledged by every live edge and node.
    pub(super) fn retire_unwanted(&mut self) {
        let candidate = self.candidate();
        let [target, candidate] = self.wanted(candidate);
        let replaced = target.is_none_or(|target| self.serves(target));
        let mut stays = false;
        for replica in self.replicas.clone() {
            if !replica.phase.is_alive()
                || [target, candidate]
                    .into_iter()
                    .flatten()
                    .any(|w| is_of(w, &replica))
            {
                continue;
            }
            let proven = self
                .attempt(replica.deployment_id)
                .is_some_and(|attempt| attempt.outcome == Outcome::Succeeded);
            if replica.phase != Phase::Serving || replaced || !proven {
                self.leave_service(&replica);
            } else {
                stays = true;
            }
        }
        // What is missing is a word of edges or nodes: who waits for it is rung when it comes.
        if let Some(target) = target.filter(|&target| stays && self.stands(target, |_| true)) {
            self.waits(Waiting::Acknowledgement(target.deployment));
        }
    }

    /// Whether a deployment serves as it should, and everybody knows.
    fn serves(&self, wanted: Wanted) -> bool {
        self.stands(wanted, |replica| {
            self.view.readers.all_live_cover(replica.phase_revision)
                // Just now judged by the same rule, in the step that made it the target.
                || self.view.intent.target != self.target
        })
    }

    /// Whether enough healthy replicas of a deployment are in the routes for which `known` holds.
    fn stands(&self, wanted: Wanted, known: impl Fn(&Replica) -> bool) -> bool {
        let good = self
            .current(wanted)
            .iter()
            .filter(|replica| {
                replica.phase == Phase::Serving && self.is_healthy(replica.id) && known(replica)
            })
            .count();
        good >= wanted.count as usize
    }

    /// Takes every replica on its way out one step further, and containers without a row away.
    pub(super) fn dismantle_all(&mut self) {
        for replica in self.replicas.clone() {
            match replica.phase {
                Phase::Admitting | Phase::Starting | Phase::Serving => {}
                Phase::Draining => self.drain(&replica),
                Phase::Stopping => self.take_down(&replica),
                Phase::Leaving => self.leave(&replica),
            }
        }
        let containers = self.view.containers.as_deref().unwrap_or_default();
        for container in containers {
            let owner = self
                .replicas
                .iter()
                .find(|replica| replica.id == container.replica_id);
            let is_owners = self
                .container(container.replica_id)
                .is_some_and(|chosen| chosen.handle == container.handle);
            if owner.is_none() || !is_owners {
                self.dismantle(container, DEFAULT_STOP_GRACE_MS);
            }
        }
    }

    fn drain(&mut self, replica: &Replica) {
        let now_ms = self.view.now_ms;
        let container = self.container(replica.id);
        if let Some(container) = container
            && container.restart != EngineRestart::No
        {
            self.act(Action::SetRestart {
                handle: container.handle.clone(),
                restart: EngineRestart::No,
            });
        }
        self.waits(Waiting::Drain(replica.id));
        if let Err(again_ms) = self.view.readers.everywhere(replica.phase_revision, now_ms) {
            if let Some(again_ms) = again_ms {
                self.wake_at(again_ms);
            }
            return;
        }
        let runs = self.view.containers.is_none()
            || container.is_some_and(|container| {
                matches!(
                    container.status,
                    ReplicaStatus::Running | ReplicaStatus::Paused | ReplicaStatus::Restarting
                )
            });
        let end_ms = self.drain_end_ms(replica).saturating_add(DRAIN_CLOSE_MS);
        let idle = self.view.readers.idle(replica.id, replica.phase_revision, now_ms);
        if !runs || idle || self.view.deleted || now_ms >= end_ms {
            self.move_to(replica.id, Phase::Stopping, None);
        } else {
            self.wake_at(end_ms);
        }
    }

    /// When the edge closes what is left, in milliseconds since 1970.
    fn drain_end_ms(&self, replica: &Replica) -> i64 {
        let drain_ms = self
            .attempt(replica.deployment_id)
            .map_or(crate::settings::DEFAULT_DRAIN_MS, |attempt| {
                attempt.settings.drain_ms
            });
        replica.phase_ms.saturating_add(i64::from(drain_ms))
    }

    fn take_down(&mut self, replica: &Replica) {
        if self.view.containers.is_none() {
            return;
        }
        let grace_ms = self
            .attempt(replica.deployment_id)
            .map_or(DEFAULT_STOP_GRACE_MS, |attempt| attempt.settings.stop_grace_ms);
        match self.container(replica.id) {
            Some(container) => self.dismantle(container, grace_ms),
            None => self.move_to(replica.id, Phase::Leaving, None),
        }
    }

    fn leave(&mut self, replica: &Replica) {
        if let Some(container) = self.container(replica.id) {
            // A call that had timed out did happen after all.
            self.dismantle(container, 0);
            return;
        }
        self.waits(Waiting::Address(replica.id));
        match self
            .view
            .readers
            .everywhere(replica.phase_revision, self.view.now_ms)
        {
            // Only what was seen to be gone is gone.
            Ok(()) if self.view.containers.is_some() => {
                self.plan.changes.push(Change::Release(replica.id));
                self.replicas.retain(|row| row.id != replica.id);
            }
            Ok(()) | Err(None) => {}
            Err(Some(again_ms)) => self.wake_at(again_ms),
        }
    }

    /// One step towards a container's removal: restart policy `no`, stop, wait for its log, remove.
    fn dismantle(&mut self, container: &Observed, grace_ms: u32) {
        let handle = container.handle.clone();
        match &container.status {
            ReplicaStatus::Created | ReplicaStatus::Dead => self.act(Action::Remove { handle }),
            ReplicaStatus::Running | ReplicaStatus::Paused | ReplicaStatus::Restarting => {
                self.waits(Waiting::Exit(container.replica_id));
                if container.restart == EngineRestart::No {
                    self.act(Action::Stop { handle, grace_ms });
                } else {
                    self.act(Action::SetRestart {
                        handle,
                        restart: EngineRestart::No,
                    });
                }
            }
            ReplicaStatus::Exited(exit) => match self.log_is_read(container, exit.at_ms) {
                Ok(()) => self.act(Action::Remove { handle }),
                Err(until_ms) => {
                    self.waits(Waiting::Log(container.replica_id));
                    if let Some(until_ms) = until_ms {
                        self.wake_at(until_ms);
                    }
                }
            },
        }
    }

    /// Whether nothing of the container's log would be lost. A node that is away is waited for; one that is there
    /// and does not manage it, only so long.
    fn log_is_read(&self, container: &Observed, exit_ms: i64) -> Result<(), Option<i64>> {
        let readers = &self.view.readers;
        if !readers.audiences.contains(&Audience::Node) || self.is_log_drained(container) {
            return Ok(());
        }
        let until_ms = exit_ms.saturating_add(LOG_DRAIN_MS);
        if !readers.live_cover(Audience::Node, 0) {
            Err(None)
        } else if self.view.now_ms >= until_ms {
            Ok(())
        } else {
            Err(Some(until_ms))
        }
    }
}

/// Whether a replica is one of those that are wanted (even if there are too many of them).
fn is_of(wanted: Wanted, replica: &Replica) -> bool {
    replica.deployment_id == wanted.deployment
        && wanted.nonce.is_none_or(|nonce| nonce == replica.restart_nonce)
}

impl Waiting {
    /// The replica that is waited for, if it is one.
    pub fn replica(&self) -> Option<ReplicaId> {
        match self {
            Self::Admission(id)
            | Self::Health(id)
            | Self::Drain(id)
            | Self::Exit(id)
            | Self::Log(id)
            | Self::Address(id) => Some(*id),
            Self::Held | Self::Engine | Self::Image(_) | Self::Acknowledgement(_) => None,
        }
    }
}
