//! Constant load of every kind, counting what was lost and why.
//!
//! A request is lost when its connection cannot be made, breaks, is truncated, or answers anything but what the target
//! answers. A server that says `Connection: close` with a whole answer lost nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::http::Connection;

/// Answers below which a load proves nothing.
const LEAST_ANSWERED: u64 = 1_000;
/// Failures that are kept with their words.
const KEPT_FAILURES: usize = 50;
/// Pause between two requests of one client, in milliseconds.
const PAUSE_MS: u64 = 5;
/// Size of an upload, in bytes.
const UPLOAD_BYTES: usize = 2 * 1024 * 1024;
/// How long a slow response takes, in milliseconds.
const SLOW_MS: u64 = 1500;

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whole, right answers.
    pub answered: AtomicU64,
    /// WebSocket messages that came back.
    pub messages: AtomicU64,
    /// WebSockets that ended with the close frame that a drain sends.
    pub closed_by_drain: AtomicU64,
    failures: Mutex<Vec<Lost>>,
    failed: AtomicU64,
}

/// One request that was lost.
#[derive(Debug)]
struct Lost {
    why: String,
    /// When its connection was begun.
    opened: Instant,
    noticed: Instant,
}

impl Seen {
    fn failed(&self, kind: &str, began: Instant, opened: Instant, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < KEPT_FAILURES {
            failures.push(Lost {
                why: format!("{:.3} s {kind}: {why}", began.elapsed().as_secs_f64()),
                opened,
                noticed: Instant::now(),
            });
        }
    }

    /// How many requests were lost, and the first of them in words.
    pub fn failures(&self) -> (u64, Vec<String>) {
        (self.failed.load(Ordering::Relaxed), self.failures_beside(&[]))
    }

    /// The first requests that were lost, but for those whose connection was open at one of these moments.
    pub fn failures_beside(&self, moments: &[Instant]) -> Vec<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .iter()
            .filter(|lost| {
                moments
                    .iter()
                    .all(|moment| *moment < lost.opened || lost.noticed < *moment)
            })
            .map(|lost| lost.why.clone())
            .collect()
    }
}

/// A running load.
pub struct Load {
    /// What it sees.
    pub seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    KeepAlive,
    Fresh,
    Slow,
    Upload,
    Post,
}

/// What the clients do that send one request after the other.
const KINDS: [Kind; 9] = [
    Kind::KeepAlive,
    Kind::KeepAlive,
    Kind::Fresh,
    Kind::Fresh,
    Kind::Slow,
    Kind::Slow,
    Kind::Upload,
    Kind::Post,
    Kind::Post,
];

impl Load {
    /// How many clients there are, each with one connection: the kinds below, and the WebSocket.
    pub const CLIENTS: usize = KINDS.len() + 1;

    /// Starts every kind of client against one host of the edge.
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut clients: Vec<_> = KINDS
            .into_iter()
            .map(|kind| {
                tokio::spawn(client(
                    kind,
                    address,
                    host.to_owned(),
                    began,
                    seen.clone(),
                    stop.clone(),
                ))
            })
            .collect();
        clients.push(tokio::spawn(socket(
            address,
            host.to_owned(),
            began,
            seen.clone(),
            stop.clone(),
        )));
        Self { seen, stop, clients }
    }

    /// Ends the load after the requests in hand.
    ///
    /// # Errors
    /// When a client itself failed, or when so little was answered that nothing is proven.
    pub async fn stop(self) -> Result<Arc<Seen>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await?;
        }
        let answered = self.seen.answered.load(Ordering::Relaxed);
        if answered < LEAST_ANSWERED {
            return Err(format!("the load did not load: {answered} answers").into());
        }
        Ok(self.seen)
    }
}

async fn client(
    kind: Kind,
    address: SocketAddr,
    host: String,
    began: Instant,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
) {
    let upload = Bytes::from(vec![b'u'; UPLOAD_BYTES]);
    let mut kept: Option<Connection> = None;
    let mut opened = began;
    while !stop.load(Ordering::Relaxed) {
        let result = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => {
                    opened = Instant::now();
                    Connection::open(address, &host).await?
                }
            };
            let (method, path, body) = match kind {
                Kind::KeepAlive | Kind::Fresh => (Method::GET, "/".to_owned(), Bytes::new()),
                Kind::Slow => (Method::GET, format!("/slow?ms={SLOW_MS}"), Bytes::new()),
                Kind::Upload => (Method::PUT, "/upload".to_owned(), upload.clone()),
                Kind::Post => (Method::POST, "/post".to_owned(), Bytes::from_static(b"posted")),
            };
            let sent = body.len();
            let answer = connection.send(method, &path, body).await?;
            if answer.status != 200 {
                return Err(format!("status {}: {}", answer.status, answer.body).into());
            }
            if sent > 0 && !answer.body.contains(&format!("\"bytes\":{sent}")) {
                return Err(format!("{sent} bytes were sent, the answer is {}", answer.body).into());
            }
            let keeps = !matches!(kind, Kind::Fresh) && !answer.closes;
            Ok::<_, Failure>(keeps.then_some(connection))
        }
        .await;
        match result {
            Ok(connection) => {
                kept = connection;
                seen.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => seen.failed(&format!("{kind:?}"), began, opened, &error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

/// A WebSocket that stays open and sends a message every tenth of a second; each must come back.
async fn socket(address: SocketAddr, host: String, began: Instant, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let opened = Instant::now();
        match one_socket(address, &host, &seen, &stop).await {
            Ok(()) => {}
            Err(error) => seen.failed("WebSocket", began, opened, &error.to_string()),
        }
    }
}

async fn one_socket(address: SocketAddr, host: &str, seen: &Seen, stop: &AtomicBool) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    let key = base64::engine::general_purpose::STANDARD.encode(b"0123456789abcdef");
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(format!("no upgrade: {}", String::from_utf8_lossy(&answer)).into());
    }
    let payload = b"hello";
    while !stop.load(Ordering::Relaxed) {
        let mut frame = vec![0x81, 0x80 | 5, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        stream.write_all(&frame).await?;
        let mut head = [0_u8; 2];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut head)).await??;
        let mut body = vec![0; usize::from(head[1] & 127)];
        stream.read_exact(&mut body).await?;
        match (head[0] & 15, body.as_slice()) {
            (1, body) if body == payload => seen.messages.fetch_add(1, Ordering::Relaxed),
            // 1001, going away (RFC 6455 section 7.4.1): the drain's end, not a loss.
            (8, [0x03, 0xe9, ..]) => {
                seen.closed_by_drain.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            (opcode, body) => return Err(format!("frame {opcode} with {body:?}").into()),
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
