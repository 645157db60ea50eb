//! Control as a whole: what it stands on, what it starts, how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_build::Builder;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::table::Audience;
use ferrovia_engine::{Engine, RegistryLogin};
use ferrovia_store::queue::{self, Lane, Runner, Wake, Work};
use ferrovia_store::seal::Keyring;
use ferrovia_store::{Clock, Db};
use ferrovia_table::observe::Observer;
use ferrovia_table::{Notifier, Peers, Server};
use futures_util::StreamExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::beside::Beside;
use crate::dispatch::Dispatch;
use crate::live::{Live, Ring};
use crate::publisher::Publisher;
use crate::{cleanup, work};

/// Longest engine call but fetches and stops, in milliseconds: shorter than a lease.
pub(crate) const ENGINE_CALL_MS: u64 = 20_000;
/// How long a key belongs to a pass without renewal, in milliseconds.
const LEASE_MS: u64 = 60_000;
/// Pause before listening to the engine again, in milliseconds.
const EVENTS_AGAIN_MS: u64 = 1_000;
/// The engine's events are asked for anew after this long without one, in milliseconds: a stream can be dead and not
/// say so.
const EVENTS_QUIET_MS: u64 = 300_000;
/// How long passes may take to end when control ends, in milliseconds.
const STOP_MS: u64 = 5_000;
/// A claim that the control before this one had sent to the database may still take effect after its death; after this
/// time it has, in milliseconds.
const LATE_CLAIMS_MS: u64 = 1_000;

/// How applications are reached from outside.
#[derive(Debug, Clone)]
pub struct Site {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The edge's port.
    pub port: u16,
}

/// What control stands on.
pub struct Parts<E, B> {
    /// The database, migrated.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The keys of secrets.
    pub keyring: Arc<Keyring>,
    /// What runs replicas.
    pub engine: Arc<E>,
    /// What makes images.
    pub builder: Arc<B>,
    /// What keeps things on disk that rows refer to, beside images and logs: swept now and then.
    pub sweeps: Vec<Arc<dyn Sweep>>,
}

/// Something on disk from which goes what no row refers to any more.
#[async_trait]
pub trait Sweep: Send + Sync {
    /// For people: `registry blobs`.
    fn name(&self) -> &'static str;

    /// Takes away what is not referred to. Gives what it did, for the log; the error is for people.
    async fn sweep(&self) -> Result<String, String>;
}

/// How control is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which addresses the platform gives out.
    pub addresses: AddressPlan,
    /// How applications are reached from outside.
    pub site: Site,
    /// How the engine signs in to the platform's registry.
    pub registry: RegistryLogin,
    /// Host and port of the platform's registry: images under it are ours.
    pub registry_host: String,
    /// Directory of logs.
    pub logs: PathBuf,
    /// `RUN_DIR/node.sock`.
    pub node_socket: PathBuf,
    /// Who edges and nodes may run as.
    pub peers: Peers,
    /// Which kinds of readers this installation has; a deployment needs one of each.
    pub audiences: Vec<Audience>,
    /// Passes at once.
    pub control_slots: u32,
    /// Builds at once.
    pub build_slots: u32,
    /// A build waits while less memory than this is available on the host, in bytes.
    pub build_memory_bytes: u64,
    /// A build that takes longer is ended, in milliseconds.
    pub build_timeout_ms: u64,
}

/// What every reconciler shares.
pub(crate) struct Shared<E, B> {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) engine: Arc<E>,
    pub(crate) builder: Arc<B>,
    pub(crate) sweeps: Vec<Arc<dyn Sweep>>,
    pub(crate) live: Arc<Live>,
    pub(crate) tables: Notifier,
    pub(crate) wake: Wake,
    pub(crate) beside: Beside,
    pub(crate) addresses: AddressPlan,
    pub(crate) site: Site,
    pub(crate) registry: RegistryLogin,
    pub(crate) registry_host: String,
    pub(crate) logs: PathBuf,
    pub(crate) build_memory_bytes: u64,
    pub(crate) build_timeout_ms: u64,
    /// Turns true when control is about to end.
    pub(crate) ending: watch::Sender<bool>,
}

/// Reconcilers, tables and subscriptions.
pub struct Control<E, B> {
    shared: Arc<Shared<E, B>>,
    publisher: Publisher,
    server: Server<Publisher>,
    options: Options,
    status: watch::Sender<Status>,
}

/// How control's parts are, for `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Work is claimed.
    pub works: bool,
    /// The engine's events come in.
    pub hears_engine: bool,
    /// A node tells what it sees.
    pub hears_node: bool,
}

/// Ends what runs beside when control is dropped, wherever it stands.
struct Closing<E, B>(Arc<Shared<E, B>>);

impl<E, B> Drop for Closing<E, B> {
    fn drop(&mut self) {
        self.0.beside.close();
    }
}

impl<E: Engine + 'static, B: Builder + 'static> Control<E, B> {
    /// Reads what must be known before work begins. Listens for work from now on.
    ///
    /// # Errors
    /// [`ferrovia_store::Error::Unavailable`].
    pub async fn new(parts: Parts<E, B>, options: Options) -> Result<Self, ferrovia_store::Error> {
        let live = Arc::new(Live::new(options.audiences.clone(), options.control_slots));
        let publisher = Publisher::open(parts.db.clone(), parts.clock.clone(), live.clone()).await?;
        let server = Server::new(publisher.clone(), options.peers);
        let shared = Arc::new(Shared {
            wake: Wake::listen(&parts.db),
            db: parts.db,
            clock: parts.clock,
            keyring: parts.keyring,
            engine: parts.engine,
            builder: parts.builder,
            sweeps: parts.sweeps,
            live,
            tables: server.notifier(),
            beside: Beside::default(),
            addresses: options.addresses.clone(),
            site: options.site.clone(),
            registry: options.registry.clone(),
            registry_host: options.registry_host.clone(),
            logs: options.logs.clone(),
            build_memory_bytes: options.build_memory_bytes,
            build_timeout_ms: options.build_timeout_ms,
            ending: watch::channel(false).0,
        });
        Ok(Self {
            shared,
            publisher,
            server,
            options,
            status: watch::channel(Status::default()).0,
        })
    }

    /// What is known while control runs: for use cases that tell states and for `/readyz`.
    pub fn live(&self) -> Arc<Live> {
        self.shared.live.clone()
    }

    /// Follows how control's parts are.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Works until `stop` turns true; then lets passes end for a moment and returns. Dropping it ends everything where
    /// it stands, which is as good: whatever was begun is found again.
    ///
    /// # Errors
    /// [`ferrovia_store::Error::Unavailable`] when the work of a control that died cannot be taken over.
    pub async fn run(
        self,
        tables: UnixListener,
        stop: watch::Receiver<bool>,
    ) -> Result<(), ferrovia_store::Error> {
        let Self {
            shared,
            publisher,
            server,
            options,
            status,
        } = self;
        let _closing = Closing(shared.clone());
        let owner = format!("control-{}", Uuid::now_v7());
        take_over(&shared, &owner).await?;
        let (observer, observations) = Observer::new(options.node_socket, options.peers);
        let runner = Runner {
            db: shared.db.clone(),
            owner: owner.clone(),
            lanes: vec![
                lane(work::CONTROL_CLASS, options.control_slots),
                lane(work::BUILD_CLASS, options.build_slots),
                lane(work::CLEANUP_CLASS, 1),
            ],
            lease: Duration::from_millis(LEASE_MS),
            handler: Arc::new(Dispatch(shared.clone())),
        };
        status.send_modify(|status| status.works = true);
        let mut stopping = stop.clone();
        let wake = shared.wake.clone();
        let work = Box::pin(runner.run(wake, stop));
        let services = Box::pin(async {
            tokio::join!(
                server.serve(tables),
                publisher.keep_acknowledgements(),
                observer.run(),
                follow_observations(&shared, observations.observations(), &status),
                follow_engine(&shared, &status),
                enqueue_rung(&shared),
                ring_lingering(&shared),
                take_over_late_claims(&shared, &owner),
            )
        });
        let stopped = async {
            // The sender is gone only with its owner, which is the same as a stop.
            let _ = stopping.wait_for(|stop| *stop).await;
            shared.ending.send_replace(true);
            shared.live.end();
            sleep(Duration::from_millis(STOP_MS)).await;
        };
        tokio::select! {
            () = work => {}
            _ = services => {}
            () = stopped => tracing::info!("passes were ended where they stood; the next start goes on from there"),
        }
        status.send_modify(|status| status.works = false);
        Ok(())
    }
}

fn lane(class: &str, slots: u32) -> Lane {
    Lane {
        class: class.to_owned(),
        slots,
    }
}

/// What a control before this one had claimed is due now, and so is everything that runs now and then.
async fn take_over<E, B>(shared: &Shared<E, B>, owner: &str) -> Result<(), ferrovia_store::Error> {
    let owner = owner.to_owned();
    shared
        .db
        .tx(move |tx| {
            Box::pin(async move {
                queue::take_over(tx, &owner).await?;
                queue::enqueue(
                    tx,
                    &Work::new(work::RESYNC, "engine", work::CONTROL_CLASS).priority(1),
                )
                .await?;
                for key in cleanup::KEYS {
                    let work = Work::new(work::CLEANUP, key, work::CLEANUP_CLASS);
                    queue::enqueue(tx, &work.after_ms(cleanup::FIRST_AFTER_MS).event()).await?;
                }
                Ok(())
            })
        })
        .await
}

async fn take_over_late_claims<E, B>(shared: &Shared<E, B>, owner: &str) {
    sleep(Duration::from_millis(LATE_CLAIMS_MS)).await;
    let owner = owner.to_owned();
    let taken = shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| Box::pin(async move { queue::take_over(tx, &owner).await }))
        .await;
    if let Err(error) = taken {
        // The leases run out by themselves.
        tracing::info!(
            error = &error as &dyn std::error::Error,
            "late claims were not taken over"
        );
    }
}

/// Takes in what nodes see.
async fn follow_observations<E, B>(
    shared: &Shared<E, B>,
    mut observations: watch::Receiver<Arc<ferrovia_table::observe::Observations>>,
    status: &watch::Sender<Status>,
) {
    while observations.changed().await.is_ok() {
        let now = observations.borrow_and_update().clone();
        status.send_if_modified(|status| {
            let before = std::mem::replace(&mut status.hears_node, now.connected);
            before != now.connected
        });
        shared.live.observe(now);
    }
}

/// Turns the engine's hints into rings. After every break the whole engine is compared: hints were lost.
async fn follow_engine<E: Engine, B>(shared: &Shared<E, B>, status: &watch::Sender<Status>) {
    let set = |hears| {
        status.send_if_modified(|status| {
            let before = std::mem::replace(&mut status.hears_engine, hears);
            before != hears
        })
    };
    loop {
        let limit = Duration::from_millis(ENGINE_CALL_MS);
        if let Ok(Ok(mut events)) = timeout(limit, shared.engine.events()).await {
            if set(true) {
                enqueue_resync(shared).await;
            }
            let quiet = Duration::from_millis(EVENTS_QUIET_MS);
            loop {
                match timeout(quiet, events.next()).await {
                    Ok(Some(Ok(hint))) => shared.live.ring(hint.instance_id, Ring::Engine),
                    Ok(Some(Err(error))) => {
                        tracing::debug!("the engine's events ended: {error}");
                        set(false);
                        break;
                    }
                    Ok(None) => {
                        set(false);
                        break;
                    }
                    // Asked for anew; nothing was missed as far as is known.
                    Err(_) => break,
                }
            }
        } else {
            set(false);
        }
        sleep(Duration::from_millis(EVENTS_AGAIN_MS)).await;
    }
}

async fn enqueue_resync<E, B>(shared: &Shared<E, B>) {
    let enqueued = shared
        .db
        .tx::<_, ferrovia_store::Error>(|tx| {
            Box::pin(async move {
                let resync = Work::new(work::RESYNC, "engine", work::CONTROL_CLASS).priority(1);
                queue::enqueue(tx, &resync).await
            })
        })
        .await;
    if let Err(error) = enqueued {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the comparison with the engine was not enqueued"
        );
    }
}

/// Makes the keys due that were rung while no pass was there.
async fn enqueue_rung<E, B>(shared: &Shared<E, B>) {
    loop {
        let mut due = shared.live.take_due().await;
        // In the order in which everybody locks them.
        due.sort_unstable_by_key(|&(id, _)| id);
        let works: Vec<Work> = due
            .iter()
            .map(|&(id, team)| {
                let work = Work::new(work::INSTANCE, id, work::CONTROL_CLASS).event();
                match team {
                    Some(team) => work.team(team),
                    None => work,
                }
            })
            .collect();
        let enqueued = shared
            .db
            .tx::<_, ferrovia_store::Error>(move |tx| {
                Box::pin(async move {
                    for work in &works {
                        queue::enqueue(tx, work).await?;
                    }
                    Ok(())
                })
            })
            .await;
        if let Err(error) = enqueued {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "events were not enqueued"
            );
            sleep(Duration::from_millis(EVENTS_AGAIN_MS)).await;
            for (id, _) in due {
                shared.live.ring(id, Ring::Live);
            }
        }
    }
}

/// Something was enqueued: passes that linger look whether it was for them.
async fn ring_lingering<E, B>(shared: &Shared<E, B>) {
    let mut wake = shared.wake.clone();
    loop {
        wake.wait(Duration::from_millis(queue::POLL_MS)).await;
        shared.live.ring_lingering();
    }
}
