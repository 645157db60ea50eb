//! A small world around the planner: rows with transactions, an engine, edges and a node with tables of their own.
//! Whatever it does is checked against what must always hold; a breach panics.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ferrovia_core::cutover::{
    Attempt, BuildStanding, Change, ImageStanding, InFlightReport, Phase, Place, Plan, Problem,
    READER_GONE_AFTER_MS, Reader, Readers, Replica, TableRows, View, plan, table_rows,
};
use ferrovia_core::id::{DeploymentId, Id, InstanceId, ReplicaId};
use ferrovia_core::intent::Intent;
use ferrovia_core::observation::{Health, Observation};
use ferrovia_core::outcome::Outcome;
use ferrovia_core::settings::Settings;
use ferrovia_core::table::{Audience, NodeRow, Version};
use ferrovia_core::workload::{Exit, Observed, ReplicaStatus};
use uuid::Uuid;

use super::checks::upstreams;

/// Addresses that the world has; the lowest free one is used, so that they are soon used again.
const ADDRESSES: u8 = 250;
/// An application answers so long after its start, in milliseconds.
const START_MS: i64 = 50;

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    CrashesAtStart,
    NeverAnswers,
    CannotStart,
    NoImage,
    BuildFails,
}

/// What becomes of one engine call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Done,
    Refused,
    AnswerLost,
    CallLost,
    /// Control dies before this call.
    Killed,
}

pub struct World {
    pub now_ms: i64,
    pub deleted: bool,
    pub intent: Intent,
    pub attempts: Vec<Attempt>,
    pub kinds: BTreeMap<DeploymentId, Kind>,
    pub replicas: Vec<Replica>,
    pub containers: BTreeMap<String, Observed>,
    pub observations: BTreeMap<String, Observation>,
    pub readers: Vec<Holder>,
    pub problems: Vec<Problem>,
    pub engine_answers: bool,
    /// The rows at every revision.
    pub history: Vec<TableRows>,
    pub next_id: u128,
    /// Once a version has succeeded and nobody took the service down, somebody must always answer.
    pub must_answer: bool,
    pub log: Vec<String>,
}

/// A reader and the table it holds.
pub struct Holder {
    pub reader: Reader,
}

impl World {
    pub fn new() -> Self {
        let reader = |name: &str, audience| Holder {
            reader: Reader {
                name: name.to_owned(),
                audience,
                version: Version {
                    epoch: 1,
                    revision: 0,
                },
                connected: true,
                last_seen_ms: 0,
                in_flight: None,
            },
        };
        Self {
            now_ms: 1_000_000,
            deleted: false,
            intent: Intent {
                target: None,
                replicas: 1,
                restart_nonce: 0,
                asleep: false,
                held: false,
                generation: 1,
            },
            attempts: Vec::new(),
            kinds: BTreeMap::new(),
            replicas: Vec::new(),
            containers: BTreeMap::new(),
            observations: BTreeMap::new(),
            readers: vec![
                reader("edge-a", Audience::Edge),
                reader("edge-b", Audience::Edge),
                reader("node", Audience::Node),
            ],
            problems: Vec::new(),
            engine_answers: true,
            history: vec![TableRows::default()],
            next_id: 1,
            must_answer: false,
            log: Vec::new(),
        }
    }

    fn id<K>(&mut self) -> Id<K> {
        self.next_id += 1;
        Id::from_uuid(Uuid::from_u128(self.next_id))
    }

    pub fn instance() -> InstanceId {
        Id::from_uuid(Uuid::from_u128(1))
    }

    fn head(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    pub fn deploy(&mut self, kind: Kind) {
        let id = self.id();
        self.kinds.insert(id, kind);
        let number = self.attempts.len() as u32 + 1;
        self.attempts.push(Attempt {
            id,
            number,
            outcome: Outcome::Queued,
            settings: Settings {
                start_deadline_ms: 60_000,
                drain_ms: 5_000,
                ..Settings::default()
            },
            port: Some(8080),
            build: BuildStanding::Waiting,
            image: ImageStanding::Unknown,
            cancel_requested: false,
            deploy_started_ms: None,
        });
        self.note(format!("deploy {kind:?}"));
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.log
            .push(format!("{:>8} {}", self.now_ms - 1_000_000, text.into()));
    }

    pub fn build_step(&mut self) {
        for attempt in &mut self.attempts {
            attempt.build = match (&attempt.build, self.kinds[&attempt.id]) {
                (BuildStanding::Waiting, _) => BuildStanding::Running,
                (BuildStanding::Running, Kind::BuildFails) => {
                    BuildStanding::Failed(ferrovia_core::error::Report::new("build_failed", "no"))
                }
                (BuildStanding::Running, _) => BuildStanding::Succeeded,
                (other, _) => other.clone(),
            };
        }
    }

    /// What runs really answers.
    pub fn answers(&self, container: &Observed) -> bool {
        container.status == ReplicaStatus::Running
            && self.kinds[&container.deployment_id] == Kind::Good
            && container
                .started_at_ms
                .is_some_and(|started| self.now_ms >= started + START_MS)
    }

    /// Applications do what they do until now.
    pub fn run_applications(&mut self) {
        for container in self.containers.values_mut() {
            let kind = self.kinds[&container.deployment_id];
            if container.status == ReplicaStatus::Running && kind == Kind::CrashesAtStart {
                container.status = ReplicaStatus::Exited(Exit {
                    code: 1,
                    out_of_memory: false,
                    at_ms: self.now_ms,
                    error: None,
                });
            }
        }
    }

    /// The node looks at everything and reads logs to their end.
    pub fn observe_all(&mut self) {
        self.run_applications();
        for (handle, container) in &self.containers {
            let health = match container.status {
                _ if self.answers(container) => Health::Healthy {
                    since_ms: self.now_ms,
                },
                ReplicaStatus::Running => Health::Starting {
                    last: Some("connection refused".into()),
                },
                _ => Health::Down,
            };
            let seen = Observation {
                replica_id: container.replica_id,
                deployment_id: container.deployment_id,
                instance_id: container.instance_id,
                handle: handle.clone(),
                started_at_ms: container.started_at_ms,
                health,
                last_exit: None,
                crashes: 0,
                listens_on: vec![],
                root_status: Some(200),
                log_drained: matches!(container.status, ReplicaStatus::Exited(_)),
                seen_at_ms: self.now_ms,
            };
            self.observations.insert(handle.clone(), seen);
        }
    }

    /// A reader takes the newest table in and says so.
    pub fn acknowledge(&mut self, index: usize) {
        let head = self.head();
        let now_ms = self.now_ms;
        let holder = &mut self.readers[index];
        if holder.reader.connected {
            holder.reader.version.revision = head;
            holder.reader.last_seen_ms = now_ms;
        }
        self.check_answers();
    }

    pub fn report(&mut self, index: usize, busy: bool) {
        let open = if busy {
            self.replicas.iter().map(|replica| (replica.id, 1)).collect()
        } else {
            BTreeMap::new()
        };
        let reader = &mut self.readers[index].reader;
        if reader.connected {
            reader.in_flight = Some(InFlightReport {
                version: reader.version,
                open,
            });
        }
    }

    pub fn connect(&mut self, index: usize, connected: bool) {
        let (now_ms, head) = (self.now_ms, self.head());
        let reader = &mut self.readers[index].reader;
        if reader.connected && !connected {
            reader.last_seen_ms = now_ms;
        }
        // One that counted as gone serves what it held until it hears us, which the rules accept.
        if connected && !reader.connected && now_ms >= reader.last_seen_ms + READER_GONE_AFTER_MS {
            reader.version.revision = head;
        }
        reader.connected = connected;
    }

    pub fn view(&self) -> View {
        View {
            now_ms: self.now_ms,
            deleted: self.deleted,
            intent: self.intent.clone(),
            attempts: self.attempts.clone(),
            replicas: self.replicas.clone(),
            containers: self
                .engine_answers
                .then(|| self.containers.values().cloned().collect()),
            observations: self.observations.values().cloned().collect(),
            readers: Readers {
                epoch: 1,
                audiences: vec![Audience::Edge, Audience::Node],
                readers: self.readers.iter().map(|holder| holder.reader.clone()).collect(),
            },
            problems: self.problems.clone(),
        }
    }

    /// One pass of the reconciler. `fates` are what becomes of its steps, the commit first; those that are missing
    /// are done. Gives the plan.
    pub fn pass(&mut self, fates: &[Fate]) -> Plan {
        self.run_applications();
        let plan = plan(&self.view());
        self.check_plan(&plan);
        let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::Done));
        match fates.next() {
            Some(Fate::Done | Fate::Refused) => self.commit(&plan.changes),
            Some(Fate::AnswerLost) => {
                self.commit(&plan.changes);
                self.die();
                return plan;
            }
            _ => {
                self.die();
                return plan;
            }
        }
        for action in &plan.actions {
            let fate = fates.next().unwrap_or(Fate::Done);
            if fate == Fate::Killed {
                self.die();
                return plan;
            }
            self.act(action, fate);
        }
        plan
    }

    /// Control dies: what it kept in memory is gone.
    fn die(&mut self) {
        self.note("control dies");
        self.problems.clear();
        for attempt in &mut self.attempts {
            attempt.image = ImageStanding::Unknown;
        }
    }

    pub fn attempt(&mut self, id: DeploymentId) -> &mut Attempt {
        self.attempts
            .iter_mut()
            .find(|attempt| attempt.id == id)
            .expect("it is there")
    }

    fn step(&mut self, id: DeploymentId, to: Outcome) {
        let attempt = self.attempt(id);
        attempt.outcome = attempt.outcome.step(to).expect("a legal step");
    }

    fn commit(&mut self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let before = self.history.last().expect("never empty").clone();
        let mut moved = Vec::new();
        for change in changes {
            self.note(format!("{change:?}"));
            match change.clone() {
                Change::Building(id) => self.step(id, Outcome::Building),
                Change::Begin(id) => {
                    self.step(id, Outcome::Deploying);
                    self.attempt(id).deploy_started_ms = Some(self.now_ms);
                }
                Change::End {
                    deployment, outcome, ..
                } => self.step(deployment, outcome),
                Change::Succeed { deployment, .. } => {
                    self.check_success(deployment);
                    self.step(deployment, Outcome::Succeeded);
                    self.intent.target = Some(deployment);
                    self.must_answer = self.intent.replicas > 0;
                }
                Change::Allocate {
                    deployment,
                    ordinal,
                    restart_nonce,
                } => {
                    let id = self.id();
                    let address = self.free_address(id);
                    moved.push(id);
                    self.replicas.push(Replica {
                        id,
                        deployment_id: deployment,
                        ordinal,
                        address,
                        restart_nonce,
                        phase: Phase::Admitting,
                        phase_revision: 0,
                        phase_ms: self.now_ms,
                        started_at_ms: None,
                        tries: 0,
                        next_try_ms: None,
                    });
                }
                Change::Move {
                    replica,
                    to,
                    started_at_ms,
                } => {
                    moved.push(replica);
                    let now_ms = self.now_ms;
                    let row = self.row(replica);
                    assert!(
                        row.phase < to || (row.phase, to) == (Phase::Serving, Phase::Starting),
                        "{:?} -> {to:?}",
                        row.phase
                    );
                    row.phase = to;
                    row.phase_ms = now_ms;
                    row.started_at_ms = started_at_ms.or(row.started_at_ms);
                }
                Change::Tries {
                    replica,
                    tries,
                    next_try_ms,
                } => {
                    let row = self.row(replica);
                    row.tries = tries;
                    row.next_try_ms = next_try_ms;
                }
                Change::Release(replica) => self.replicas.retain(|row| row.id != replica),
            }
        }
        let rows = table_rows(&self.place(), &self.intent, &self.attempts, &self.replicas);
        if rows != before {
            self.history.push(rows);
            let head = self.head();
            for id in moved {
                self.row(id).phase_revision = head;
            }
        }
    }

    fn row(&mut self, id: ReplicaId) -> &mut Replica {
        self.replicas
            .iter_mut()
            .find(|row| row.id == id)
            .expect("it is there")
    }

    fn place(&self) -> Place {
        Place {
            instance_id: Self::instance(),
            environment_id: Id::from_uuid(Uuid::nil()),
            mark: 1,
            service: "web".parse().expect("a name"),
            label: "shop/production/web".to_owned(),
            virtual_address: Ipv4Addr::new(10, 211, 0, 1),
            deleted: self.deleted,
            hosts: vec!["web-production.localhost".to_owned()],
            deployment_hosts: vec![],
        }
    }

    /// The lowest address without a row: the worst choice, to meet every reuse that is too early.
    fn free_address(&self, by: ReplicaId) -> Ipv4Addr {
        let address = (2..ADDRESSES)
            .map(|last| Ipv4Addr::new(10, 210, 0, last))
            .find(|address| self.replicas.iter().all(|row| row.address != *address))
            .expect("an address is free");
        for holder in self.holders() {
            let held = &self.history[holder.reader.version.revision as usize];
            let named =
                held.node.iter().any(
                    |row| matches!(row, NodeRow::Member(m) if m.address == address && m.replica_id != by),
                ) || upstreams(held)
                    .iter()
                    .any(|(_, up)| *up.address.ip() == address && up.replica_id != by);
            assert!(
                !named,
                "{address} is used again while `{}` still names it",
                holder.reader.name
            );
        }
        address
    }

    /// The readers that may still act on what they hold.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.readers.iter().filter(|holder| {
            let alone = self
                .readers
                .iter()
                .filter(|other| other.reader.audience == holder.reader.audience)
                .all(|other| {
                    other.reader.last_seen_ms <= holder.reader.last_seen_ms && !other.reader.connected
                });
            holder.reader.connected
                || alone
                || self.now_ms < holder.reader.last_seen_ms + READER_GONE_AFTER_MS
        })
    }
}
