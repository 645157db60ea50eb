//! What is known only while control runs: who is connected, what nodes see, what passes wait for.
//!
//! Nothing here is a truth that must survive: after a start everything is learnt again, from the readers' hellos, the
//! nodes' observations and the engine. It exists so that news reaches a waiting pass in microseconds: an
//! acknowledgement, an observation or a hint *rings* its instance. A pass that lingers is woken; otherwise the key is
//! enqueued.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrovia_core::cutover::{ImageStanding, InFlightReport, Problem, Reader, Readers, Waiting};
use ferrovia_core::id::{BuildId, InstanceId, ReplicaId, TeamId};
use ferrovia_core::observation::Observation;
use ferrovia_core::table::{Audience, Version};
use ferrovia_core::workload::ImageReference;
use ferrovia_table::observe::Observations;
use tokio::sync::{Notify, watch};

use crate::followers::Followers;

/// Most images whose standing on the engine is remembered.
const MAX_IMAGES: usize = 10_000;

/// What rings a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Rows may have changed.
    Rows,
    /// Containers may have changed.
    Engine,
    /// Something here changed: a reader, an observation.
    Live,
}

/// Wakes the pass of one instance and tells it what to look at again.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    rows: AtomicBool,
    engine: AtomicBool,
    live: AtomicBool,
}

impl Bell {
    fn ring(&self, ring: Ring) {
        let flag = match ring {
            Ring::Rows => &self.rows,
            Ring::Engine => &self.engine,
            Ring::Live => &self.live,
        };
        flag.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Returns when it was rung since the last call.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// What is known only here is looked at now: what rings later is news.
    pub fn take_live(&self) {
        self.live.store(false, Ordering::SeqCst);
    }

    /// Whether rows may have changed since the last call.
    pub fn take_rows(&self) -> bool {
        self.rows.swap(false, Ordering::SeqCst)
    }

    /// Whether containers may have changed since the last call.
    pub fn take_engine(&self) -> bool {
        self.engine.swap(false, Ordering::SeqCst)
    }
}

/// What a pass waits for, and what it met.
#[derive(Debug, Default)]
struct Entry {
    team: Option<TeamId>,
    bell: Option<Arc<Bell>>,
    waiting: Vec<Waiting>,
    /// The newest revision of the tables that it wants to see acknowledged.
    revision: Option<u64>,
    /// Replicas that drain, with the revision in which they left the routes.
    draining: Vec<(ReplicaId, u64)>,
    problems: Vec<Problem>,
    /// Engine calls that failed in a row.
    failures: u32,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    readers: BTreeMap<String, Reader>,
    troubles: BTreeMap<String, String>,
    instances: HashMap<InstanceId, Entry>,
    images: HashMap<ImageReference, ImageStanding>,
    builds: HashMap<BuildId, String>,
    observations: Arc<Observations>,
    due: HashSet<InstanceId>,
}

/// Everything that is known only while control runs. Shared by its parts.
#[derive(Debug)]
pub struct Live {
    audiences: Vec<Audience>,
    /// Passes that may be under way at once.
    slots: usize,
    /// Control is about to end.
    ending: AtomicBool,
    state: Mutex<State>,
    due: Notify,
    followers: Followers,
}

/// What a pass leaves for whoever rings it later.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    /// For people.
    pub waiting: Vec<Waiting>,
    /// The newest revision of the tables that it wants to see acknowledged.
    pub revision: Option<u64>,
    /// Replicas that drain, with the revision in which they left the routes.
    pub draining: Vec<(ReplicaId, u64)>,
}

impl Live {
    /// Nothing is known yet. `audiences`: the kinds of readers that this installation has; `slots`: passes that may be
    /// under way at once.
    pub fn new(audiences: Vec<Audience>, slots: u32) -> Self {
        Self {
            audiences,
            slots: slots as usize,
            ending: AtomicBool::new(false),
            state: Mutex::default(),
            due: Notify::new(),
            followers: Followers::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows an instance: tells when an outcome or a phase of it was written, its intent was changed, or any build
    /// began or ended.
    pub fn changes(&self, instance: InstanceId) -> watch::Receiver<()> {
        self.followers.follow(instance)
    }

    /// Something of an instance was written that somebody may follow.
    pub(crate) fn changed(&self, instance: InstanceId) {
        self.followers.wake(instance);
    }

    /// A build was written: those of other instances move up in the queue.
    pub(crate) fn builds_changed(&self) {
        self.followers.wake_all();
    }

    /// The last observation of each replica of an instance.
    pub fn observations_of(&self, instance: InstanceId) -> Vec<Observation> {
        let observations = self.lock().observations.clone();
        observations
            .replicas
            .values()
            .filter(|seen| seen.instance_id == instance)
            .map(|seen| (**seen).clone())
            .collect()
    }

    /// Whether a node is connected and tells what it sees.
    pub fn sees(&self) -> bool {
        self.lock().observations.connected
    }

    /// What an instance's reconciler waits for, for people.
    pub fn waiting_of(&self, instance: InstanceId) -> Vec<Waiting> {
        self.lock()
            .instances
            .get(&instance)
            .map(|entry| entry.waiting.clone())
            .unwrap_or_default()
    }

    /// Why a build does not begin, for people.
    pub fn waiting_of_build(&self, build: BuildId) -> Option<String> {
        self.lock().builds.get(&build).cloned()
    }

    pub(crate) fn set_build_wait(&self, build: BuildId, why: Option<String>) {
        let builds = &mut self.lock().builds;
        match why {
            Some(why) => builds.insert(build, why),
            None => builds.remove(&build),
        };
    }

    /// Edges and nodes as they stand, for the planner and for people.
    pub fn readers(&self) -> Readers {
        let state = self.lock();
        Readers {
            epoch: state.epoch,
            audiences: self.audiences.clone(),
            readers: state.readers.values().cloned().collect(),
        }
    }

    /// What readers said was wrong with them, by name.
    pub fn troubles(&self) -> BTreeMap<String, String> {
        self.lock().troubles.clone()
    }

    /// Rings an instance: its pass if one lingers, else its key becomes due.
    pub(crate) fn ring(&self, instance: InstanceId, ring: Ring) {
        let mut state = self.lock();
        self.ring_in(&mut state, instance, ring);
    }

    fn ring_in(&self, state: &mut State, instance: InstanceId, ring: Ring) {
        match state
            .instances
            .get(&instance)
            .and_then(|entry| entry.bell.as_ref())
        {
            Some(bell) => bell.ring(ring),
            None => {
                state.due.insert(instance);
                self.due.notify_one();
            }
        }
    }

    /// Rings every pass that lingers: something was enqueued, perhaps for it.
    pub(crate) fn ring_lingering(&self) {
        let state = self.lock();
        for bell in state.instances.values().filter_map(|entry| entry.bell.as_ref()) {
            bell.ring(Ring::Rows);
        }
    }

    /// Whether a pass with nothing to do should leave its slot to others.
    pub(crate) fn is_crowded(&self) -> bool {
        let present = |state: &State| {
            state
                .instances
                .values()
                .filter(|entry| entry.bell.is_some())
                .count()
        };
        self.ending.load(Ordering::SeqCst) || present(&self.lock()) >= self.slots
    }

    /// Control is about to end: passes that linger leave.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.ring_lingering();
    }

    /// The instances that were rung while no pass lingered, with their teams; waits until there are some.
    pub(crate) async fn take_due(&self) -> Vec<(InstanceId, Option<TeamId>)> {
        loop {
            let due: Vec<(InstanceId, Option<TeamId>)> = {
                let mut state = self.lock();
                let due = std::mem::take(&mut state.due);
                due.into_iter()
                    .map(|id| (id, state.instances.get(&id).and_then(|entry| entry.team)))
                    .collect()
            };
            if !due.is_empty() {
                return due;
            }
            self.due.notified().await;
        }
    }

    /// A pass begins; its bell. The guard ends it.
    pub(crate) fn enter(self: &Arc<Self>, instance: InstanceId) -> Presence {
        let bell = Arc::new(Bell::default());
        let mut state = self.lock();
        state.instances.entry(instance).or_default().bell = Some(bell.clone());
        Presence {
            live: self.clone(),
            instance,
            bell,
        }
    }

    pub(crate) fn set_team(&self, instance: InstanceId, team: TeamId) {
        if let Some(entry) = self.lock().instances.get_mut(&instance) {
            entry.team = Some(team);
        }
    }

    pub(crate) fn set_waits(&self, instance: InstanceId, waits: Waits) {
        if let Some(entry) = self.lock().instances.get_mut(&instance) {
            entry.waiting = waits.waiting;
            entry.revision = waits.revision;
            entry.draining = waits.draining;
        }
    }

    pub(crate) fn problems(&self, instance: InstanceId) -> Vec<Problem> {
        self.lock()
            .instances
            .get(&instance)
            .map(|entry| entry.problems.clone())
            .unwrap_or_default()
    }

    /// Notes a problem in place of the last one of its kind. Gives how many engine failures came in a row.
    pub(crate) fn add_problem(&self, instance: InstanceId, problem: Problem) -> u32 {
        let mut state = self.lock();
        let entry = state.instances.entry(instance).or_default();
        entry.problems.retain(|old| match (old, &problem) {
            (Problem::CannotStart { replica: old, .. }, Problem::CannotStart { replica: new, .. }) => {
                old != new
            }
            (Problem::Engine { .. }, Problem::Engine { .. }) => false,
            _ => true,
        });
        entry.problems.push(problem);
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// A replica was started: what kept it from that is over.
    pub(crate) fn started(&self, instance: InstanceId, started: ReplicaId) {
        if let Some(entry) = self.lock().instances.get_mut(&instance) {
            entry.problems.retain(
                |problem| !matches!(problem, Problem::CannotStart { replica, .. } if *replica == started),
            );
        }
    }

    /// The engine answered everything that it was asked.
    pub(crate) fn engine_is_well(&self, instance: InstanceId) {
        if let Some(entry) = self.lock().instances.get_mut(&instance) {
            entry.failures = 0;
            entry
                .problems
                .retain(|problem| !matches!(problem, Problem::Engine { .. }));
        }
    }

    pub(crate) fn image(&self, image: &ImageReference) -> ImageStanding {
        self.lock()
            .images
            .get(image)
            .cloned()
            .unwrap_or(ImageStanding::Unknown)
    }

    pub(crate) fn set_image(&self, image: &ImageReference, standing: ImageStanding) {
        let mut state = self.lock();
        if state.images.len() >= MAX_IMAGES {
            state
                .images
                .retain(|_, standing| *standing == ImageStanding::Fetching);
        }
        state.images.insert(image.clone(), standing);
    }

    /// Takes in what nodes see now, and rings the instances whose replicas differ. The first word after a start rings
    /// only whoever waits: everybody else is compared in bulk.
    pub(crate) fn observe(&self, now: Arc<Observations>) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.observations, now.clone());
        if !before.connected && before.replicas.is_empty() {
            return self.ring_waiting(&mut state, |_| true);
        }
        let mut rung = HashSet::new();
        for replica in now.differences(&before) {
            let seen = now
                .replicas
                .get(&replica)
                .or_else(|| before.replicas.get(&replica));
            if let Some(seen) = seen {
                rung.insert(seen.instance_id);
            }
        }
        for instance in rung {
            self.ring_in(&mut state, instance, Ring::Live);
        }
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.lock().epoch = epoch;
    }

    pub(crate) fn set_reader(&self, reader: Reader) {
        let mut state = self.lock();
        state.troubles.remove(&reader.name);
        state.readers.insert(reader.name.clone(), reader);
        self.ring_waiting(&mut state, |_| true);
    }

    pub(crate) fn reader(&self, name: &str) -> Option<Reader> {
        self.lock().readers.get(name).cloned()
    }

    pub(crate) fn remove_reader(&self, name: &str) {
        let mut state = self.lock();
        state.readers.remove(name);
        state.troubles.remove(name);
        self.ring_waiting(&mut state, |_| true);
    }

    pub(crate) fn set_trouble(&self, name: &str, text: String) {
        self.lock().troubles.insert(name.to_owned(), text);
    }

    /// A reader holds a version; whoever waits for no more than that is rung.
    pub(crate) fn acknowledge(&self, name: &str, version: Version, now_ms: i64) -> Option<Reader> {
        let mut state = self.lock();
        let reader = state.readers.get_mut(name)?;
        reader.version = version;
        reader.last_seen_ms = now_ms;
        let reader = reader.clone();
        state.troubles.remove(name);
        self.ring_waiting(&mut state, |entry| {
            entry
                .revision
                .is_some_and(|revision| revision <= version.revision)
        });
        Some(reader)
    }

    /// A reader counted what is in flight; whose replica has drained is rung.
    pub(crate) fn report(&self, name: &str, report: InFlightReport, now_ms: i64) {
        let mut state = self.lock();
        let Some(reader) = state.readers.get_mut(name) else {
            return;
        };
        reader.last_seen_ms = now_ms;
        let drained = |(replica, revision): &(ReplicaId, u64)| {
            *revision <= report.version.revision && report.open.get(replica).is_none_or(|&open| open == 0)
        };
        let was_drained = reader.in_flight.replace(report.clone());
        let news = |entry: &Entry| {
            entry.draining.iter().any(|waits| {
                drained(waits)
                    && was_drained.as_ref().is_none_or(|before| {
                        before.version.revision < waits.1
                            || before.open.get(&waits.0).is_some_and(|&open| open > 0)
                    })
            })
        };
        self.ring_waiting(&mut state, news);
    }

    fn ring_waiting(&self, state: &mut State, news: impl Fn(&Entry) -> bool) {
        let rung: Vec<InstanceId> = state
            .instances
            .iter()
            .filter(|(_, entry)| !entry.waiting.is_empty() && news(entry))
            .map(|(&id, _)| id)
            .collect();
        for instance in rung {
            self.ring_in(state, instance, Ring::Live);
        }
    }
}

/// A pass that is under way.
#[derive(Debug)]
pub(crate) struct Presence {
    live: Arc<Live>,
    instance: InstanceId,
    /// What wakes it.
    pub(crate) bell: Arc<Bell>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        let Some(entry) = state.instances.get_mut(&self.instance) else {
            return;
        };
        entry.bell = None;
        if entry.waiting.is_empty() && entry.problems.is_empty() {
            state.instances.remove(&self.instance);
        }
        // Rung after the last look: the next pass looks. Changed rows are in the queue anyway.
        let missed = self.bell.live.load(Ordering::SeqCst) || self.bell.engine.load(Ordering::SeqCst);
        if missed {
            state.due.insert(self.instance);
            self.live.due.notify_one();
        }
    }
}
