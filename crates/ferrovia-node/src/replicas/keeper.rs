//! The task that keeps the records: engine's events and looks in, probes and observations out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::settings::DEFAULT_STOP_GRACE_MS;
use ferrovia_core::table::MemberPhase;
use ferrovia_core::workload::Observed;
use ferrovia_engine::{Engine, Scope};
use ferrovia_table::observe::Board;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::due::Due;
use super::record::Record;
use crate::clock::now_ms;
use crate::logs::{Containers, Drained};
use crate::probe::{Finding, Prober, Target};
use crate::rows::Rows;

/// How often everything is looked at without a hint, in milliseconds: hints may get lost.
const LOOK_AT_ALL_MS: u64 = 60_000;
/// Looks at the engine under way at once.
const MAX_LOOKS: usize = 4;
/// Hints that wait; more become a look at everything.
const HINT_QUEUE: usize = 1_024;
/// Pause before the engine is asked again after it failed, in milliseconds.
const ENGINE_PAUSE_MS: u64 = 1_000;
/// Replicas that were running before this process began are told of after their first probe, or after this long, in
/// milliseconds: "starting" would be wrong of them.
const FIRST_WORD_MS: u64 = 1_500;
/// How long the first table is waited for, in milliseconds: it is on the disk.
const FIRST_TABLE_MS: u64 = 5_000;
/// How often what waits is looked at, in milliseconds.
const TICK_MS: u64 = 500;

/// What the keeper works with.
pub struct Parts {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where observations are told.
    pub board: Board,
    /// Makes probes.
    pub prober: Prober,
    /// What they find.
    pub findings: mpsc::Receiver<Finding>,
    /// The newest table; `None` before the first.
    pub rows: watch::Receiver<Option<Arc<Rows>>>,
    /// Containers whose log was read to its end.
    pub drained: mpsc::Receiver<Drained>,
    /// Everything the engine has, for those who read logs and figures.
    pub containers: watch::Sender<Option<Containers>>,
}

/// Keeps the records of all replicas.
pub struct Keeper {
    parts: Parts,
    /// The table that every record was settled with.
    settled: Option<Arc<Rows>>,
    records: HashMap<ReplicaId, Record>,
    /// Not told yet: until when their first probe is waited for.
    held: HashMap<ReplicaId, Instant>,
    probes: HashMap<ReplicaId, (Target, AbortHandle)>,
    probing: JoinSet<()>,
    stopping: HashSet<String>,
    stops: JoinSet<(String, InstanceId)>,
    looks: JoinSet<Look>,
    due: Due,
    looking_at_all: bool,
    looking: HashSet<InstanceId>,
    /// Number of the newest look, and at which one an instance was looked at last.
    look_number: u64,
    looked: HashMap<InstanceId, u64>,
    /// Whether the engine did not answer last time: told once.
    away: bool,
}

struct Look {
    scope: Option<InstanceId>,
    number: u64,
    found: Result<Vec<Observed>, ferrovia_engine::Error>,
}

impl Keeper {
    /// A keeper that knows nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            settled: None,
            records: HashMap::new(),
            held: HashMap::new(),
            probes: HashMap::new(),
            probing: JoinSet::new(),
            stopping: HashSet::new(),
            stops: JoinSet::new(),
            looks: JoinSet::new(),
            due: Due::default(),
            looking_at_all: false,
            looking: HashSet::new(),
            look_number: 0,
            looked: HashMap::new(),
            away: false,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        // What is proven, and so not told as "starting", stands in the table.
        let first = self.parts.rows.wait_for(Option::is_some);
        drop(
            timeout(Duration::from_millis(FIRST_TABLE_MS), first)
                .await
                .map(drop),
        );
        let (hinter, mut hints) = mpsc::channel(HINT_QUEUE);
        let mut background = JoinSet::new();
        background.spawn(events(Arc::clone(&self.parts.engine), hinter));
        let mut all = interval(Duration::from_millis(LOOK_AT_ALL_MS));
        let mut tick = interval(Duration::from_millis(TICK_MS));
        all.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin_looks();
            tokio::select! {
                Some(hint) = hints.recv() => match hint {
                    Some(instance) => self.due.instance(instance),
                    None => self.due.everything(),
                },
                _ = all.tick() => self.due.everything(),
                Some(look) = self.looks.join_next() => if let Ok(look) = look {
                    self.take_look(look);
                },
                Some(finding) = self.parts.findings.recv() => self.take_finding(finding),
                Some(drained) = self.parts.drained.recv() => self.take_drained(&drained),
                changed = self.parts.rows.changed() => match changed {
                    Ok(()) => self.follow_rows(),
                    Err(_) => return,
                },
                Some(stopped) = self.stops.join_next() => if let Ok((handle, instance)) = stopped {
                    self.stopping.remove(&handle);
                    // The engine tells nothing when it stops what waits for its next run.
                    self.due.instance(instance);
                },
                Some(_) = self.probing.join_next() => {}
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn begin_looks(&mut self) {
        if !self.looking_at_all && self.due.take_everything(Instant::now()) {
            self.looking_at_all = true;
            self.begin_look(None);
        }
        while self.looks.len() < MAX_LOOKS
            && let Some(instance) = self.due.take_instance(&self.looking)
        {
            self.looking.insert(instance);
            self.begin_look(Some(instance));
        }
    }

    fn begin_look(&mut self, instance: Option<InstanceId>) {
        self.look_number += 1;
        let number = self.look_number;
        let engine = Arc::clone(&self.parts.engine);
        self.looks.spawn(async move {
            let scope = instance.map_or(Scope::All, Scope::Instance);
            let found = engine.observe(scope).await;
            if found.is_err() {
                sleep(Duration::from_millis(ENGINE_PAUSE_MS)).await;
            }
            Look {
                scope: instance,
                number,
                found,
            }
        });
    }

    fn take_look(&mut self, look: Look) {
        match look.scope {
            Some(instance) => {
                self.looking.remove(&instance);
            }
            None => {
                self.looking_at_all = false;
                self.due.looked_at_all(Instant::now());
            }
        }
        let found = match look.found {
            Ok(found) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("the replicas can be seen again");
                }
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!("the replicas cannot be seen, which is tried again: {error}");
                }
                match look.scope {
                    Some(instance) => self.due.instance(instance),
                    None => self.due.everything(),
                }
                return;
            }
        };
        // A look at one instance that began after a look at all knows better.
        let newer = |instance: InstanceId| {
            self.looked
                .get(&instance)
                .is_some_and(|number| *number > look.number)
        };
        let found: Vec<Observed> = found
            .into_iter()
            .filter(|observed| !newer(observed.instance_id))
            .collect();
        let there: HashSet<ReplicaId> = found.iter().map(|observed| observed.replica_id).collect();
        let gone: Vec<ReplicaId> = self
            .records
            .iter()
            .filter(|(replica, record)| {
                let instance = record.observed().instance_id;
                look.scope.is_none_or(|scope| scope == instance)
                    && !newer(instance)
                    && !there.contains(replica)
            })
            .map(|(replica, _)| *replica)
            .collect();
        if let Some(instance) = look.scope {
            self.looked.insert(instance, look.number);
        } else {
            self.looked.retain(|_, number| *number > look.number);
        }
        let mut is_news = !gone.is_empty();
        for replica in gone {
            self.forget(replica);
        }
        for observed in found {
            is_news |= self.take_observed(observed);
        }
        // Nothing is told before everything was looked at once.
        let was_told = self.parts.containers.borrow().is_some();
        if if was_told { is_news } else { look.scope.is_none() } {
            let all = self.records.values().map(|record| Arc::clone(record.observed()));
            self.parts.containers.send_replace(Some(Arc::new(all.collect())));
        }
    }

    /// Takes the engine's words of a replica; whether they are others than before.
    fn take_observed(&mut self, observed: Observed) -> bool {
        let replica = observed.replica_id;
        let is_news = match self.records.get_mut(&replica) {
            Some(record) => {
                let is_news = **record.observed() != observed;
                record.observe(observed, now_ms());
                is_news
            }
            None => {
                let record = Record::new(observed, now_ms());
                let proven = self
                    .member_phase(replica)
                    .is_some_and(|phase| phase != MemberPhase::Starting);
                if proven && record.run().is_some() {
                    self.held
                        .insert(replica, Instant::now() + Duration::from_millis(FIRST_WORD_MS));
                }
                self.records.insert(replica, record);
                true
            }
        };
        self.settle(replica);
        is_news
    }

    fn take_finding(&mut self, finding: Finding) {
        let Some(record) = self.records.get_mut(&finding.replica) else {
            return;
        };
        if record.find(finding.started_at_ms, finding.news) {
            self.held.remove(&finding.replica);
            self.tell(finding.replica);
        }
    }

    fn take_drained(&mut self, drained: &Drained) {
        let found = self
            .records
            .iter_mut()
            .find(|(_, record)| record.observed().handle == drained.handle);
        if let Some((replica, record)) = found
            && record.drain(drained.run)
        {
            let replica = *replica;
            self.tell(replica);
        }
    }

    fn follow_rows(&mut self) {
        let newest = self.parts.rows.borrow().clone();
        let before = std::mem::replace(&mut self.settled, newest.clone());
        let differs = |replica: ReplicaId| match (&newest, &before) {
            (Some(newest), Some(before)) => newest.differs(before, replica),
            _ => true,
        };
        let differing: Vec<ReplicaId> = self
            .records
            .keys()
            .copied()
            .filter(|replica| differs(*replica))
            .collect();
        for replica in differing {
            self.settle(replica);
        }
    }

    /// Tells of a replica, and makes its probes and its restarts what they should be.
    fn settle(&mut self, replica: ReplicaId) {
        self.tell(replica);
        let rows = self.parts.rows.borrow().clone();
        let Some(record) = self.records.get(&replica) else {
            return;
        };
        let member = rows.as_ref().and_then(|rows| Some((rows, rows.member(replica)?)));
        let target = member.and_then(|(rows, member)| {
            Some(Target {
                replica,
                handle: record.observed().handle.clone(),
                started_at_ms: record.run()?,
                address: member.address,
                probe: member.probe.clone(),
                host: rows.host(member),
            })
        });
        let probed = self.probes.get(&replica).map(|(target, _)| target);
        if probed != target.as_ref() {
            if let Some((_, probe)) = self.probes.remove(&replica) {
                probe.abort();
            }
            if let Some(target) = target {
                let probe = self.probing.spawn(self.parts.prober.clone().run(target.clone()));
                self.probes.insert(replica, (target, probe));
            }
        }
        if let Some((_, member)) = member
            && let Some(why) = record.must_stop(member)
        {
            self.stop(replica, why);
        }
    }

    fn stop(&mut self, replica: ReplicaId, why: &'static str) {
        let Some(record) = self.records.get_mut(&replica) else {
            return;
        };
        let handle = record.observed().handle.clone();
        let instance = record.observed().instance_id;
        if !self.stopping.insert(handle.clone()) {
            return;
        }
        record.stop();
        tracing::info!(container = handle, "a replica is stopped for good: {why}");
        let engine = Arc::clone(&self.parts.engine);
        self.stops.spawn(async move {
            // Its restart policy stays: one that ended although the engine would start it again was stopped here, and
            // control leaves it so.
            if let Err(error) = engine.stop(&handle, DEFAULT_STOP_GRACE_MS).await {
                tracing::warn!(container = handle, "a replica was not stopped: {error}");
                sleep(Duration::from_millis(ENGINE_PAUSE_MS)).await;
            }
            (handle, instance)
        });
    }

    fn tell(&mut self, replica: ReplicaId) {
        if self.held.contains_key(&replica) {
            return;
        }
        if let Some(record) = self.records.get(&replica) {
            self.parts.board.set(record.observation(now_ms()));
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.held.retain(|_, until| *until > now);
        let troubled: Vec<ReplicaId> = self
            .records
            .iter()
            // What was held; crashes that are forgiven; a stop that failed.
            .filter(|(_, record)| record.is_unsettled())
            .map(|(replica, _)| *replica)
            .collect();
        for replica in troubled {
            self.settle(replica);
        }
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.records.remove(&replica);
        self.held.remove(&replica);
        if let Some((_, probe)) = self.probes.remove(&replica) {
            probe.abort();
        }
        self.parts.board.remove(replica);
    }

    fn member_phase(&self, replica: ReplicaId) -> Option<MemberPhase> {
        let rows = self.parts.rows.borrow();
        Some(rows.as_ref()?.member(replica)?.phase)
    }
}

/// Hands on the engine's hints; `None` for "anything may have changed". Ends with its receiver.
async fn events(engine: Arc<dyn Engine>, hints: mpsc::Sender<Option<InstanceId>>) {
    let mut away = false;
    loop {
        match engine.events().await {
            Ok(mut stream) => {
                away = false;
                // What happened before the stream began is unknown.
                if hints.send(None).await.is_err() {
                    return;
                }
                while let Some(hint) = stream.next().await {
                    match hint {
                        Ok(hint) => {
                            if hints.send(Some(hint.instance_id)).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            tracing::info!("the engine's events ended: {error}");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!("the engine's events cannot be followed, which is tried again: {error}");
                }
            }
        }
        if hints.is_closed() {
            return;
        }
        sleep(Duration::from_millis(ENGINE_PAUSE_MS)).await;
    }
}
