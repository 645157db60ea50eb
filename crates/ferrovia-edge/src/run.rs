//! The edge process: starts the workers, follows the table and the observations, reports, answers, ends.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::table::{Audience, EdgeRow};
use ferrovia_table::observe::{Observer, ObserverHandle};
use ferrovia_table::{Peers, Reader, ReaderHandle, ReaderOptions, listen};
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::access::AccessSink;
use crate::command::{self, Asked, Status};
use crate::config::{Config, PATIENCE};
use crate::listeners;
use crate::metrics::{Counts, Metrics};
use crate::publish::Publisher;
use crate::watch::Patience;
use crate::worker::{self, DrainPlan, Order, Setup};

/// Orders that wait for a worker.
const ORDER_QUEUE: usize = 16;
/// How often counts of open requests are reported when nothing presses, in milliseconds.
const REPORT_MS: u64 = 1_000;
/// How a drain goes that nobody described (SIGTERM): enough for the requests in hand.
const DRAIN: DrainPlan = DrainPlan {
    idle_ms: 2_000,
    deadline_ms: 30_000,
};
/// How long the last words to control may take, in milliseconds.
const GOODBYE_MS: u64 = 2_000;
/// How long an edge on its way out waits to be connected under its other name, in milliseconds.
const REJOIN_MS: u64 = 2_000;
/// Open files that are not for connections.
const RESERVED_FILES: u64 = 512;
/// Threads for the table's files, beside those for questions: the one must never wait for the other.
const FILE_THREADS: usize = 2;
/// Stack of a worker, in bytes.
const STACK_BYTES: usize = 1 << 20;

/// How an edge is set up.
#[derive(Debug)]
pub struct Options {
    /// Its name as a reader of tables: `edge`.
    pub name: String,
    /// What its build is called, for [`Status::build`].
    pub build: String,
    /// Where `tables.sock` and `node.sock` are.
    pub run_dir: PathBuf,
    /// Where it answers questions: `edge.sock`, in a directory that its user may write.
    pub socket: PathBuf,
    /// A lock that says that it lives; closed when it drains and has let go of the table's files, so that its
    /// successor may start while it answers what it has in hand.
    pub lock: Option<OwnedFd>,
    /// Directory of its last good table, its alone.
    pub table_dir: PathBuf,
    /// Listeners for HTTP; each worker takes its share of them.
    pub listeners: Vec<TcpListener>,
    /// Threads that serve; 0: one per core.
    pub workers: usize,
    /// Connections of clients at most, over all threads; 0: as many as open files allow.
    pub max_connections: usize,
    /// Who the other processes of the platform run as.
    pub peers: Peers,
    /// Networks of proxies in front, whose forwarded fields are believed.
    pub trusted: Vec<IpNet>,
    /// How long clients and applications may take.
    pub patience: Patience,
    /// Where records of requests go.
    pub access: Option<AccessSink>,
}

impl Options {
    /// The usual set-up.
    pub fn new(run_dir: PathBuf, table_dir: PathBuf, listeners: Vec<TcpListener>, peers: Peers) -> Self {
        Self {
            name: "edge".to_owned(),
            build: String::new(),
            socket: run_dir.join("edge.sock"),
            lock: None,
            run_dir,
            table_dir,
            listeners,
            workers: 0,
            max_connections: 0,
            peers,
            trusted: Vec::new(),
            patience: PATIENCE,
            access: None,
        }
    }
}

/// Why an edge could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No listener was given.
    #[error("no listener was given")]
    NoListener,
    /// The system refuses something.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The last good table cannot be read.
    #[error("the last good table cannot be read")]
    Table(#[source] ferrovia_table::Error),
    /// A worker ended by itself.
    #[error("a worker ended")]
    Worker,
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> ferrovia_core::error::Class {
        use ferrovia_core::error::Class;
        match self {
            Self::NoListener => Class::Invalid,
            Self::System { .. } => Class::Unavailable,
            Self::Table(error) => error.class(),
            Self::Worker => Class::Bug,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// Runs an edge until it is told to end (SIGTERM, or by [`command::drain`]) and has. A second SIGTERM ends it at once.
///
/// # Errors
/// [`Error`]: it could not start, or a worker died.
pub fn run(options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(command::MAX_CLIENTS + FILE_THREADS)
        .build()
        .map_err(system("the runtime was not made"))?;
    runtime.block_on(async { Edge::start(options)?.run().await })
}

/// What follows the table: the task, its handle, and what to go on with under another name.
struct Following {
    handle: ReaderHandle,
    task: JoinHandle<(ferrovia_core::table::Table<EdgeRow>, Publisher)>,
}

struct Edge {
    options: ReaderOptions,
    build: String,
    lock: Option<OwnedFd>,
    publisher: Publisher,
    following: Following,
    node: ObserverHandle,
    metrics: Vec<Arc<Metrics>>,
    orders: Vec<mpsc::Sender<Order>>,
    asked: mpsc::Receiver<Asked>,
    report_now: Arc<Notify>,
    worker_ended: mpsc::Receiver<()>,
    draining: bool,
}

impl Edge {
    fn start(options: Options) -> Result<Self, Error> {
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let held = Arc::new(options.listeners);
        let shares = share_out(&held, workers)?;
        let config = Arc::new(Config {
            scheme: "http",
            trusted: options.trusted,
            max_connections: max_connections(options.max_connections, workers),
            patience: options.patience,
            access: options.access,
        });
        let (observer, node) = Observer::new(options.run_dir.join("node.sock"), options.peers);
        tokio::spawn(observer.run());

        let (ended, worker_ended) = mpsc::channel(1);
        let (mut orders, mut metrics) = (Vec::new(), Vec::new());
        for (index, listeners) in shares.into_iter().enumerate() {
            let (order, receiver) = mpsc::channel(ORDER_QUEUE);
            let counters = Arc::new(Metrics::default());
            orders.push(order);
            metrics.push(Arc::clone(&counters));
            let setup = Setup {
                index,
                config: Arc::clone(&config),
                metrics: counters,
                listeners,
                orders: receiver,
                waker: node.clone(),
            };
            spawn_worker(setup, ended.clone())?;
        }

        let report_now = Arc::new(Notify::new());
        let publisher = Publisher::new(orders.clone(), Arc::clone(&report_now));
        let reader_options = ReaderOptions {
            directory: Some(options.table_dir),
            socket: options.run_dir.join("tables.sock"),
            name: options.name,
            audience: Audience::Edge,
            peers: options.peers,
        };
        let (reader, handle) = Reader::<EdgeRow>::open(reader_options.clone()).map_err(Error::Table)?;
        let following = Following {
            handle,
            task: tokio::spawn(reader.run(publisher.clone())),
        };

        let socket = listen(&options.socket).map_err(system("`edge.sock` was not made"))?;
        let (ask, asked) = mpsc::channel(ORDER_QUEUE);
        tokio::spawn(command::serve(socket, options.peers, held, ask));
        Ok(Self {
            options: reader_options,
            build: options.build,
            lock: options.lock,
            publisher,
            following,
            node,
            metrics,
            orders,
            asked,
            report_now,
            worker_ended,
            draining: false,
        })
    }

    async fn run(mut self) -> Result<(), Error> {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(system("SIGTERM cannot be waited for"))?;
        let mut seen = self.node.observations();
        let mut report = interval(Duration::from_millis(REPORT_MS));
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_report = None;
        let (mut drained, mut draining) = (None::<oneshot::Receiver<()>>, false);
        loop {
            tokio::select! {
                _ = self.worker_ended.recv() => return Err(Error::Worker),
                Some(asked) = self.asked.recv() => match asked {
                    Asked::Status(tell) => {
                        let status = self.status().await;
                        // Whoever asked may be gone.
                        let _ = tell.send(status);
                    }
                    Asked::Drain(plan, tell) => {
                        if !draining {
                            draining = true;
                            drained = Some(self.drain(plan).await);
                        }
                        let _ = tell.send(());
                    }
                },
                _ = terminate.recv() => {
                    if draining {
                        break;
                    }
                    draining = true;
                    drained = Some(self.drain(DRAIN).await);
                }
                _ = wait(&mut drained) => break,
                Ok(()) = seen.changed() => {
                    let now = seen.borrow_and_update().clone();
                    if let Err(error) = self.publisher.set_seen(now).await {
                        tracing::error!("what `node` sees was not taken into use: {error}");
                    }
                }
                () = self.report_now.notified() => self.report(&mut last_report, true).await,
                _ = report.tick() => self.report(&mut last_report, false).await,
            }
        }
        self.report(&mut last_report, true).await;
        self.following.handle.stop(true);
        // Control also sees that the connection is gone, only later.
        let _ = timeout(Duration::from_millis(GOODBYE_MS), self.following.task).await;
        Ok(())
    }

    async fn report(&self, last: &mut Option<ferrovia_table::InFlightReport>, due: bool) {
        let report = self.publisher.report().await;
        if due || last.as_ref() != Some(&report) {
            self.following.handle.report(report.clone());
            *last = Some(report);
        }
    }

    /// Lets go of the table's files, and tells the workers to end.
    async fn drain(&mut self, plan: DrainPlan) -> oneshot::Receiver<()> {
        tracing::info!("the edge drains");
        self.draining = true;
        self.follow_aside().await;
        let mut done = Vec::new();
        for worker in &self.orders {
            let (tell, told) = oneshot::channel();
            if worker.send(Order::Drain(plan, tell)).await.is_ok() {
                done.push(told);
            }
        }
        self.lock = None;
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            for worker in done {
                // A worker that ended has nothing left.
                let _ = worker.await;
            }
            let _ = tell.send(());
        });
        told
    }

    /// Goes on following the tables under another name and without their files, which the next edge needs. Control
    /// knows that name before the next edge can take the old one: at no time does it think that nothing is open here.
    async fn follow_aside(&mut self) {
        let was_connected = self.following.handle.is_connected();
        let options = ReaderOptions {
            name: format!("{}-draining-{}", self.options.name, std::process::id()),
            ..self.options.clone()
        };
        self.following.handle.stop(false);
        let task = std::mem::replace(&mut self.following.task, tokio::spawn(std::future::pending()));
        let Ok((table, publisher)) = task.await else {
            return;
        };
        let (reader, handle) = Reader::detached(options, table);
        handle.report(publisher.report().await);
        self.following.task.abort();
        let mut connected = handle.connected();
        self.following = Following {
            handle,
            task: tokio::spawn(reader.run(publisher)),
        };
        if was_connected {
            let limit = Duration::from_millis(REJOIN_MS);
            // Without control nobody stops a replica either.
            let _ = timeout(limit, connected.wait_for(|connected| *connected)).await;
        }
    }

    async fn status(&self) -> Status {
        let mut counts = Counts::default();
        for metrics in &self.metrics {
            counts.add(metrics);
        }
        let report = self.publisher.report().await;
        Status {
            pid: std::process::id(),
            build: self.build.clone(),
            version: report.version,
            hosts: self.publisher.hosts().await,
            control: self.following.handle.is_connected(),
            node: self.node.observations().borrow().connected,
            workers: self.orders.len(),
            draining: self.draining,
            connections: counts.accepted.saturating_sub(counts.closed),
            in_flight: report.open,
            counts,
        }
    }
}

/// Waits for a drain's end, if there is a drain.
async fn wait(drained: &mut Option<oneshot::Receiver<()>>) {
    match drained {
        Some(drained) => {
            // An error means that nobody drains any more.
            let _ = drained.await;
        }
        None => std::future::pending().await,
    }
}

/// Listeners for each worker: each listener goes to one; when there are fewer than workers, some are served by two.
fn share_out(listeners: &[TcpListener], workers: usize) -> Result<Vec<Vec<TcpListener>>, Error> {
    if listeners.is_empty() {
        return Err(Error::NoListener);
    }
    let copies = listeners::duplicates(listeners).map_err(system("the listeners were not duplicated"))?;
    let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (n, listener) in copies.into_iter().enumerate() {
        shares[n % workers].push(listener);
    }
    for n in listeners.len()..workers {
        let shared = &listeners[n % listeners.len()];
        shares[n].push(
            shared
                .try_clone()
                .map_err(system("a listener was not duplicated"))?,
        );
    }
    Ok(shares)
}

/// Connections of clients that a worker may have: each needs one open file, and one more for a replica.
fn max_connections(wanted: usize, workers: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let possible = limit.saturating_sub(RESERVED_FILES) / 2;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).min(1 << 20);
    let connections = if wanted == 0 {
        possible
    } else {
        wanted.min(possible)
    };
    (connections / workers.max(1)).max(1)
}

fn spawn_worker(setup: Setup, ended: mpsc::Sender<()>) -> Result<(), Error> {
    std::thread::Builder::new()
        .name(format!("edge-{}", setup.index))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Told by its drop too, when the thread panics.
            let ended = ended;
            if let Err(error) = worker::run(setup) {
                tracing::error!("a worker failed: {error}");
            }
            // Nobody listens when the edge itself has ended.
            let _ = ended.blocking_send(());
        })
        .map_err(system("a worker's thread was not made"))?;
    Ok(())
}
