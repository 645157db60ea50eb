//! A subscriber's end: the newest observations, for ever connecting again, and requests to wake.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::observation::{Figures, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::{FromNode, FromSubscriber};
use crate::error::Error;
use crate::link;
use crate::socket::{self, Peers};

/// First and longest pause before connecting again, in milliseconds.
const RECONNECT_MS: (u64, u64) = (50, 1_000);
/// Requests to wake that wait for a connection; more are dropped, since whoever waits asks again.
const WAKE_QUEUE: usize = 256;

/// What `node` sees, as far as it is known here.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// Whether `node` is connected; if not, this is what it said last.
    pub connected: bool,
    /// By replica.
    pub replicas: BTreeMap<ReplicaId, Arc<Observation>>,
}

impl Observations {
    /// Replicas that are new, changed or gone against `before`. The same seen again later is no change: with many
    /// replicas that is all the time the case for some of them.
    pub fn differences(&self, before: &Self) -> Vec<ReplicaId> {
        let changed = self.replicas.iter().filter(|(id, now)| {
            before
                .replicas
                .get(id)
                .is_none_or(|then| !Arc::ptr_eq(now, then) && !now.says_the_same_as(then))
        });
        let gone = before
            .replicas
            .keys()
            .filter(|id| !self.replicas.contains_key(id));
        changed.map(|(&id, _)| id).chain(gone.copied()).collect()
    }
}

/// The newest figures of the replicas that run.
pub type AllFigures = Arc<BTreeMap<ReplicaId, Figures>>;

/// Keeps a subscription.
#[derive(Debug)]
pub struct Observer {
    socket: PathBuf,
    peers: Peers,
    newest: watch::Sender<Arc<Observations>>,
    wakes: mpsc::Receiver<InstanceId>,
    figures: Option<watch::Sender<AllFigures>>,
}

/// The newest observations and the way to wake an instance.
#[derive(Debug, Clone)]
pub struct ObserverHandle {
    newest: watch::Receiver<Arc<Observations>>,
    wakes: mpsc::Sender<InstanceId>,
}

impl ObserverHandle {
    /// Follows the observations.
    pub fn observations(&self) -> watch::Receiver<Arc<Observations>> {
        self.newest.clone()
    }

    /// Asks `node` to wake an instance. It may get lost: who goes on waiting asks again.
    pub fn wake(&self, instance: InstanceId) {
        // A full queue means that as many requests already wait for `node`.
        let _ = self.wakes.try_send(instance);
    }
}

impl Observer {
    /// A subscription to `socket`, which is `RUN_DIR/node.sock`, once it runs.
    pub fn new(socket: PathBuf, peers: Peers) -> (Self, ObserverHandle) {
        let (newest, receiver) = watch::channel(Arc::default());
        let (waker, wakes) = mpsc::channel(WAKE_QUEUE);
        (
            Self {
                socket,
                peers,
                newest,
                wakes,
                figures: None,
            },
            ObserverHandle {
                newest: receiver,
                wakes: waker,
            },
        )
    }

    /// Asks for figures too. They cost something as long as this runs.
    pub fn with_figures(&mut self) -> watch::Receiver<AllFigures> {
        let (sender, figures) = watch::channel(Arc::default());
        self.figures = Some(sender);
        figures
    }

    /// Keeps the subscription until it is dropped.
    pub async fn run(mut self) {
        let mut pause = RECONNECT_MS.0;
        loop {
            let began = Instant::now();
            let error = self.connection().await;
            tracing::debug!("the observations' connection ended: {}", error.chain());
            if self.newest.borrow().connected {
                let last = Observations {
                    connected: false,
                    ..(**self.newest.borrow()).clone()
                };
                self.newest.send_replace(Arc::new(last));
            }
            if began.elapsed() > Duration::from_millis(RECONNECT_MS.1) {
                pause = RECONNECT_MS.0;
            }
            sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(RECONNECT_MS.1);
        }
    }

    async fn connection(&mut self) -> Error {
        match self.subscribed().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn subscribed(&mut self) -> Result<std::convert::Infallible, Error> {
        let stream = socket::connect(&self.socket, self.peers).await?;
        let (mut sender, mut receiver) = link::open::<FromNode>(stream, &FromSubscriber::Heartbeat)?;
        if self.figures.is_some() {
            sender.send(&FromSubscriber::Figures).await?;
        }
        let mut coming: Option<Observations> = None;
        let mut coming_figures = BTreeMap::new();
        loop {
            tokio::select! {
                message = receiver.next() => match message? {
                    FromNode::Heartbeat => {}
                    FromNode::Figures { first, last, figures } => {
                        if first {
                            coming_figures.clear();
                        }
                        coming_figures.extend(figures.into_iter().map(|figures| (figures.replica_id, figures)));
                        if last && let Some(sender) = &self.figures {
                            sender.send_replace(Arc::new(std::mem::take(&mut coming_figures)));
                        }
                    }
                    FromNode::News { all, seen, gone, last } => {
                        let next = coming.get_or_insert_with(|| {
                            let replicas = if all { BTreeMap::new() } else { self.newest.borrow().replicas.clone() };
                            Observations { connected: true, replicas }
                        });
                        for id in gone {
                            next.replicas.remove(&id);
                        }
                        next.replicas.extend(seen.into_iter().map(|o| (o.replica_id, Arc::new(o))));
                        if last && let Some(next) = coming.take() {
                            self.newest.send_replace(Arc::new(next));
                        }
                    }
                },
                Some(instance) = self.wakes.recv() => sender.send(&FromSubscriber::Wake(instance)).await?,
                () = sender.beat() => sender.beat_once().await?,
            }
        }
    }
}
