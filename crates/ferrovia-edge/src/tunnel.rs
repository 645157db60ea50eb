//! Connections that changed their protocol: bytes both ways until one end has had enough, or the drain is over.
//!
//! A tunnel that is idle holds no buffer: bytes are read into one that the worker's tunnels share, when they are there.
//! A WebSocket that must end because its replica goes is told so with status 1001, between two frames, both ways.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ferrovia_core::id::ReplicaId;
use futures_util::future::{Either, select};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::access::Entry;
use crate::config::TUNNEL_IDLE_MS;
use crate::io::ClientIo;
use crate::pool::OpenGuard;
use crate::replica_io::ReplicaIo;
use crate::watch::now_ms;
use crate::websocket::{Frames, GOING_AWAY_TO_CLIENT, GOING_AWAY_TO_SERVER};
use crate::worker::Worker;

/// Bytes that are moved at a time.
const BUFFER_BYTES: usize = 32 << 10;
/// How long one direction goes on after the other has ended, in milliseconds.
const HALF_CLOSED_MS: u64 = 10_000;
/// How long a tunnel that must end may take to come to the end of a frame, and to say goodbye, in milliseconds.
const FAREWELL_MS: u64 = 1_000;

thread_local! {
    /// What all tunnels of a worker read into; held only while nothing is waited for.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice());
}

/// A tunnel, as its worker sees it.
#[derive(Debug)]
pub struct Tunnel {
    /// The replica at its end.
    pub replica_id: ReplicaId,
    ending: watch::Sender<bool>,
    moved_at: Cell<u64>,
}

impl Tunnel {
    /// Tells it to end.
    pub fn end(&self) {
        self.ending
            .send_if_modified(|ending| !std::mem::replace(ending, true));
    }

    /// Ends it when nothing has moved for too long.
    pub fn look(&self, now: u64) {
        if self.moved_at.get() + TUNNEL_IDLE_MS <= now {
            self.end();
        }
    }
}

/// Begins a tunnel between two connections that are about to change their protocol.
pub fn spawn(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    replica: OnUpgrade,
    open: OpenGuard,
    websocket: bool,
    entry: Entry,
) {
    let tunnel = Rc::new(Tunnel {
        replica_id: open.pool().replica().replica_id,
        ending: watch::channel(false).0,
        moved_at: Cell::new(now_ms()),
    });
    let number = worker.add_tunnel(&tunnel);
    let worker = Rc::clone(worker);
    spawn_local(async move {
        // Both are let go together when the tunnel is over.
        let _held = (open, entry);
        let seated = Seat { worker, number };
        if let (Ok(client), Ok(replica)) = (client.await, replica.await)
            && let (Some(client), Some(replica)) = (End::of_client(client), End::of_replica(replica))
        {
            let ended = connect(&tunnel, &client, &replica, websocket).await;
            tracing::debug!(replica = %tunnel.replica_id, ?ended, "a tunnel ended");
        }
        drop(seated);
    });
}

struct Seat {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.remove_tunnel(self.number);
    }
}

/// One end: its socket and what was read of it too early.
struct End {
    stream: TcpStream,
    early: bytes::Bytes,
}

impl End {
    fn of_client(upgraded: Upgraded) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<ClientIo>>().ok()?;
        Some(Self {
            stream: parts.io.into_inner().into_inner(),
            early: parts.read_buf,
        })
    }

    fn of_replica(upgraded: Upgraded) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<ReplicaIo>>().ok()?;
        Some(Self {
            stream: parts.io.into_inner().into_inner(),
            early: parts.read_buf,
        })
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its source sent no more.
    AtSource,
    /// It was told to; whether its frames are complete and none said goodbye.
    Told(bool),
}

async fn connect(tunnel: &Tunnel, client: &End, replica: &End, websocket: bool) -> io::Result<()> {
    let frames = || websocket.then(Frames::default);
    let down = pin!(pump(tunnel, replica, &client.stream, frames()));
    let up = pin!(pump(tunnel, client, &replica.stream, frames()));
    let mut ending = tunnel.ending.subscribe();
    let both = async {
        match select(down, up).await {
            Either::Left((ended, up)) => {
                conclude(ended?, &client.stream, websocket, &GOING_AWAY_TO_CLIENT).await?;
                if let Ok(ended) = timeout(Duration::from_millis(HALF_CLOSED_MS), up).await {
                    conclude(ended?, &replica.stream, websocket, &GOING_AWAY_TO_SERVER).await?;
                }
            }
            Either::Right((ended, down)) => {
                conclude(ended?, &replica.stream, websocket, &GOING_AWAY_TO_SERVER).await?;
                if let Ok(ended) = timeout(Duration::from_millis(HALF_CLOSED_MS), down).await {
                    conclude(ended?, &client.stream, websocket, &GOING_AWAY_TO_CLIENT).await?;
                }
            }
        }
        io::Result::Ok(())
    };
    let told = async {
        // The sender lives as long as the tunnel.
        let _ = ending.wait_for(|ending| *ending).await;
        sleep(Duration::from_millis(FAREWELL_MS)).await;
    };
    tokio::select! {
        ended = both => ended?,
        () = told => return Ok(()),
    }
    if *tunnel.ending.borrow() {
        // The client answers the goodbye; closing before that would destroy it on its way.
        let _ = timeout(Duration::from_millis(FAREWELL_MS), drained(&client.stream)).await;
    }
    Ok(())
}

/// Ends what a direction led to.
async fn conclude(ended: Ended, to: &TcpStream, websocket: bool, goodbye: &[u8]) -> io::Result<()> {
    if ended == Ended::Told(true) && websocket {
        write_all(to, goodbye).await?;
    }
    rustix::net::shutdown(to, rustix::net::Shutdown::Write).map_err(io::Error::from)
}

async fn drained(stream: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; 512];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Moves bytes in one direction.
async fn pump(tunnel: &Tunnel, from: &End, to: &TcpStream, mut frames: Option<Frames>) -> io::Result<Ended> {
    let mut ending = tunnel.ending.subscribe();
    if let Some(frames) = &mut frames {
        frames.take(&from.early);
    }
    write_all(to, &from.early).await?;
    loop {
        let told = *ending.borrow_and_update();
        if told && frames.as_ref().is_none_or(Frames::at_boundary) {
            return Ok(Ended::Told(frames.is_some_and(|frames| !frames.is_closed())));
        }
        tokio::select! {
            biased;
            _ = ending.changed(), if !told => continue,
            ready = from.stream.readable() => ready?,
        }
        let moved = BUFFER.with_borrow_mut(|buffer| -> io::Result<Moved> {
            let n = match from.stream.try_read(buffer) {
                Ok(0) => return Ok(Moved::End),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::All),
                Err(error) => return Err(error),
            };
            let bytes = match &mut frames {
                Some(frames) if told => &buffer[..frames.until_boundary(&buffer[..n])],
                Some(frames) => {
                    frames.take(&buffer[..n]);
                    &buffer[..n]
                }
                None => &buffer[..n],
            };
            match to.try_write(bytes) {
                Ok(written) if written == bytes.len() => Ok(Moved::All),
                Ok(written) => Ok(Moved::Rest(bytes[written..].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Rest(bytes.to_vec())),
                Err(error) => Err(error),
            }
        })?;
        tunnel.moved_at.set(now_ms());
        match moved {
            Moved::All => {}
            Moved::End => return Ok(Ended::AtSource),
            Moved::Rest(rest) => write_all(to, &rest).await?,
        }
    }
}

/// What became of the bytes that were read.
enum Moved {
    All,
    Rest(Vec<u8>),
    End,
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
