//! Control's end of the tables: every reader gets what it lacks, and what it says goes to the source.
//!
//! Level-triggered: [`Notifier::changed`] and a slow poll only make the connections compare their version with the
//! head and send the difference, so that a lost notification costs seconds and a burst of changes travels as one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::table::{Audience, Version};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::change::{Change, RawRow};
use crate::error::Error;
use crate::frame::FORMATS;
use crate::link::{self, Receiver, Sender};
use crate::message::{FromControl, FromReader, Hello, InFlightReport};
use crate::socket::Peers;

/// How often a connection looks for changes that it was not notified of, in milliseconds.
const POLL_MS: u64 = 5_000;
/// Longest wait for a reader's hello, in milliseconds.
const HELLO_TIMEOUT_MS: u64 = 5_000;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;
/// Longest name of a reader, in bytes.
const MAX_READER_BYTES: usize = 128;
/// Most replicas in one report.
const MAX_REPORT_ENTRIES: usize = 200_000;
/// Pause after an accept that failed (open files ran out), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;

/// What a [`Source`] fails with; the connection ends and the reader comes again.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where the tables come from and where readers' words go to: PostgreSQL in control, memory in tests.
pub trait Source: Send + Sync + 'static {
    /// The newest version.
    fn head(&self) -> impl Future<Output = Result<Version, SourceError>> + Send;

    /// All rows, under the version that they belong to.
    fn snapshot(
        &self,
        audience: Audience,
    ) -> impl Future<Output = Result<(Version, Vec<RawRow>), SourceError>> + Send;

    /// What changed since; `None` when that is no longer known and a snapshot is due. `since` is of the head's epoch
    /// and not newer than it.
    fn changes_since(
        &self,
        audience: Audience,
        since: Version,
    ) -> impl Future<Output = Result<Option<Change<RawRow>>, SourceError>> + Send;

    /// A reader connected; `version` is on its disk. It may be older than what it acknowledged once, when its file
    /// was damaged.
    fn connected(
        &self,
        reader: &str,
        audience: Audience,
        version: Version,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// A reader holds this version on its disk and serves from nothing older.
    fn acknowledged(
        &self,
        reader: &str,
        version: Version,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// What is open at a reader; it replaces that reader's last report.
    fn in_flight(
        &self,
        reader: &str,
        report: InFlightReport,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Something is wrong at a reader's end, in words for people.
    fn trouble(&self, reader: &str, text: String) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// A reader went away. `for_good`: it said so and nobody needs to wait for it any more.
    fn disconnected(
        &self,
        reader: &str,
        for_good: bool,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// A reader holds a version that is newer than the head: the database was restored. Raises the epoch, so that
    /// the head is newer than `version`.
    fn ahead(&self, reader: &str, version: Version) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// Makes the server look for changes at once.
#[derive(Debug, Clone)]
pub struct Notifier(watch::Sender<u64>);

impl Notifier {
    /// A change was committed.
    pub fn changed(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The listening end.
#[derive(Debug)]
pub struct Server<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    source: S,
    peers: Peers,
    changes: watch::Sender<u64>,
    seats: std::sync::Mutex<HashMap<String, Seat>>,
}

/// A reader's place: one connection at a time, the newest wins.
#[derive(Debug, Default)]
struct Seat {
    occupied: Arc<Mutex<()>>,
    leave: Option<oneshot::Sender<()>>,
}

impl<S: Source> Server<S> {
    /// A server of `source` for readers that run as one of `peers`.
    pub fn new(source: S, peers: Peers) -> Self {
        let (changes, _) = watch::channel(0);
        Self {
            shared: Arc::new(Shared {
                source,
                peers,
                changes,
                seats: std::sync::Mutex::default(),
            }),
        }
    }

    /// What tells this server of changes.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.shared.changes.clone())
    }

    /// Serves connections until it is dropped; they end with it.
    pub async fn serve(self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&self.shared);
                        connections.spawn(async move {
                            if let Err(error) = shared.connection(stream).await {
                                tracing::info!("a table reader's connection ended: {}", error.chain());
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!("no connection was accepted on the tables' socket: {error}");
                        sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    }
                },
            }
        }
    }
}

impl<S: Source> Shared<S> {
    async fn connection(&self, stream: UnixStream) -> Result<(), Error> {
        self.peers.check(&stream)?;
        let (sender, mut receiver) = link::open::<FromReader>(stream, &FromControl::<RawRow>::Heartbeat)?;
        let hello = match timeout(Duration::from_millis(HELLO_TIMEOUT_MS), receiver.next()).await {
            Err(_) => return Err(Error::Silent(HELLO_TIMEOUT_MS)),
            Ok(Ok(FromReader::Hello(hello))) if hello.reader.len() <= MAX_READER_BYTES => hello,
            Ok(Ok(_)) => return Err(Error::OutOfTurn("the first message is not a hello")),
            Ok(Err(error)) => return Err(error),
        };
        let (occupied, mut left) = self.sit(&hello.reader);
        let _seat = occupied.lock().await;
        self.source
            .connected(&hello.reader, hello.audience, hello.version)
            .await
            .map_err(Error::Source)?;
        tracing::info!(reader = hello.reader, version = ?hello.version, "a table reader connected");
        let mut conversation = Conversation {
            shared: self,
            sender,
            sent: hello.version,
            hello,
            report: Vec::new(),
        };
        let ended = tokio::select! {
            ended = conversation.hold(&mut receiver) => ended,
            _ = &mut left => Ok(false),
        };
        let for_good = matches!(ended, Ok(true));
        self.source
            .disconnected(&conversation.hello.reader, for_good)
            .await
            .map_err(Error::Source)?;
        ended.map(|_| ())
    }

    /// Takes the reader's seat; whoever has it is told to leave.
    fn sit(&self, reader: &str) -> (Arc<Mutex<()>>, oneshot::Receiver<()>) {
        let (leave, left) = oneshot::channel();
        let mut seats = self
            .seats
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Seats of readers that are gone hold nothing but a name; processes on their way out come under new names.
        seats.retain(|name, seat| name == reader || Arc::strong_count(&seat.occupied) > 1);
        let seat = seats.entry(reader.to_owned()).or_default();
        if let Some(other) = seat.leave.replace(leave) {
            // An error means that it has left already.
            let _ = other.send(());
        }
        (Arc::clone(&seat.occupied), left)
    }
}

/// One reader's connection after its hello.
struct Conversation<'a, S> {
    shared: &'a Shared<S>,
    sender: Sender,
    hello: Hello,
    /// The version that was sent last.
    sent: Version,
    report: Vec<ferrovia_core::observation::InFlight>,
}

impl<'a, S: Source> Conversation<'a, S> {
    /// Whether the reader said goodbye.
    async fn hold(&mut self, receiver: &mut Receiver<FromReader>) -> Result<bool, Error> {
        let understood = self.hello.formats.iter().any(|format| FORMATS.contains(format));
        if !understood {
            let text = format!(
                "it understands the table formats {:?}, control writes {FORMATS:?}; it keeps its last good table",
                self.hello.formats
            );
            self.source()
                .trouble(&self.hello.reader, text)
                .await
                .map_err(Error::Source)?;
        }
        let mut changes = self.shared.changes.subscribe();
        let mut poll = interval(Duration::from_millis(POLL_MS));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = receiver.next() => match message {
                    Ok(message) => if self.hear(message).await? { return Ok(true) },
                    Err(error @ (Error::UnknownFormat(_) | Error::Content(_))) => {
                        let text = format!("a message of it is not understood: {}", error.chain());
                        self.source().trouble(&self.hello.reader, text).await.map_err(Error::Source)?;
                    }
                    Err(error) => return Err(error),
                },
                _ = poll.tick() => if understood { self.catch_up().await? },
                _ = changes.changed() => if understood { self.catch_up().await? },
                () = self.sender.beat() => self.sender.beat_once().await?,
            }
        }
    }

    async fn hear(&mut self, message: FromReader) -> Result<bool, Error> {
        let source = self.source();
        let reader = self.hello.reader.as_str();
        match message {
            FromReader::Hello(_) => return Err(Error::OutOfTurn("a second hello")),
            FromReader::Heartbeat => {}
            FromReader::Ack(version) => source
                .acknowledged(reader, version)
                .await
                .map_err(Error::Source)?,
            FromReader::Trouble(text) => source.trouble(reader, text).await.map_err(Error::Source)?,
            FromReader::Goodbye => return Ok(true),
            FromReader::InFlight { version, open, last } => {
                if self.report.len() + open.len() > MAX_REPORT_ENTRIES {
                    return Err(Error::OutOfTurn("a report that never ends"));
                }
                self.report.extend(open);
                if last {
                    let report = InFlightReport {
                        version,
                        open: std::mem::take(&mut self.report),
                    };
                    source
                        .in_flight(&self.hello.reader, report)
                        .await
                        .map_err(Error::Source)?;
                }
            }
        }
        Ok(false)
    }

    /// Sends what the reader lacks.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let source = self.source();
        let mut head = source.head().await.map_err(Error::Source)?;
        if self.sent > head {
            tracing::warn!(reader = self.hello.reader, held = ?self.sent, ?head, "a table reader is ahead of the database");
            source
                .ahead(&self.hello.reader, self.sent)
                .await
                .map_err(Error::Source)?;
            head = source.head().await.map_err(Error::Source)?;
            if self.sent > head {
                return Err(Error::OutOfTurn("a reader that is ahead of the database"));
            }
        }
        if self.sent == head {
            return Ok(());
        }
        let mut change = None;
        if self.sent.epoch == head.epoch && self.sent != Version::default() {
            change = source
                .changes_since(self.hello.audience, self.sent)
                .await
                .map_err(Error::Source)?;
        }
        let change = match change {
            Some(change) => change,
            None => {
                let (to, upserts) = source
                    .snapshot(self.hello.audience)
                    .await
                    .map_err(Error::Source)?;
                Change {
                    from: None,
                    to,
                    upserts,
                    deletes: Vec::new(),
                }
            }
        };
        let to = change.to;
        for part in change.into_parts() {
            self.sender.send(&FromControl::Change(part)).await?;
        }
        self.sent = to;
        Ok(())
    }

    fn source(&self) -> &'a S {
        let shared: &'a Shared<S> = self.shared;
        &shared.source
    }
}
