//! `node`'s end: sends every subscriber what it lacks of a [`Board`], and hands on requests to wake.

use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::InstanceId;
use ferrovia_core::observation::Figures;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BATCH, Board, FromNode, FromSubscriber};
use crate::error::Error;
use crate::link;
use crate::socket::Peers;

/// Most subscribers at once.
const MAX_SUBSCRIBERS: usize = 64;
/// Pause after an accept that failed, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Pause after news was sent before more is collected, for each replica on the board, in microseconds: to collect costs
/// in proportion to them, and what happens in a burst travels together then. Where there are few, nothing waits: deploys
/// do for what is seen.
const GATHER_US: u32 = 20;
/// Longest such pause, in microseconds.
const MAX_GATHER_US: u32 = 20_000;

/// Serves a board's observations.
#[derive(Debug)]
pub struct ObservationServer {
    board: Board,
    wake: mpsc::Sender<InstanceId>,
    peers: Peers,
}

impl ObservationServer {
    /// A server of `board`; instances that somebody waits for go to `wake`, which may say the same one often and
    /// loses what does not fit: whoever waits asks again.
    pub const fn new(board: Board, wake: mpsc::Sender<InstanceId>, peers: Peers) -> Self {
        Self { board, wake, peers }
    }

    /// Serves subscribers until it is dropped; they end with it.
    pub async fn serve(self, listener: UnixListener) {
        let mut subscribers = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = subscribers.join_next() => {}
                accepted = listener.accept(), if subscribers.len() < MAX_SUBSCRIBERS => match accepted {
                    Ok((stream, _)) => {
                        let (board, wake, peers) = (self.board.clone(), self.wake.clone(), self.peers);
                        subscribers.spawn(async move {
                            if let Err(error) = subscriber(stream, board, wake, peers).await {
                                tracing::debug!("a subscriber's connection ended: {}", error.chain());
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!("no connection was accepted on the observations' socket: {error}");
                        sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    }
                },
            }
        }
    }
}

async fn subscriber(
    stream: UnixStream,
    board: Board,
    wake: mpsc::Sender<InstanceId>,
    peers: Peers,
) -> Result<(), Error> {
    peers.check(&stream)?;
    let (mut sender, mut receiver) = link::open::<FromSubscriber>(stream, &FromNode::Heartbeat)?;
    let mut newest = board.follow();
    let mut known = None;
    let mut figures: Option<watch::Receiver<Arc<Vec<Figures>>>> = None;
    newest.mark_changed();
    let mut next_news = Instant::now();
    loop {
        tokio::select! {
            message = receiver.next() => match message? {
                FromSubscriber::Heartbeat => {}
                FromSubscriber::Figures => figures = Some(board.follow_figures()),
                FromSubscriber::Wake(instance) => {
                    if wake.try_send(instance).is_err() {
                        tracing::warn!(%instance, "a request to wake was dropped: too many wait");
                    }
                }
            },
            changed = after(next_news, newest.changed()) => {
                changed.map_err(|_| Error::Closed)?;
                newest.borrow_and_update();
                let mut news = board.news(known);
                known = Some(news.number);
                loop {
                    let rest = news.seen.split_off(news.seen.len().min(BATCH));
                    let message = FromNode::News {
                        all: news.all,
                        seen: std::mem::replace(&mut news.seen, rest),
                        gone: std::mem::take(&mut news.gone),
                        last: news.seen.is_empty(),
                    };
                    sender.send(&message).await?;
                    if news.seen.is_empty() {
                        break;
                    }
                }
                next_news = Instant::now() + pause(news.replicas);
            },
            newest = changed(figures.as_mut()) => {
                let pieces = newest.len().div_ceil(BATCH).max(1);
                for piece in 0..pieces {
                    let message = FromNode::Figures {
                        first: piece == 0,
                        last: piece + 1 == pieces,
                        figures: newest.iter().skip(piece * BATCH).take(BATCH).copied().collect(),
                    };
                    sender.send(&message).await?;
                }
            },
            () = sender.beat() => sender.beat_once().await?,
        }
    }
}

/// How long what happens is gathered on a board of so many replicas.
fn pause(replicas: usize) -> Duration {
    let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
    Duration::from_micros(GATHER_US.saturating_mul(replicas).min(MAX_GATHER_US).into())
}

async fn after<T>(moment: Instant, what: impl Future<Output = T>) -> T {
    sleep_until(moment).await;
    what.await
}

/// The next figures; never, where none are wanted.
async fn changed(figures: Option<&mut watch::Receiver<Arc<Vec<Figures>>>>) -> Arc<Vec<Figures>> {
    if let Some(figures) = figures
        && figures.changed().await.is_ok()
    {
        return Arc::clone(&figures.borrow_and_update());
    }
    std::future::pending().await
}
