//! One pass of the planner: the working copy of the rows, and what moves a replica from its address to its health.

use super::{
    Action, Attempt, Change, FIRST_TRY_DELAY_MS, ImageStanding, MAX_TRY_DELAY_MS, Phase, Plan, Problem,
    Replica, View, Waiting,
};
use crate::id::{DeploymentId, ReplicaId};
use crate::observation::{Health, Observation};
use crate::outcome::Outcome;
use crate::settings::{RestartPolicy, START_TRIES};
use crate::table::Audience;
use crate::workload::{EngineRestart, Exit, Observed, ReplicaStatus};

/// The planner at work. `attempts`, `replicas` and `target` are copies that follow the planned changes, so that what
/// is decided late in a pass knows what was decided early.
pub(super) struct Pass<'a> {
    pub(super) view: &'a View,
    pub(super) attempts: Vec<Attempt>,
    pub(super) replicas: Vec<Replica>,
    pub(super) target: Option<DeploymentId>,
    pub(super) plan: Plan,
}

/// A deployment that should run, and how many copies of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) deployment: DeploymentId,
    pub(super) count: u32,
    /// Copies of another nonce are replaced; `None`: any nonce will do.
    pub(super) nonce: Option<i64>,
    /// Whether the deployment has succeeded: it is then started again for ever, and never fails any more.
    pub(super) proven: bool,
}

/// What is known of a replica's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It answers; start of the run that does.
    Healthy(Option<i64>),
    /// It does not.
    NotHealthy,
    /// Nobody says.
    Unknown,
}

impl<'a> Pass<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        Self {
            view,
            attempts: view.attempts.clone(),
            replicas: view.replicas.clone(),
            target: view.intent.target.filter(|_| !view.deleted),
            plan: Plan::default(),
        }
    }

    pub(super) fn run(mut self) -> Plan {
        self.decide_attempts();
        if self.view.intent.held && !self.view.deleted {
            self.waits(Waiting::Held);
            return self.plan;
        }
        if self.view.containers.is_none() {
            self.waits(Waiting::Engine);
        }
        let candidate = self.candidate();
        for wanted in self.wanted(candidate).into_iter().flatten() {
            self.fill_slots(wanted);
            self.admit_and_start(wanted);
            self.promote(wanted);
        }
        if let Some(candidate) = candidate {
            self.judge(candidate);
        }
        self.retire_unwanted();
        self.dismantle_all();
        self.drop_overtaken_actions();
        self.plan
    }

    /// What was to be started for a replica that this very pass sends away is not started.
    fn drop_overtaken_actions(&mut self) {
        let replicas = &self.replicas;
        let is_alive = |id: &ReplicaId| replicas.iter().any(|row| row.id == *id && row.phase.is_alive());
        self.plan.actions.retain_mut(|action| match action {
            Action::Start { replica, .. } => is_alive(replica),
            Action::Prepare { replicas, .. } => {
                replicas.retain(is_alive);
                !replicas.is_empty()
            }
            _ => true,
        });
    }

    /// The one deployment that is on its way, after [`Self::decide_attempts`].
    pub(super) fn candidate(&self) -> Option<DeploymentId> {
        self.attempts
            .iter()
            .find(|attempt| attempt.outcome == Outcome::Deploying)
            .map(|attempt| attempt.id)
    }

    /// What should run now: the target, and the candidate beside it.
    pub(super) fn wanted(&self, candidate: Option<DeploymentId>) -> [Option<Wanted>; 2] {
        let intent = &self.view.intent;
        let count = if intent.asleep { 0 } else { intent.replicas };
        let target = self.target.map(|deployment| Wanted {
            deployment,
            count,
            // While a candidate is on its way, its success replaces the old copies anyway.
            nonce: candidate.is_none().then_some(intent.restart_nonce),
            proven: true,
        });
        let candidate = candidate.map(|deployment| Wanted {
            deployment,
            // Also where none should run afterwards: a target is a deployment that was healthy once.
            count: count.max(1),
            nonce: Some(intent.restart_nonce),
            proven: false,
        });
        [target, candidate]
    }

    pub(super) fn attempt(&self, id: DeploymentId) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// The replica's container: the running one if, against all rules, there are two.
    pub(super) fn container(&self, id: ReplicaId) -> Option<&'a Observed> {
        self.view
            .containers
            .iter()
            .flatten()
            .filter(|observed| observed.replica_id == id)
            .max_by_key(|observed| (observed.status == ReplicaStatus::Running, &observed.handle))
    }

    /// The node's word on a container; one on an earlier container of the same replica does not count.
    pub(super) fn observation(&self, container: &Observed) -> Option<&'a Observation> {
        self.view
            .observations
            .iter()
            .filter(|seen| seen.replica_id == container.replica_id && seen.handle == container.handle)
            .max_by_key(|seen| seen.seen_at_ms)
    }

    /// Whether the log was read to its end after the container's newest run; what was said of an earlier one is old.
    pub(super) fn is_log_drained(&self, container: &Observed) -> bool {
        self.observation(container)
            .is_some_and(|seen| seen.log_drained && seen.started_at_ms == container.started_at_ms)
    }

    pub(super) fn seen(&self, id: ReplicaId) -> Seen {
        if self.view.containers.is_none() {
            return Seen::Unknown;
        }
        let Some(container) = self.container(id) else {
            return Seen::NotHealthy;
        };
        if container.status != ReplicaStatus::Running {
            return Seen::NotHealthy;
        }
        match self.observation(container) {
            // Of an earlier run of the same container.
            Some(seen) if seen.started_at_ms < container.started_at_ms => Seen::Unknown,
            Some(seen) => match seen.health {
                Health::Healthy { .. } => Seen::Healthy(seen.started_at_ms.or(container.started_at_ms)),
                Health::Down | Health::Starting { .. } | Health::Unhealthy { .. } => Seen::NotHealthy,
            },
            None => Seen::Unknown,
        }
    }

    pub(super) fn is_healthy(&self, id: ReplicaId) -> bool {
        matches!(self.seen(id), Seen::Healthy(_))
    }

    /// Moves a replica. Nobody can have acknowledged what is not yet committed, hence the revision.
    pub(super) fn move_to(&mut self, id: ReplicaId, to: Phase, started_at_ms: Option<i64>) {
        self.plan.changes.push(Change::Move {
            replica: id,
            to,
            started_at_ms,
        });
        let now_ms = self.view.now_ms;
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == id) {
            replica.phase = to;
            replica.phase_ms = now_ms;
            replica.phase_revision = u64::MAX;
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    pub(super) fn waits(&mut self, waiting: Waiting) {
        self.plan.waiting.push(waiting);
    }

    pub(super) fn wake_at(&mut self, at_ms: i64) {
        let at_ms = at_ms.max(self.view.now_ms);
        self.plan.wake_at_ms = Some(self.plan.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    /// Takes the wanted deployment's replicas from `admitting` to a running container.
    fn admit_and_start(&mut self, wanted: Wanted) {
        let mut to_prepare = Vec::new();
        for replica in self.replicas.clone() {
            if replica.deployment_id != wanted.deployment || !replica.phase.is_alive() {
                continue;
            }
            if replica.phase == Phase::Admitting {
                // A new address is known to the firewall before anything can speak from it.
                if self.admitted(replica.phase_revision) {
                    self.move_to(replica.id, Phase::Starting, None);
                } else {
                    self.waits(Waiting::Admission(replica.id));
                }
            }
            if self.view.containers.is_none() {
                continue;
            }
            let Some(container) = self.container(replica.id) else {
                if replica.phase == Phase::Serving {
                    // Somebody took its container away.
                    self.move_to(replica.id, Phase::Starting, None);
                }
                to_prepare.push(replica.id);
                continue;
            };
            let phase = self
                .replicas
                .iter()
                .find(|row| row.id == replica.id)
                .map_or(replica.phase, |row| row.phase);
            match phase {
                Phase::Starting => self.run_container(&replica, container, wanted.proven),
                Phase::Serving => self.keep_running(&replica, container, wanted.proven),
                _ => {}
            }
        }
        if !to_prepare.is_empty() {
            self.prepare(wanted.deployment, to_prepare);
        }
    }

    fn admitted(&self, revision: u64) -> bool {
        let readers = &self.view.readers;
        !readers.audiences.contains(&Audience::Node) || readers.live_cover(Audience::Node, revision)
    }

    fn prepare(&mut self, deployment: DeploymentId, replicas: Vec<ReplicaId>) {
        let Some(attempt) = self.attempt(deployment) else {
            return;
        };
        match attempt.image.clone() {
            ImageStanding::Ready => self.act(Action::Prepare { deployment, replicas }),
            ImageStanding::Unknown => self.act(Action::FetchImage(deployment)),
            ImageStanding::Fetching => self.waits(Waiting::Image(deployment)),
            ImageStanding::Failed { at_ms, .. } => {
                let again_ms = at_ms.saturating_add(super::IMAGE_RETRY_MS);
                if self.view.now_ms >= again_ms {
                    self.act(Action::FetchImage(deployment));
                } else {
                    self.wake_at(again_ms);
                    self.waits(Waiting::Image(deployment));
                }
            }
        }
    }

    /// A container that should come up: start it, count how often it ended, wait longer each time.
    fn run_container(&mut self, replica: &Replica, container: &Observed, proven: bool) {
        self.waits(Waiting::Health(replica.id));
        match &container.status {
            ReplicaStatus::Created => self.start_when_due(replica, container, proven),
            ReplicaStatus::Exited(exit) => self.start_again(replica, container, exit, proven),
            ReplicaStatus::Running => {
                self.settle_try(replica);
                self.wake_at(self.view.now_ms.saturating_add(MAX_TRY_DELAY_MS));
            }
            ReplicaStatus::Restarting | ReplicaStatus::Paused => {}
            ReplicaStatus::Dead => self.act(Action::Remove {
                handle: container.handle.clone(),
            }),
        }
    }

    /// The run that was due has begun: it counts.
    fn settle_try(&mut self, replica: &Replica) {
        if replica.next_try_ms.is_some() {
            self.tries(replica, replica.tries.saturating_add(1), None);
        }
    }

    fn start_when_due(&mut self, replica: &Replica, container: &Observed, proven: bool) {
        let refused_ms = self.view.problems.iter().find_map(|problem| match problem {
            Problem::CannotStart {
                replica: id, at_ms, ..
            } if *id == replica.id => Some(*at_ms),
            _ => None,
        });
        match (replica.next_try_ms, refused_ms) {
            // The engine refused the last try. A deployment on its way fails for that; one that ran once waits longer.
            (next, Some(refused_ms)) if next.is_none_or(|next| next <= refused_ms) => {
                if proven {
                    let tries = replica.tries.saturating_add(1);
                    self.tries(replica, tries, Some(refused_ms.saturating_add(delay_ms(tries))));
                }
            }
            (Some(next), _) if self.view.now_ms < next => self.wake_at(next),
            _ => self.act(Action::Start {
                replica: replica.id,
                handle: container.handle.clone(),
            }),
        }
    }

    fn start_again(&mut self, replica: &Replica, container: &Observed, exit: &Exit, proven: bool) {
        match replica.next_try_ms {
            // The try that was due began and ended unseen.
            Some(next) if exit.at_ms >= next => self.tries(replica, replica.tries.saturating_add(1), None),
            Some(_) => self.start_when_due(replica, container, proven),
            None if !proven && replica.tries >= START_TRIES => {}
            None => {
                let next = exit
                    .at_ms
                    .max(self.view.now_ms)
                    .saturating_add(delay_ms(replica.tries));
                self.tries(replica, replica.tries, Some(next));
            }
        }
    }

    fn tries(&mut self, replica: &Replica, tries: u32, next_try_ms: Option<i64>) {
        self.plan.changes.push(Change::Tries {
            replica: replica.id,
            tries,
            next_try_ms,
        });
        if let Some(row) = self.replicas.iter_mut().find(|row| row.id == replica.id) {
            row.tries = tries;
            row.next_try_ms = next_try_ms;
        }
    }

    /// A replica in the routes: the engine starts it again once its deployment has succeeded. One that ended while
    /// the engine does not start it again was missed between the two, and is brought back; one that ended although
    /// the engine would start it was stopped by `node`, which counts crashes, and stays so.
    fn keep_running(&mut self, replica: &Replica, container: &Observed, proven: bool) {
        if !proven {
            return;
        }
        let never = self
            .attempt(replica.deployment_id)
            .is_some_and(|attempt| attempt.settings.restart == RestartPolicy::Never);
        let restart = if never {
            EngineRestart::No
        } else {
            EngineRestart::UnlessStopped
        };
        match &container.status {
            ReplicaStatus::Exited(exit) if !never && container.restart == EngineRestart::No => {
                self.start_again(replica, container, exit, true);
            }
            ReplicaStatus::Created => self.start_when_due(replica, container, true),
            ReplicaStatus::Dead => self.act(Action::Remove {
                handle: container.handle.clone(),
            }),
            ReplicaStatus::Running
            | ReplicaStatus::Paused
            | ReplicaStatus::Restarting
            | ReplicaStatus::Exited(_) => {
                if container.status == ReplicaStatus::Running {
                    self.settle_try(replica);
                }
                if container.restart != restart {
                    self.act(Action::SetRestart {
                        handle: container.handle.clone(),
                        restart,
                    });
                }
            }
        }
    }
}

/// Wait before the next restart, after so many.
fn delay_ms(tries: u32) -> i64 {
    FIRST_TRY_DELAY_MS
        .checked_shl(tries.min(16))
        .unwrap_or(MAX_TRY_DELAY_MS)
        .min(MAX_TRY_DELAY_MS)
}
