//! What is known of one replica, and what follows. Pure: the engine's words and the probes' findings in, the
//! observation and the verdict out.

use std::sync::Arc;

use ferrovia_core::observation::{Health, Observation};
use ferrovia_core::settings::RestartPolicy;
use ferrovia_core::table::{Member, MemberPhase};
use ferrovia_core::workload::{EngineRestart, Exit, Observed, ReplicaStatus};

use crate::probe::News;

/// After this long without trouble earlier crashes count no more, in milliseconds.
const FORGIVEN_AFTER_MS: i64 = 60_000;

/// One replica.
#[derive(Debug, Clone)]
pub struct Record {
    /// Shared with those who read logs and figures.
    observed: Arc<Observed>,
    health: Health,
    crashes: u32,
    /// Those of the crashes that the engine itself answers with a new run, and how the last of them ended: what
    /// happened while control still tried is not held against a replica that serves.
    restarted: u32,
    restarted_exit: Option<Exit>,
    /// The end that it is stopped for. The stop itself is none of the application's own.
    stopped_for: Option<Exit>,
    /// The run whose end was counted last.
    counted: Option<i64>,
    last_exit: Option<Exit>,
    listens_on: Vec<String>,
    root_status: Option<u16>,
    log_drained: bool,
}

impl Record {
    /// A replica that was not known.
    pub fn new(observed: Observed, now_ms: i64) -> Self {
        let mut record = Self {
            health: Health::Down,
            crashes: 0,
            restarted: 0,
            restarted_exit: None,
            stopped_for: None,
            counted: None,
            last_exit: None,
            listens_on: Vec::new(),
            root_status: None,
            log_drained: false,
            observed: Arc::new(Observed {
                started_at_ms: None,
                engine_restarts: observed.engine_restarts,
                ..observed.clone()
            }),
        };
        record.observe(observed, now_ms);
        record
    }

    /// What the engine said last.
    pub const fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// The run that goes on: its start in milliseconds since 1970.
    pub fn run(&self) -> Option<i64> {
        let runs = matches!(
            self.observed.status,
            ReplicaStatus::Running | ReplicaStatus::Paused
        );
        self.observed.started_at_ms.filter(|_| runs)
    }

    /// Takes the engine's words.
    pub fn observe(&mut self, observed: Observed, now_ms: i64) {
        let before = std::mem::replace(&mut self.observed, Arc::new(observed));
        let new_container = before.handle != self.observed.handle;
        if new_container {
            *self = Self::new(Observed::clone(&self.observed), now_ms);
            return;
        }
        if self.observed.restart == EngineRestart::No {
            self.restarted = 0;
            self.restarted_exit = None;
        }
        let by_engine = [before.restart, self.observed.restart] == [EngineRestart::UnlessStopped; 2];
        let ended = matches!(
            self.observed.status,
            ReplicaStatus::Exited(_) | ReplicaStatus::Restarting | ReplicaStatus::Dead
        );
        let new_run = before.started_at_ms != self.observed.started_at_ms;
        self.log_drained &= !new_run;
        if new_run && matches!(before.status, ReplicaStatus::Exited(_)) {
            self.stopped_for = None;
        }
        if new_run && let Some(run) = before.started_at_ms {
            // It ended while nobody looked, and so did every run that the engine began between.
            let between = self
                .observed
                .engine_restarts
                .saturating_sub(before.engine_restarts);
            if self.counted != Some(run) {
                self.count(run, between.max(1), by_engine, now_ms);
                self.last_exit = None;
            } else if between > 1 {
                self.count(run, between - 1, by_engine, now_ms);
                self.last_exit = None;
            }
        }
        if ended {
            if let Some(run) = self.observed.started_at_ms
                && self.counted != Some(run)
                && self.stopped_for.is_none()
            {
                self.count(run, 1, by_engine, now_ms);
            }
            let exit = match &self.observed.status {
                ReplicaStatus::Exited(exit) => Some(exit.clone()),
                _ => self.observed.last_exit.clone(),
            };
            if let Some(exit) = self.stopped_for.clone().or(exit) {
                self.last_exit = Some(exit);
            }
            if self.restarted > 0 {
                self.restarted_exit.clone_from(&self.last_exit);
            }
        }
        match self.run() {
            None => {
                self.health = Health::Down;
                self.listens_on.clear();
            }
            Some(_) if new_run || matches!(self.health, Health::Down) => {
                self.health = Health::Starting { last: None };
                self.listens_on.clear();
                self.root_status = None;
            }
            Some(_) => {}
        }
    }

    fn count(&mut self, run: i64, times: u32, by_engine: bool, now_ms: i64) {
        if self.is_forgiven(now_ms) {
            self.crashes = 0;
            self.restarted = 0;
        }
        self.crashes = self.crashes.saturating_add(times);
        self.restarted_exit = None;
        if by_engine {
            self.restarted = self.restarted.saturating_add(times);
        }
        self.counted = Some(run);
    }

    fn is_forgiven(&self, now_ms: i64) -> bool {
        matches!(self.health, Health::Healthy { since_ms } if now_ms - since_ms >= FORGIVEN_AFTER_MS)
    }

    /// Takes what the probes of a run found; `false` when that run is over.
    pub fn find(&mut self, started_at_ms: i64, news: News) -> bool {
        if self.run() != Some(started_at_ms) {
            return false;
        }
        match news {
            News::Health(health) => self.health = health,
            News::Root(status) => self.root_status = Some(status),
            News::ListensOn(listens_on) => self.listens_on = listens_on,
        }
        true
    }

    /// Notes that the log was read to its end after this run; `false` when there was another since.
    pub fn drain(&mut self, run: Option<i64>) -> bool {
        let down = self.run().is_none() && self.observed.status != ReplicaStatus::Restarting;
        let newest = down && run == self.observed.started_at_ms;
        self.log_drained |= newest;
        newest
    }

    /// What control and edge are told.
    pub fn observation(&self, now_ms: i64) -> Observation {
        Observation {
            replica_id: self.observed.replica_id,
            deployment_id: self.observed.deployment_id,
            instance_id: self.observed.instance_id,
            handle: self.observed.handle.clone(),
            started_at_ms: self.observed.started_at_ms,
            health: self.health.clone(),
            last_exit: self.last_exit.clone(),
            crashes: if self.is_forgiven(now_ms) { 0 } else { self.crashes },
            listens_on: self.listens_on.clone(),
            root_status: self.root_status,
            log_drained: self.log_drained,
            seen_at_ms: now_ms,
        }
    }

    /// Notes that it is being stopped because it must be.
    pub fn stop(&mut self) {
        self.stopped_for.clone_from(&self.restarted_exit);
    }

    /// Whether time alone may change what is told of it, or what must be done.
    pub const fn is_unsettled(&self) -> bool {
        self.crashes > 0 || !self.health.is_healthy()
    }

    /// Why the engine must not start it again; `None` when it may. Control decides for replicas that are not yet
    /// proven.
    pub fn must_stop(&self, member: &Member) -> Option<&'static str> {
        if member.phase != MemberPhase::Serving || self.observed.restart != EngineRestart::UnlessStopped {
            return None;
        }
        if !matches!(
            self.observed.status,
            ReplicaStatus::Restarting | ReplicaStatus::Running
        ) {
            return None;
        }
        // The newest run that ended; the one that goes on may be its successor.
        let exit = self.restarted_exit.as_ref();
        match member.restart {
            RestartPolicy::Always => None,
            RestartPolicy::Never => exit.map(|_| "it is never started again"),
            RestartPolicy::OnFailure { max_tries } => match exit {
                Some(exit) if exit.code == 0 => Some("it ended without a failure"),
                _ if self.restarted > max_tries => Some("it crashed too often"),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ferrovia_core::id::{DeploymentId, EnvironmentId, InstanceId, ReplicaId};
    use ferrovia_core::table::Probe;
    use uuid::Uuid;

    use super::*;

    fn observed(status: ReplicaStatus, started_at_ms: Option<i64>, engine_restarts: u32) -> Observed {
        let id = Uuid::from_u128(1);
        Observed {
            handle: "c".to_owned(),
            name: "fv-a".to_owned(),
            replica_id: ReplicaId::from_uuid(id),
            deployment_id: DeploymentId::from_uuid(id),
            instance_id: InstanceId::from_uuid(id),
            environment_id: EnvironmentId::from_uuid(id),
            ordinal: 1,
            spec_hash: String::new(),
            status,
            address: None,
            started_at_ms,
            last_exit: None,
            engine_restarts,
            restart: EngineRestart::UnlessStopped,
        }
    }

    fn restarting(code: i32, started_at_ms: i64, engine_restarts: u32) -> Observed {
        Observed {
            last_exit: Some(exit(code)),
            ..observed(ReplicaStatus::Restarting, Some(started_at_ms), engine_restarts)
        }
    }

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            out_of_memory: false,
            at_ms: 9,
            error: None,
        }
    }

    fn member(phase: MemberPhase, restart: RestartPolicy) -> Member {
        let id = Uuid::from_u128(1);
        Member {
            address: Ipv4Addr::LOCALHOST,
            replica_id: ReplicaId::from_uuid(id),
            deployment_id: DeploymentId::from_uuid(id),
            instance_id: InstanceId::from_uuid(id),
            environment_id: EnvironmentId::from_uuid(id),
            mark: 1,
            probe: Probe::Tcp { port: 1 },
            restart,
            phase,
        }
    }

    #[test]
    fn each_end_counts_once_however_it_is_seen() {
        let mut record = Record::new(observed(ReplicaStatus::Running, Some(10), 0), 10);
        assert_eq!(record.health, Health::Starting { last: None });
        record.observe(restarting(1, 10, 1), 11);
        record.observe(restarting(1, 10, 1), 11);
        assert_eq!((record.crashes, &record.health), (1, &Health::Down));
        record.observe(observed(ReplicaStatus::Running, Some(20), 1), 20);
        assert_eq!(record.crashes, 1);
        assert_eq!(record.last_exit, Some(exit(1)), "as long as nobody knows better");
        // Two ends that nobody saw.
        record.observe(observed(ReplicaStatus::Running, Some(40), 3), 40);
        assert_eq!((record.crashes, &record.last_exit), (3, &None));
        record.observe(observed(ReplicaStatus::Exited(exit(3)), Some(40), 3), 50);
        assert_eq!(
            (record.crashes, record.last_exit.as_ref().map(|exit| exit.code)),
            (4, Some(3))
        );
    }

    #[test]
    fn a_healthy_minute_forgives() {
        let mut record = Record::new(observed(ReplicaStatus::Running, Some(10), 0), 10);
        record.observe(restarting(1, 10, 1), 11);
        record.observe(observed(ReplicaStatus::Running, Some(20), 1), 20);
        assert!(record.find(20, News::Health(Health::Healthy { since_ms: 30 })));
        assert_eq!(record.observation(60_000).crashes, 1);
        assert_eq!(record.observation(60_030).crashes, 0);
        record.observe(restarting(1, 20, 2), 60_031);
        assert_eq!(record.observation(60_032).crashes, 1);
    }

    #[test]
    fn findings_of_a_run_that_is_over_are_left_out() {
        let mut record = Record::new(observed(ReplicaStatus::Running, Some(10), 0), 10);
        record.observe(observed(ReplicaStatus::Running, Some(20), 1), 20);
        assert!(!record.find(10, News::Health(Health::Healthy { since_ms: 11 })));
        assert!(!record.drain(Some(20)), "it runs");
        record.observe(observed(ReplicaStatus::Exited(exit(0)), Some(20), 1), 30);
        assert!(!record.drain(Some(10)), "that was the run before");
        assert!(record.drain(Some(20)) && record.observation(30).log_drained);
        record.observe(observed(ReplicaStatus::Exited(exit(0)), Some(40), 1), 40);
        assert!(!record.observation(40).log_drained, "it ran once more unseen");
    }

    #[test]
    fn what_may_not_start_again_is_stopped_once_it_serves() {
        let on_failure = RestartPolicy::OnFailure { max_tries: 2 };
        let mut record = Record::new(observed(ReplicaStatus::Running, Some(10), 0), 10);
        let stops = |record: &Record, phase, policy| record.must_stop(&member(phase, policy)).is_some();
        assert!(!stops(&record, MemberPhase::Serving, on_failure));
        for (run, restarts) in [(10, 1), (20, 2), (30, 3)] {
            assert!(!stops(&record, MemberPhase::Serving, on_failure));
            record.observe(restarting(1, run, restarts), run + 1);
        }
        assert!(stops(&record, MemberPhase::Serving, on_failure));
        assert!(!stops(&record, MemberPhase::Serving, RestartPolicy::Always));
        assert!(
            !stops(&record, MemberPhase::Starting, on_failure)
                && !stops(&record, MemberPhase::Draining, on_failure)
        );

        let mut record = Record::new(observed(ReplicaStatus::Running, Some(10), 0), 10);
        record.observe(restarting(0, 10, 1), 11);
        assert!(stops(&record, MemberPhase::Serving, on_failure));
        record.observe(observed(ReplicaStatus::Running, Some(12), 1), 12);
        assert!(
            stops(&record, MemberPhase::Serving, on_failure),
            "the engine was faster"
        );
        record.stop();
        record.observe(observed(ReplicaStatus::Exited(exit(143)), Some(12), 1), 13);
        assert!(!stops(&record, MemberPhase::Serving, on_failure), "it is stopped");
        let told = record.observation(13);
        assert_eq!(
            (told.last_exit, told.crashes),
            (Some(exit(0)), 1),
            "not for the stop"
        );
        record.observe(observed(ReplicaStatus::Running, Some(14), 1), 14);
        record.observe(observed(ReplicaStatus::Exited(exit(9)), Some(14), 1), 15);
        assert_eq!(
            record.observation(15).last_exit,
            Some(exit(9)),
            "control ran it again"
        );

        let trying = |status| Observed {
            restart: EngineRestart::No,
            ..observed(status, Some(10), 0)
        };
        let mut record = Record::new(trying(ReplicaStatus::Exited(exit(0))), 11);
        record.observe(observed(ReplicaStatus::Running, Some(20), 0), 20);
        record.observe(observed(ReplicaStatus::Running, Some(20), 0), 30);
        assert_eq!(record.crashes, 1);
        let once = RestartPolicy::OnFailure { max_tries: 0 };
        assert!(
            !stops(&record, MemberPhase::Serving, once),
            "what control tried is forgotten"
        );
    }
}
