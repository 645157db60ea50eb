//! `RUN_DIR/edge.sock`: what can be asked of a running edge, and the client for it.
//!
//! One question per connection, a line of JSON, and one answer of the same kind; listeners follow their answer as
//! descriptors. Only root and the platform's own user are answered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::observation::InFlight;
use ferrovia_core::table::Version;
use ferrovia_table::Peers;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::listeners;
use crate::metrics::Counts;
use crate::worker::DrainPlan;

/// Longest question and answer, in bytes.
const MAX_LINE_BYTES: u64 = 8 << 20;
/// Longest time that either side waits for the other, in milliseconds.
const TIMEOUT_MS: u64 = 10_000;
/// Questions that are answered at once.
pub const MAX_CLIENTS: usize = 8;

/// What is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", deny_unknown_fields)]
enum Question {
    Status,
    Listeners,
    Drain { idle_ms: u64, deadline_ms: u64 },
}

/// What an edge says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// What its build was called by whoever started it.
    pub build: String,
    /// The table it serves from.
    pub version: Version,
    /// Hosts it knows.
    pub hosts: usize,
    /// Whether control is connected.
    pub control: bool,
    /// Whether `node` is connected.
    pub node: bool,
    /// Its threads.
    pub workers: usize,
    /// Whether it is on its way out.
    pub draining: bool,
    /// Connections of clients that are open, tunnels apart.
    pub connections: u64,
    /// What is open towards each replica.
    pub in_flight: Vec<InFlight>,
    /// What was counted since it started.
    pub counts: Counts,
}

/// A question on its way to the one that can answer it.
#[derive(Debug)]
pub enum Asked {
    /// Its state.
    Status(oneshot::Sender<Status>),
    /// To end; answered when it has let go of the table's files and accepts no more.
    Drain(DrainPlan, oneshot::Sender<()>),
}

/// Answers questions until it is dropped.
pub async fn serve(
    listener: UnixListener,
    peers: Peers,
    held: Arc<Vec<TcpListener>>,
    ask: mpsc::Sender<Asked>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("no connection was accepted on the edge's socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = peers.check(&stream) {
            tracing::warn!("a question was refused: {error}");
            continue;
        }
        let (held, ask) = (Arc::clone(&held), ask.clone());
        // Descriptors are sent with blocking calls under a timeout; this happens a few times in a process's life.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = stream.into_std().and_then(|stream| answer(&stream, &held, &ask)) {
                tracing::debug!("a question was not answered: {error}");
            }
            drop(slot);
        });
    }
}

fn answer(stream: &UnixStream, held: &[TcpListener], ask: &mpsc::Sender<Asked>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    set_timeouts(stream)?;
    let gone = || io::Error::other("the edge is ending");
    match read_line(stream)? {
        Question::Status => {
            let (tell, told) = oneshot::channel();
            ask.blocking_send(Asked::Status(tell)).map_err(|_| gone())?;
            write_line(stream, &told.blocking_recv().map_err(|_| gone())?)
        }
        Question::Listeners => {
            write_line(stream, &held.len())?;
            listeners::send(stream, held)
        }
        Question::Drain { idle_ms, deadline_ms } => {
            let (tell, told) = oneshot::channel();
            ask.blocking_send(Asked::Drain(DrainPlan { idle_ms, deadline_ms }, tell))
                .map_err(|_| gone())?;
            told.blocking_recv().map_err(|_| gone())?;
            write_line(stream, &true)
        }
    }
}

/// Asks an edge for its state. Blocks for ten seconds at most.
///
/// # Errors
/// When nobody answers at `socket`.
pub fn status(socket: &Path) -> io::Result<Status> {
    read_line(&asked(socket, Question::Status)?)
}

/// Fetches duplicates of an edge's listeners. Blocks for ten seconds at most.
///
/// # Errors
/// When nobody answers at `socket`, or answers something else.
pub fn fetch_listeners(socket: &Path) -> io::Result<Vec<TcpListener>> {
    let stream = asked(socket, Question::Listeners)?;
    let _count: usize = read_line(&stream)?;
    listeners::receive(&stream)
}

/// Tells an edge to end: it accepts no more, answers what it has in hand, closes connections between two requests
/// after `idle_ms` and everything after `deadline_ms`. When this returns, it has let go of the table's files: another
/// edge may start. Blocks for ten seconds at most.
///
/// # Errors
/// When nobody answers at `socket`.
pub fn drain(socket: &Path, idle_ms: u64, deadline_ms: u64) -> io::Result<()> {
    let done: bool = read_line(&asked(socket, Question::Drain { idle_ms, deadline_ms })?)?;
    if done {
        Ok(())
    } else {
        Err(io::Error::other("the edge did not drain"))
    }
}

fn asked(socket: &Path, question: Question) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    set_timeouts(&stream)?;
    write_line(&stream, &question)?;
    Ok(stream)
}

fn set_timeouts(stream: &UnixStream) -> io::Result<()> {
    let limit = Some(Duration::from_millis(TIMEOUT_MS));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)
}

fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line and not a byte beyond it: descriptors may follow.
fn read_line<T: serde::de::DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(1, stream.take(MAX_LINE_BYTES));
    reader.read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}
