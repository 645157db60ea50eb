//! Connections to one run of one replica, kept by one worker.
//!
//! The keep-alive race: a server may close a connection at the moment at which a request is sent over it. It is met
//! from four sides: connections are closed here before servers do it; a request that cannot be sent again takes one
//! only when it was in use a moment ago; at a server that was seen to close such a one, it always takes a new one; and
//! what can be sent again, is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::body::Upload;
use crate::config::{
    AVOID_MS, CONNECT_TIMEOUT_MS, FRESH_ENOUGH_MS, MAX_BUFFER_BYTES, MAX_HEAD_BYTES, MAX_POOLED, POOL_IDLE_MS,
};
use crate::metrics::Metrics;
use crate::replica_io::ReplicaIo;
use crate::routes::Replica;
use crate::watch::now_ms;

/// The connections of one worker to one run of one replica.
#[derive(Debug)]
pub struct Pool {
    replica: Arc<Replica>,
    worker: usize,
    idle: RefCell<Vec<Connection>>,
    open: Cell<u32>,
    avoid_until: Cell<u64>,
    distrusted: Cell<bool>,
    closed: Cell<bool>,
}

/// A connection to a replica.
#[derive(Debug)]
pub struct Connection {
    /// Sends requests over it.
    pub sender: SendRequest<Upload>,
    /// Since when it is unused; 0 while it is used.
    unused_since: Rc<Cell<u64>>,
    /// Whether a write has failed.
    broken: Arc<AtomicBool>,
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system says no.
    #[error("the replica took no connection")]
    Refused(#[source] std::io::Error),
    /// Nothing came back in time.
    #[error("the replica took no connection within {CONNECT_TIMEOUT_MS} ms")]
    Late,
    /// The HTTP client could not be set up.
    #[error("no HTTP connection was made")]
    Handshake(#[source] hyper::Error),
}

impl Pool {
    /// An empty pool.
    pub fn new(replica: Arc<Replica>, worker: usize) -> Rc<Self> {
        Rc::new(Self {
            replica,
            worker,
            idle: RefCell::default(),
            open: Cell::new(0),
            avoid_until: Cell::new(0),
            distrusted: Cell::new(false),
            closed: Cell::new(false),
        })
    }

    /// The replica.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Requests of this worker that are open at the replica.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// Whether the replica refused a connection a moment ago.
    pub fn is_avoided(&self) -> bool {
        let until = self.avoid_until.get();
        until != 0 && until > now_ms()
    }

    /// Counts a request in until the guard is dropped.
    pub fn enter(self: &Rc<Self>) -> OpenGuard {
        self.open.set(self.open.get() + 1);
        self.replica.open.enter(self.worker);
        OpenGuard(Rc::clone(self))
    }

    /// From now on, what cannot be sent again gets a new connection.
    pub fn distrust(&self) {
        self.distrusted.set(true);
    }

    /// A connection that was used before; `replayable`: the request may be sent again when it turns out to be dead.
    pub async fn take(&self, replayable: bool) -> Option<Connection> {
        if !replayable && self.distrusted.get() {
            return None;
        }
        let limit = if replayable { POOL_IDLE_MS } else { FRESH_ENOUGH_MS };
        loop {
            let mut connection = {
                let mut idle = self.idle.borrow_mut();
                // The last one is the one that was used last: when it is too old, all are.
                if idle.last()?.unused_since.get() + limit <= now_ms() {
                    return None;
                }
                idle.pop()?
            };
            connection.unused_since.set(0);
            // The last answer is through: it is ready as soon as its task has run, or it is closed.
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back whose last exchange is complete.
    pub fn put(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let is_broken = connection.broken.load(Ordering::Relaxed);
        if is_broken || self.closed.get() || connection.sender.is_closed() || idle.len() >= MAX_POOLED {
            return;
        }
        connection.unused_since.set(now_ms());
        idle.push(connection);
    }

    /// Makes a new connection.
    ///
    /// # Errors
    /// [`ConnectError`]; the replica is passed over for a moment.
    pub async fn connect(self: &Rc<Self>, metrics: &Metrics) -> Result<Connection, ConnectError> {
        let result = self.try_connect().await;
        match &result {
            Ok(_) => {
                self.avoid_until.set(0);
                metrics.connects.add();
            }
            Err(_) => {
                self.avoid_until.set(now_ms() + AVOID_MS);
                metrics.connect_failures.add();
            }
        }
        result
    }

    async fn try_connect(self: &Rc<Self>) -> Result<Connection, ConnectError> {
        let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
        let stream = timeout(limit, TcpStream::connect(self.replica.address))
            .await
            .map_err(|_| ConnectError::Late)?
            .map_err(ConnectError::Refused)?;
        stream.set_nodelay(true).map_err(ConnectError::Refused)?;
        let (io, broken) = ReplicaIo::new(stream);
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_header_size(MAX_HEAD_BYTES * 2)
            .handshake::<_, Upload>(TokioIo::new(io))
            .await
            .map_err(ConnectError::Handshake)?;
        let unused_since = Rc::new(Cell::new(0));
        let (pool, since) = (Rc::downgrade(self), Rc::clone(&unused_since));
        spawn_local(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = driver.with_upgrades().await;
            let since = since.get();
            if since != 0
                && now_ms() < since + FRESH_ENOUGH_MS
                && let Some(pool) = pool.upgrade()
            {
                pool.distrust();
            }
        });
        Ok(Connection {
            sender,
            unused_since,
            broken,
        })
    }

    /// Closes what was unused for too long. Whether anything is left.
    pub fn look(&self, now: u64) -> bool {
        let mut idle = self.idle.borrow_mut();
        let fresh = idle.partition_point(|connection| connection.unused_since.get() + POOL_IDLE_MS <= now);
        for connection in idle.drain(..fresh) {
            connection.unused_since.set(0);
        }
        !idle.is_empty()
    }

    /// Closes what is unused now, and later what becomes unused.
    pub fn close(&self) {
        self.closed.set(true);
        for connection in self.idle.borrow_mut().drain(..) {
            connection.unused_since.set(0);
        }
    }
}

/// A request that is open at a replica.
#[derive(Debug)]
pub struct OpenGuard(Rc<Pool>);

impl OpenGuard {
    /// Its pool.
    pub const fn pool(&self) -> &Rc<Pool> {
        &self.0
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.replica.open.leave(self.0.worker);
    }
}
