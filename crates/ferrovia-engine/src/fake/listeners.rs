//! Keeps an HTTP server on the address of every fake replica that runs, and on no other.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::behaviour::Listen;
use super::log::Logs;
use super::memory::Memory;
use super::record::Replica;
use super::replica::Server;

/// How long a taken address is tried again, in milliseconds: the one before may be on its way out.
const BIND_TRIES_MS: u64 = 1_000;
/// Time between two tries, in milliseconds.
const BIND_PAUSE_MS: u64 = 20;
/// Exit code of a replica whose address is taken.
const ADDRESS_TAKEN: i32 = 98;

/// The servers of running replicas.
pub(super) struct Listeners {
    memory: Memory,
    logs: Arc<Logs>,
    /// By handle and start.
    tasks: Mutex<HashMap<(String, i64), AbortOnDropHandle<()>>>,
}

impl Listeners {
    pub(super) fn new(memory: Memory, logs: Arc<Logs>) -> Self {
        Self {
            memory,
            logs,
            tasks: Mutex::default(),
        }
    }

    /// Ends all of them.
    pub(super) async fn end(&self) {
        for (_, task) in self.tasks.lock().await.drain() {
            task.abort();
            // It was aborted: that is how it ends.
            let _ = task.await;
        }
    }

    /// Starts what is missing and ends what should not be there; what was ended has let go of its address.
    pub(super) async fn sync(&self) {
        let mut tasks = self.tasks.lock().await;
        let mut wanted: HashMap<(String, i64), Replica> = HashMap::new();
        for replica in self.memory.runs() {
            wanted.insert(
                (replica.handle.clone(), replica.started_at_ms.unwrap_or(0)),
                replica,
            );
        }
        let ended: Vec<(String, i64)> = tasks
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        for key in ended {
            if let Some(task) = tasks.remove(&key) {
                task.abort();
                // It was aborted: that is how it ends.
                let _ = task.await;
                self.logs.write(&key.0, "ended");
            }
        }
        for (key, replica) in wanted {
            tasks.entry(key).or_insert_with(|| {
                let server = run(replica, self.memory.clone(), self.logs.clone());
                AbortOnDropHandle::new(tokio::spawn(server))
            });
        }
    }
}

/// One run of a replica, from its start to its abortion.
async fn run(replica: Replica, memory: Memory, logs: Arc<Logs>) {
    logs.write(&replica.handle, &format!("{} starts", replica.name));
    tokio::time::sleep(Duration::from_millis(replica.behaviour.start_delay_ms)).await;
    let (Listen::Port(port), Some(address)) = (replica.behaviour.listen, replica.slot.address) else {
        let words = if let Listen::Loopback(port) = replica.behaviour.listen {
            format!("listens on 127.0.0.1:{port}")
        } else {
            "listens nowhere".to_owned()
        };
        logs.write(&replica.handle, &words);
        return std::future::pending().await;
    };
    let address = SocketAddr::from((address, port));
    let listener = match bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            logs.write(&replica.handle, &format!("cannot listen on {address}: {error}"));
            return memory.crash(&replica.handle, ADDRESS_TAKEN, false);
        }
    };
    logs.write(&replica.handle, &format!("listens on {address}"));
    let server = Arc::new(Server::new(replica, memory, logs));
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let server = server.clone();
                // A connection that cannot say so is as good without it.
                let _ = stream.set_nodelay(true);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let server = server.clone();
                        async move { server.answer(request).await }
                    });
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // What a client does to its connection is its own affair.
                    let _ = connection.with_upgrades().await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let begun = tokio::time::Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begun.elapsed() < Duration::from_millis(BIND_TRIES_MS) =>
            {
                tokio::time::sleep(Duration::from_millis(BIND_PAUSE_MS)).await;
            }
            other => return other,
        }
    }
}
