//! Visitors of every kind, who notice when one request of theirs is not answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::eventually;
use crate::tunnels::{Goodbye, WebSocket};

/// The host that all of them visit.
pub const HOST: &str = "a.localhost";

/// Visitors at work.
pub struct Load {
    tally: Arc<Tally>,
    visitors: JoinSet<()>,
}

impl Load {
    /// Keep-alive and fresh connections, quick and slow answers, posts, uploads, and a WebSocket that talks.
    pub fn start(address: SocketAddr) -> Self {
        let tally = Arc::new(Tally::default());
        let mut visitors = JoinSet::new();
        for (method, path, bytes, fresh) in [
            (Method::GET, "/", 0, false),
            (Method::GET, "/", 0, true),
            (Method::GET, "/slow", 0, false),
            (Method::GET, "/slow", 0, true),
            (Method::POST, "/echo", 20, false),
            (Method::POST, "/echo", 20, true),
            (Method::POST, "/echo", 300_000, false),
            (Method::PUT, "/echo", 5_000, false),
        ] {
            visitors.spawn(visit(address, Arc::clone(&tally), method, path, bytes, fresh));
        }
        visitors.spawn(talk(address, Arc::clone(&tally)));
        Self { tally, visitors }
    }

    /// Waits until so many more requests are done.
    pub async fn goes_on(&self, requests: usize) {
        let before = self.tally.done.load(Ordering::Relaxed);
        eventually("requests go on", async || {
            self.tally.done.load(Ordering::Relaxed) >= before + requests
        })
        .await;
    }

    /// Ends it; fails unless every request was answered. How many there were, and how many WebSockets were told to go.
    pub async fn stop(self) -> (usize, usize) {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.visitors.join_all().await;
        let failures = self.tally.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} failures, the first: {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        (
            self.tally.done.load(Ordering::Relaxed),
            self.tally.goodbyes.load(Ordering::Relaxed),
        )
    }
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    done: AtomicUsize,
    goodbyes: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, what: &str, result: Result<(), String>) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            self.failures.lock().unwrap().push(format!("{what}: {error}"));
        }
    }
}

pub fn unix_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", HOST)
        .body(Full::new(body))
        .unwrap()
}

/// Sends requests one after the other; `fresh`: each over a connection of its own.
async fn visit(
    address: SocketAddr,
    tally: Arc<Tally>,
    method: Method,
    path: &'static str,
    bytes: usize,
    fresh: bool,
) {
    let mut client = Client::new(address);
    let body = Bytes::from(vec![b'x'; bytes]);
    while tally.goes_on() {
        let result = client
            .send(request(method.clone(), path, body.clone()))
            .await
            .and_then(|response| {
                let complete = path != "/echo" || *response.body() == body;
                if response.status() == 200 && complete {
                    Ok(())
                } else {
                    Err(format!("{:?}", response.status()))
                }
            });
        tally.note(&format!("{method} {path} fresh={fresh}"), result);
        if fresh {
            client.close();
        }
        tokio::task::yield_now().await;
    }
}

/// Keeps a WebSocket open and talking; one that is closed in good order is opened again.
async fn talk(address: SocketAddr, tally: Arc<Tally>) {
    while tally.goes_on() {
        let mut socket = WebSocket::open(address, HOST).await;
        while tally.goes_on() {
            match socket.exchange(b"hello").await {
                Ok(()) => tally.note("websocket", Ok(())),
                Err(Goodbye::GoingAway) => {
                    tally.goodbyes.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(Goodbye::Lost(error)) => {
                    tally.note("websocket", Err(error));
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
