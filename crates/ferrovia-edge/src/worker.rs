//! One worker: a thread with its own runtime, listeners, routes, pools and connections. Workers share nothing that
//! they write but counters.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrovia_core::id::ReplicaId;
use ferrovia_table::observe::ObserverHandle;
use http::HeaderValue;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{Config, LOOK_MS};
use crate::front;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::routes::Routes;
use crate::tunnel::Tunnel;
use crate::watch::{Kick, Watch, now_ms};

/// How often a draining worker looks whether it is done, in milliseconds.
const DRAIN_LOOK_MS: u64 = 20;
/// How long before the end of a drain its tunnels are told to close, in milliseconds.
const TUNNEL_FAREWELL_MS: u64 = 2_000;

/// What a worker is told to do.
#[derive(Debug)]
pub enum Order {
    /// Serve from these routes; told when done.
    Swap(Arc<Routes>, oneshot::Sender<()>),
    /// Take no more connections; `Connection: close` on every answer; told when the last one is over.
    Drain(DrainPlan, oneshot::Sender<()>),
}

/// How a drain goes.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan {
    /// After how long connections between two requests are closed, in milliseconds.
    pub idle_ms: u64,
    /// After how long everything is closed, in milliseconds.
    pub deadline_ms: u64,
}

/// What a worker needs to start.
#[derive(Debug)]
pub struct Setup {
    /// Its place among the workers.
    pub index: usize,
    /// What all share.
    pub config: Arc<Config>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Its listeners.
    pub listeners: Vec<std::net::TcpListener>,
    /// Its orders.
    pub orders: mpsc::Receiver<Order>,
    /// Wakes services that sleep.
    pub waker: ObserverHandle,
}

/// The state of a worker.
#[derive(Debug)]
pub struct Worker {
    /// What all share.
    pub config: Arc<Config>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Wakes services that sleep.
    pub waker: ObserverHandle,
    /// Requests that wait for a replica.
    pub held: Cell<usize>,
    index: usize,
    routes: RefCell<Arc<Routes>>,
    changes: watch::Sender<u64>,
    pools: RefCell<HashMap<u64, Rc<Pool>>>,
    connections: RefCell<HashMap<u64, Arc<Watch>>>,
    tunnels: RefCell<HashMap<u64, Rc<Tunnel>>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    stirred: Notify,
    random: RefCell<SmallRng>,
}

/// Runs a worker until its orders end.
///
/// # Errors
/// When the runtime cannot be made or a listener cannot be used.
pub fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, serve(setup))
}

async fn serve(setup: Setup) -> std::io::Result<()> {
    let Setup {
        index,
        config,
        metrics,
        listeners,
        mut orders,
        waker,
    } = setup;
    let worker = Rc::new(Worker {
        config,
        metrics,
        waker,
        held: Cell::new(0),
        index,
        routes: RefCell::default(),
        changes: watch::channel(0).0,
        pools: RefCell::default(),
        connections: RefCell::default(),
        tunnels: RefCell::default(),
        next: Cell::new(0),
        draining: Cell::new(false),
        stirred: Notify::new(),
        random: RefCell::new(rand::make_rng()),
    });
    let mut listeners = listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Nothing is accepted before there is a table: connections wait in the backlog.
    let mut accepting = Vec::new();
    let mut look_at = None;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = worker.stirred.notified() => {
                look_at.get_or_insert_with(|| worker.next_look());
                continue;
            }
            () = at(look_at) => {
                look_at = worker.look().then(|| worker.next_look());
                continue;
            }
        };
        match order {
            None => return Ok(()),
            Some(Order::Swap(routes, done)) => {
                worker.swap(routes);
                look_at = look_at.map(|at: Instant| at.min(worker.next_look()));
                for listener in listeners.drain(..) {
                    accepting.push(spawn_local(front::accept(Rc::clone(&worker), listener)));
                }
                // Whoever does not wait for it any more does not need it.
                let _ = done.send(());
            }
            Some(Order::Drain(plan, done)) => {
                listeners.clear();
                for task in accepting.drain(..) {
                    task.abort();
                }
                worker.draining.set(true);
                let worker = Rc::clone(&worker);
                spawn_local(async move {
                    worker.drain(plan).await;
                    let _ = done.send(());
                });
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// The routes at this moment. Not to be held over a wait: whoever waits for anything asks again afterwards.
    pub fn routes(&self) -> Ref<'_, Arc<Routes>> {
        self.routes.borrow()
    }

    /// Tells of every swap.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether this process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The pool with this number; `None` when a swap has closed it.
    pub fn pool(&self, number: u64) -> Option<Rc<Pool>> {
        if let Some(pool) = self.pools.borrow().get(&number) {
            return Some(Rc::clone(pool));
        }
        let replica = Arc::clone(self.routes.borrow().pools.get(&number)?);
        let pool = Pool::new(replica, self.index);
        self.pools.borrow_mut().insert(number, Rc::clone(&pool));
        Some(pool)
    }

    /// Whether a pool with this number is in use: its run of a replica is in a route.
    pub fn has_pool(&self, number: u64) -> bool {
        self.routes.borrow().pools.contains_key(&number)
    }

    /// What the worker knows of a pool without making one.
    pub fn with_pool<T>(&self, number: u64, look: impl FnOnce(Option<&Pool>) -> T) -> T {
        look(self.pools.borrow().get(&number).map(|pool| &**pool))
    }

    /// A random number below `below`, which is not 0.
    pub fn random(&self, below: u32) -> u32 {
        self.random.borrow_mut().random_range(0..below.max(1))
    }

    /// A new request id: a UUID of version 7.
    pub fn new_request_id(&self, now_ms: u64) -> HeaderValue {
        let mut bytes = [0; 10];
        self.random.borrow_mut().fill_bytes(&mut bytes);
        let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &bytes).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut text))
            .unwrap_or(HeaderValue::from_static("unknown"))
    }

    /// Whether what this address says about others is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.config
            .trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Registers a client's connection; whoever has the guard has the connection.
    pub fn register(self: &Rc<Self>, watch: &Arc<Watch>, peer: SocketAddr) -> Registration {
        let number = self.number();
        let mut connections = self.connections.borrow_mut();
        connections.insert(number, Arc::clone(watch));
        if connections.len() == 1 {
            self.stirred.notify_one();
        }
        self.metrics.accepted.add();
        Registration {
            worker: Rc::clone(self),
            number,
            client: peer.ip().to_canonical(),
        }
    }

    /// Whether there are no more connections than there may be; if there are, the one that is unused for longest is
    /// told to end.
    pub fn has_room(&self) -> bool {
        let connections = self.connections.borrow();
        if connections.len() + self.tunnels.borrow().len() <= self.config.max_connections {
            return true;
        }
        let longest = connections
            .iter()
            .filter_map(|(&number, watch)| Some((watch.idle_until()?, number, watch)))
            .min_by_key(|(at, number, _)| (*at, *number));
        if let Some((_, _, watch)) = longest {
            self.metrics.ended.add();
            watch.set_kick(Kick::Finish);
        }
        false
    }

    /// Registers a tunnel until it is taken out by its number.
    pub fn add_tunnel(&self, tunnel: &Rc<Tunnel>) -> u64 {
        let number = self.number();
        self.tunnels.borrow_mut().insert(number, Rc::clone(tunnel));
        self.metrics.tunnels.add();
        self.stirred.notify_one();
        number
    }

    /// Takes a tunnel out.
    pub fn remove_tunnel(&self, number: u64) {
        self.tunnels.borrow_mut().remove(&number);
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Serves from new routes: pools of runs that are gone close, whoever waits looks again.
    fn swap(&self, routes: Arc<Routes>) {
        self.pools.borrow_mut().retain(|number, pool| {
            let stays = routes.pools.contains_key(number);
            if !stays {
                pool.close();
            }
            stays
        });
        let before = self.routes.replace(routes);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        self.end_tunnels(&before);
    }

    /// Looks at all deadlines. Whether there is anything to look at again.
    fn look(&self) -> bool {
        let now = now_ms();
        let connections = self.connections.borrow();
        for watch in connections.values() {
            watch.look(now);
        }
        let mut busy = !connections.is_empty();
        for pool in self.pools.borrow().values() {
            busy |= pool.look(now);
        }
        let tunnels = self.tunnels.borrow();
        for tunnel in tunnels.values() {
            tunnel.look(now);
        }
        busy |= !tunnels.is_empty();
        drop(tunnels);
        self.end_tunnels(&self.routes());
        busy
    }

    /// When to look again: soon, or earlier when a drain ends.
    fn next_look(&self) -> Instant {
        let now = unix_ms();
        let routes = self.routes();
        let ends = routes
            .draining
            .values()
            .filter_map(|&until_ms| u64::try_from(until_ms).ok()?.checked_sub(now));
        let next = ends.filter(|&ms| ms > 0).min().unwrap_or(LOOK_MS).min(LOOK_MS);
        Instant::now() + Duration::from_millis(next)
    }

    /// Ends the tunnels to replicas whose drain is over: its time has come, or it was there `before` and is gone.
    fn end_tunnels(&self, before: &Routes) {
        let tunnels = self.tunnels.borrow();
        if tunnels.is_empty() || before.draining.is_empty() && self.routes.borrow().draining.is_empty() {
            return;
        }
        let routes = self.routes();
        let now = unix_ms();
        let is_over = |replica: ReplicaId| match routes.draining.get(&replica) {
            Some(&until_ms) => u64::try_from(until_ms).unwrap_or(0) <= now,
            None => {
                before.draining.contains_key(&replica)
                    && !routes.pools.values().any(|other| other.replica_id == replica)
            }
        };
        for tunnel in tunnels.values().filter(|tunnel| is_over(tunnel.replica_id)) {
            tunnel.end();
        }
    }

    /// Ends every connection, kindly first.
    async fn drain(&self, plan: DrainPlan) {
        let start = Instant::now();
        let idle_at = start + Duration::from_millis(plan.idle_ms);
        let tunnels_at = start + Duration::from_millis(plan.deadline_ms.saturating_sub(TUNNEL_FAREWELL_MS));
        let end = start + Duration::from_millis(plan.deadline_ms);
        loop {
            let now = Instant::now();
            if self.connections.borrow().is_empty() && self.tunnels.borrow().is_empty() {
                return;
            }
            if now >= tunnels_at {
                for tunnel in self.tunnels.borrow().values() {
                    tunnel.end();
                }
            }
            if now >= end {
                for watch in self.connections.borrow().values() {
                    watch.set_kick(Kick::Abort);
                }
            } else if now >= idle_at {
                // Those in the middle of a request end after it.
                for watch in self.connections.borrow().values() {
                    watch.set_kick(Kick::Finish);
                }
            }
            if now >= end + Duration::from_millis(TUNNEL_FAREWELL_MS) {
                return;
            }
            sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
    }
}

/// A client's connection while it is there.
#[derive(Debug)]
pub struct Registration {
    worker: Rc<Worker>,
    number: u64,
    /// The other end.
    pub client: IpAddr,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.number);
        self.worker.metrics.closed.add();
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
