//! What `node` knows, with a number for every change, so that each subscriber can be sent what it lacks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrovia_core::id::ReplicaId;
use ferrovia_core::observation::{Figures, Observation};
use tokio::sync::{Notify, watch};

/// Replicas that are gone and still remembered, so that subscribers hear of it; one that lags further is sent all.
const MAX_GONE: usize = 1_024;
/// How old the time of an observation may get before the same seen again is passed on, in milliseconds.
const REFRESH_MS: i64 = 10_000;

/// The observations of all replicas. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct Board {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
    figures: watch::Sender<Arc<Vec<Figures>>>,
    figures_wanted: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            newest: watch::channel(0).0,
            figures: watch::channel(Arc::default()).0,
            figures_wanted: Notify::new(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    seen: HashMap<ReplicaId, (u64, Observation)>,
    gone: BTreeMap<u64, ReplicaId>,
    /// Subscribers that know less than this are sent everything.
    forgotten: u64,
}

/// What a subscriber lacks.
pub(super) struct News {
    pub(super) all: bool,
    pub(super) seen: Vec<Observation>,
    pub(super) gone: Vec<ReplicaId>,
    pub(super) number: u64,
    /// How many replicas are on the board.
    pub(super) replicas: usize,
}

impl Board {
    /// Notes what was seen of a replica. The same seen again is news only after [`REFRESH_MS`].
    pub fn set(&self, observation: Observation) {
        let mut state = self.lock();
        let known = state.seen.get(&observation.replica_id).map(|(_, known)| known);
        let is_news = known.is_none_or(|known| {
            observation.seen_at_ms - known.seen_at_ms >= REFRESH_MS || !known.says_the_same_as(&observation)
        });
        if !is_news {
            return;
        }
        state.number += 1;
        let number = state.number;
        state.seen.insert(observation.replica_id, (number, observation));
        drop(state);
        self.shared.newest.send_replace(number);
    }

    /// Notes that a replica is no more.
    pub fn remove(&self, replica: ReplicaId) {
        let mut state = self.lock();
        if state.seen.remove(&replica).is_none() {
            return;
        }
        state.number += 1;
        let number = state.number;
        state.gone.insert(number, replica);
        while state.gone.len() > MAX_GONE {
            if let Some((forgotten, _)) = state.gone.pop_first() {
                state.forgotten = forgotten;
            }
        }
        drop(state);
        self.shared.newest.send_replace(number);
    }

    /// Notes the figures of all replicas that run.
    pub fn set_figures(&self, figures: Vec<Figures>) {
        self.shared.figures.send_replace(Arc::new(figures));
    }

    /// Waits until somebody wants figures; at once while somebody does.
    pub async fn figures_wanted(&self) {
        while self.shared.figures.receiver_count() == 0 {
            self.shared.figures_wanted.notified().await;
        }
    }

    /// What is known of a replica.
    pub fn find(&self, replica: ReplicaId) -> Option<Observation> {
        self.lock()
            .seen
            .get(&replica)
            .map(|(_, observation)| observation.clone())
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<Observation> {
        self.lock()
            .seen
            .values()
            .map(|(_, observation)| observation.clone())
            .collect()
    }

    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    pub(super) fn follow_figures(&self) -> watch::Receiver<Arc<Vec<Figures>>> {
        let receiver = self.shared.figures.subscribe();
        self.shared.figures_wanted.notify_one();
        receiver
    }

    /// What happened after `since`; everything for `None`.
    pub(super) fn news(&self, since: Option<u64>) -> News {
        let state = self.lock();
        let since = since.filter(|&since| since >= state.forgotten);
        let after = since.unwrap_or(0);
        News {
            all: since.is_none(),
            seen: state
                .seen
                .values()
                .filter(|(number, _)| since.is_none() || *number > after)
                .map(|(_, observation)| observation.clone())
                .collect(),
            gone: match since {
                Some(since) => state
                    .gone
                    .range(since + 1..)
                    .map(|(_, &replica)| replica)
                    .filter(|replica| !state.seen.contains_key(replica))
                    .collect(),
                None => Vec::new(),
            },
            number: state.number,
            replicas: state.seen.len(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
