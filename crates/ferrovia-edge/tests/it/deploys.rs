//! Deploy after deploy under load: not one request is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::app::App;
use crate::client::Client;
use crate::control::{draining, to};
use crate::edge::Edge;
use crate::tunnels::{Goodbye, WebSocket};

const DEPLOYS: u128 = 200;
const DRAIN_MS: i64 = 30;
const HOST: &str = "a.localhost";

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_deploys_lose_no_request() {
    let edge = Edge::start().await;
    let mut old = App::start("v1").await;
    edge.control.publish(vec![to(HOST, &[(1, old.address)])]).await;
    let tally = Arc::new(Tally::default());
    let mut visitors = JoinSet::new();
    for (method, path, bytes, fresh) in [
        (Method::GET, "/", 0, false),
        (Method::GET, "/", 0, true),
        (Method::GET, "/slow", 0, false),
        (Method::POST, "/echo", 20, false),
        (Method::POST, "/echo", 20, true),
        (Method::POST, "/echo", 300_000, false),
        (Method::PUT, "/echo", 5_000, false),
    ] {
        visitors.spawn(visit(
            edge.address,
            Arc::clone(&tally),
            method,
            path,
            bytes,
            fresh,
        ));
    }
    visitors.spawn(talk(edge.address, Arc::clone(&tally)));

    for n in 2..=DEPLOYS {
        let new = App::start(&format!("v{n}")).await;
        let until_ms = unix_ms() + DRAIN_MS;
        let version = edge
            .control
            .publish(vec![to(HOST, &[(n, new.address)]), draining(n - 1, until_ms)])
            .await;
        // Control stops a replica when nothing is open, or some seconds after the end of the drain.
        let patience = until_ms + 5_000;
        while edge.control.open(n - 1, version) != Some(0) {
            assert!(
                unix_ms() < patience,
                "v{} has something open: {:?}",
                n - 1,
                edge.control.open(n - 1, version)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::mem::replace(&mut old, new).kill().await;
        edge.control
            .write(vec![], &[format!("draining/{}", crate::control::replica(n - 1))]);
    }
    tally.stop.store(true, Ordering::Relaxed);
    visitors.join_all().await;

    let failures = std::mem::take(&mut *tally.failures.lock().unwrap());
    assert!(
        failures.is_empty(),
        "{} failures, the first: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let (done, goodbyes) = (
        tally.done.load(Ordering::Relaxed),
        tally.goodbyes.load(Ordering::Relaxed),
    );
    assert!(done > 1_000, "{done} requests only");
    assert!(goodbyes > 50, "{goodbyes} goodbyes only");
    let counts = edge.status().await.counts;
    assert_eq!(
        (counts.cut, counts.broken, counts.unreachable),
        (0, 0, 0),
        "{counts:?}"
    );
}
