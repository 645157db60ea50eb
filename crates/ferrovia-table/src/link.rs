//! One framed connection: a task that reads, a half that writes, heartbeats both ways.
//!
//! Reading is a task of its own with a short queue, so that a frame is never lost half-read when something else is
//! waited for at the same time; the queue's bound is the back-pressure. Whoever has nothing to say sends a heartbeat;
//! whoever hears nothing for [`DEAD_AFTER_MS`] gives the other end up.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::error::Error;
use crate::frame;

/// How often each end says that it lives, in milliseconds.
pub(crate) const HEARTBEAT_MS: u64 = 5_000;
/// Silence after which the other end counts as dead, in milliseconds: three heartbeats.
pub(crate) const DEAD_AFTER_MS: u64 = 15_000;
/// Longest time that a frame may take to be taken by the other end, in milliseconds.
const WRITE_TIMEOUT_MS: u64 = 10_000;
/// Frames that are read ahead.
const QUEUE_FRAMES: usize = 4;

/// The writing half, with its heartbeat.
pub(crate) struct Sender {
    stream: OwnedWriteHalf,
    heartbeat: Vec<u8>,
    beat: tokio::time::Interval,
}

/// The reading half: messages of type `M`.
pub(crate) struct Receiver<M> {
    queue: mpsc::Receiver<Result<M, Error>>,
    task: JoinHandle<()>,
}

impl<M> Drop for Receiver<M> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes a link of a connection; `heartbeat` is what is sent when nothing else is.
pub(crate) fn open<M>(stream: UnixStream, heartbeat: &impl Serialize) -> Result<(Sender, Receiver<M>), Error>
where
    M: DeserializeOwned + Send + 'static,
{
    let (mut reading, writing) = stream.into_split();
    let (found, queue) = mpsc::channel(QUEUE_FRAMES);
    let task = tokio::spawn(async move {
        loop {
            let next = match timeout(Duration::from_millis(DEAD_AFTER_MS), frame::read(&mut reading)).await {
                Err(_) => Err(Error::Silent(DEAD_AFTER_MS)),
                Ok(Ok(None)) => Err(Error::Closed),
                Ok(Ok(Some(payload))) => frame::message(&payload),
                Ok(Err(error)) => Err(error),
            };
            // What cannot be understood was still a whole frame: the next one may be understood.
            let goes_on = matches!(next, Ok(_) | Err(Error::UnknownFormat(_) | Error::Content(_)));
            if found.send(next).await.is_err() || !goes_on {
                return;
            }
        }
    });
    let period = Duration::from_millis(HEARTBEAT_MS);
    let mut beat = interval_at(Instant::now() + period, period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sender = Sender {
        stream: writing,
        heartbeat: frame::encode(heartbeat)?,
        beat,
    };
    Ok((sender, Receiver { queue, task }))
}

impl<M> Receiver<M> {
    /// The next message. Safe to drop while it waits.
    pub(crate) async fn next(&mut self) -> Result<M, Error> {
        self.queue.recv().await.unwrap_or(Err(Error::Closed))
    }
}

impl Sender {
    /// Sends one message.
    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let frame = frame::encode(message)?;
        self.send_frame(&frame).await
    }

    /// Waits for `work` and sends heartbeats meanwhile. The work is never dropped half-done: when the other end goes
    /// away, that is told once the work is through.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> (T, Result<(), Error>) {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return (done, Ok(())),
                _ = self.beat.tick() => {}
            }
            if let Err(error) = self.beat_once().await {
                return (work.await, Err(error));
            }
        }
    }

    /// Waits for the next moment at which a heartbeat is due, and sends it. Safe to drop while it waits.
    pub(crate) async fn beat(&mut self) {
        self.beat.tick().await;
    }

    /// Sends a heartbeat.
    pub(crate) async fn beat_once(&mut self) -> Result<(), Error> {
        let frame = std::mem::take(&mut self.heartbeat);
        let sent = self.send_frame(&frame).await;
        self.heartbeat = frame;
        sent
    }

    /// Sends bytes that are a frame already.
    pub(crate) async fn send_frame(&mut self, frame: &[u8]) -> Result<(), Error> {
        timeout(
            Duration::from_millis(WRITE_TIMEOUT_MS),
            self.stream.write_all(frame),
        )
        .await
        .map_err(|_| Error::Stuck(WRITE_TIMEOUT_MS))?
        .map_err(Error::Connection)
    }
}
