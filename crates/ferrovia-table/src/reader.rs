//! A reader's end of the tables: the last good one at once, then whatever control sends, for ever.
//!
//! The order for each change: on the disk and fsynced, then handed to [`Apply`] (the swap in every worker of an edge,
//! the firewall of a node), then acknowledged. A change that cannot be made durable is not served, so that what was
//! served is always what a restart serves. One that cannot be applied is tried again, with the trouble told to control.
//! A change in a format that is not understood is told and otherwise ignored: the last good table stays.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use ferrovia_core::table::{Audience, Row, Table, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::change::{Assembler, Change};
use crate::error::Error;
use crate::file::TableFile;
use crate::frame::FORMATS;
use crate::link::{self, Receiver, Sender};
use crate::message::{FromControl, FromReader, Hello, InFlightReport, MAX_TROUBLE_BYTES, REPORT_ENTRIES};
use crate::socket::{self, Peers};

/// First and longest pause before connecting again, in milliseconds.
const RECONNECT_MS: (u64, u64) = (50, 1_000);
/// First and longest pause before a table that was refused by [`Apply`] is tried again, in milliseconds.
const REAPPLY_MS: (u64, u64) = (500, 30_000);

/// What takes a new table into use.
pub trait Apply<R: Row>: Send + 'static {
    /// Takes the table into use; it is acknowledged when this has returned. Called again with [`Changed::All`] after
    /// it failed. The error is for people.
    fn apply(
        &mut self,
        table: &Table<R>,
        changed: Changed<'_>,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Which rows differ from the table before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed<'a> {
    /// Any may.
    All,
    /// Rows with these keys are new, changed or gone.
    Keys(&'a [String]),
}

/// How a reader is set up.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Directory of the last good table, this reader's alone; `None`: nothing is kept (a process on its way out).
    pub directory: Option<PathBuf>,
    /// `RUN_DIR/tables.sock`.
    pub socket: PathBuf,
    /// Its name, unique among all readers of the installation: `edge`, `node`.
    pub name: String,
    /// Which table it reads.
    pub audience: Audience,
    /// Who control may run as.
    pub peers: Peers,
}

/// The reading end.
#[derive(Debug)]
pub struct Reader<R: Row> {
    options: ReaderOptions,
    file: Option<TableFile>,
    table: Table<R>,
    /// The version in use, once [`Apply`] took one.
    applied: Option<Version>,
    reapply: Option<(Instant, u64)>,
    troubles: Vec<String>,
    reports: watch::Receiver<InFlightReport>,
    connected: watch::Sender<bool>,
    stop: watch::Receiver<Stop>,
}

/// Speaks to a running [`Reader`].
#[derive(Debug, Clone)]
pub struct ReaderHandle {
    reports: watch::Sender<InFlightReport>,
    connected: watch::Receiver<bool>,
    stop: watch::Sender<Stop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Silently,
    WithGoodbye,
}

impl ReaderHandle {
    /// Tells control what is open; the newest report is also the first message of every new connection.
    pub fn report(&self, report: InFlightReport) {
        self.reports.send_replace(report);
    }

    /// Whether control is connected.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Follows whether control is connected.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Ends [`Reader::run`]. With `goodbye`, control forgets this reader and waits for it no more.
    pub fn stop(&self, goodbye: bool) {
        self.stop.send_replace(if goodbye {
            Stop::WithGoodbye
        } else {
            Stop::Silently
        });
    }
}

impl<R: Row> Reader<R> {
    /// Reads the last good table; an empty one of version 0 when there is none.
    ///
    /// # Errors
    /// [`Error::File`] when the directory cannot be read. A damaged file is no error: what is whole of it counts.
    pub fn open(options: ReaderOptions) -> Result<(Self, ReaderHandle), Error> {
        let (file, table, troubles) = match &options.directory {
            Some(directory) => {
                let (file, table, troubles) = TableFile::open(directory)?;
                (Some(file), table, troubles)
            }
            None => (None, Table::default(), Vec::new()),
        };
        for trouble in &troubles {
            tracing::warn!(reader = options.name, "{trouble}");
        }
        Ok(Self::assemble(options, file, table, troubles))
    }

    /// A reader that goes on from a table at hand and keeps nothing on disk: a process on its way out, under a name
    /// of its own.
    pub fn detached(mut options: ReaderOptions, table: Table<R>) -> (Self, ReaderHandle) {
        options.directory = None;
        Self::assemble(options, None, table, Vec::new())
    }

    fn assemble(
        options: ReaderOptions,
        file: Option<TableFile>,
        table: Table<R>,
        troubles: Vec<String>,
    ) -> (Self, ReaderHandle) {
        let (report, reports) = watch::channel(InFlightReport::default());
        let (connected, is_connected) = watch::channel(false);
        let (stopper, stop) = watch::channel(Stop::No);
        let reader = Self {
            options,
            file,
            table,
            applied: None,
            reapply: None,
            troubles,
            reports,
            connected,
            stop,
        };
        (
            reader,
            ReaderHandle {
                reports: report,
                connected: is_connected,
                stop: stopper,
            },
        )
    }

    /// The table at hand.
    pub fn table(&self) -> &Table<R> {
        &self.table
    }

    /// Applies the table at hand, then follows control until [`ReaderHandle::stop`]; without any handle left, until
    /// it is dropped. Returns the last table and `apply`; the file is closed by then.
    pub async fn run<A: Apply<R>>(mut self, mut apply: A) -> (Table<R>, A) {
        self.try_apply(&mut apply, Changed::All).await;
        let mut pause = RECONNECT_MS.0;
        while *self.stop.borrow_and_update() == Stop::No {
            let began = Instant::now();
            let result = self.connection(&mut apply).await;
            let was_connected = self.connected.send_replace(false);
            match result {
                Ok(()) => break,
                Err(error) if was_connected => {
                    tracing::info!(reader = self.options.name, "{}", error.chain())
                }
                Err(error) => tracing::debug!(reader = self.options.name, "{}", error.chain()),
            }
            if was_connected && began.elapsed() > Duration::from_millis(RECONNECT_MS.1) {
                pause = RECONNECT_MS.0;
            }
            self.rest(pause, &mut apply).await;
            pause = (pause * 2).min(RECONNECT_MS.1);
        }
        (self.table, apply)
    }

    /// Waits without a connection, and goes on trying a table that was refused.
    async fn rest<A: Apply<R>>(&mut self, pause_ms: u64, apply: &mut A) {
        let end = Instant::now() + Duration::from_millis(pause_ms);
        let due = self.reapply.map(|(at, _)| at);
        tokio::select! {
            () = changed(&mut self.stop) => {}
            () = sleep_until(end) => {}
            () = until(due) => self.try_apply(apply, Changed::All).await,
        }
    }

    /// One connection from hello to its end; `Ok` when this reader was told to stop.
    async fn connection<A: Apply<R>>(&mut self, apply: &mut A) -> Result<(), Error> {
        let stream = socket::connect(&self.options.socket, self.options.peers).await?;
        let (mut sender, mut receiver) = link::open::<FromControl<R>>(stream, &FromReader::Heartbeat)?;
        let hello = Hello {
            reader: self.options.name.clone(),
            audience: self.options.audience,
            formats: FORMATS.to_vec(),
            version: self.table.version,
        };
        sender.send(&FromReader::Hello(hello)).await?;
        for trouble in std::mem::take(&mut self.troubles) {
            sender.send(&FromReader::Trouble(trouble)).await?;
        }
        if self.applied == Some(self.table.version) {
            sender.send(&FromReader::Ack(self.table.version)).await?;
        }
        self.send_report(&mut sender).await?;
        self.connected.send_replace(true);
        self.follow(apply, &mut sender, &mut receiver).await
    }

    async fn follow<A: Apply<R>>(
        &mut self,
        apply: &mut A,
        sender: &mut Sender,
        receiver: &mut Receiver<FromControl<R>>,
    ) -> Result<(), Error> {
        let mut parts = Assembler::default();
        let mut deaf = false;
        loop {
            let due = self.reapply.map(|(at, _)| at);
            tokio::select! {
                message = receiver.next() => match message {
                    Ok(FromControl::Heartbeat) => {}
                    Ok(FromControl::Change(part)) if !deaf => {
                        if let Some(change) = parts.take(part)? {
                            self.take(change, apply, sender).await?;
                        }
                    }
                    Ok(FromControl::Change(_)) => {}
                    Err(error @ (Error::UnknownFormat(_) | Error::Content(_))) => {
                        // Later changes build on the one that was not understood: the last good table stays.
                        deaf = true;
                        sender.send(&FromReader::Trouble(bounded(error.chain()))).await?;
                    }
                    Err(error) => return Err(error),
                },
                () = sender.beat() => sender.beat_once().await?,
                () = changed(&mut self.reports) => self.send_report(sender).await?,
                () = changed(&mut self.stop) => {
                    if *self.stop.borrow() == Stop::WithGoodbye {
                        sender.send(&FromReader::Goodbye).await?;
                    }
                    return Ok(());
                }
                () = until(due) => {
                    let ((), alive) = sender.during(self.try_apply(apply, Changed::All)).await;
                    alive?;
                    self.acknowledge(sender).await?;
                }
            }
        }
    }

    /// Makes a change durable, applies and acknowledges it.
    async fn take<A: Apply<R>>(
        &mut self,
        change: Change<R>,
        apply: &mut A,
        sender: &mut Sender,
    ) -> Result<(), Error> {
        let keys = change.from.map(|_| change.keys());
        let mut after = self.table.clone();
        if let Err(error) = change.clone().apply_to(&mut after) {
            tracing::warn!(reader = self.options.name, "{error}");
            return Err(Error::OutOfTurn("a change that does not fit the table"));
        }
        let (recorded, alive) = sender.during(self.record(change, after)).await;
        if let Err(error) = recorded {
            self.troubles.push(bounded(error.chain()));
            return Err(error);
        }
        alive?;
        let changed = keys.as_deref().map_or(Changed::All, Changed::Keys);
        let ((), alive) = sender.during(self.try_apply(apply, changed)).await;
        alive?;
        self.acknowledge(sender).await
    }

    async fn record(&mut self, change: Change<R>, after: Table<R>) -> Result<(), Error> {
        let Some(mut file) = self.file.take() else {
            if let Some(directory) = self.options.directory.clone() {
                // A file task died: read what is there again and start a new generation.
                self.file = Some(TableFile::open::<R>(&directory)?.0);
                return Err(Error::OutOfTurn("the table file was closed"));
            }
            self.table = after;
            return Ok(());
        };
        let write = tokio::task::spawn_blocking(move || {
            let result = file.record(&change, &after);
            (file, after, result)
        });
        let (file, after, result) = write.await.map_err(Error::Task)?;
        self.file = Some(file);
        result?;
        self.table = after;
        Ok(())
    }

    /// Hands the table to `apply`; when that fails, notes when to try again.
    async fn try_apply<A: Apply<R>>(&mut self, apply: &mut A, changed: Changed<'_>) {
        // After a failure it is not known what was taken in: everything counts as changed.
        let changed = if self.reapply.is_some() || self.applied.is_none() {
            Changed::All
        } else {
            changed
        };
        match apply.apply(&self.table, changed).await {
            Ok(()) => {
                self.applied = Some(self.table.version);
                self.reapply = None;
            }
            Err(text) => {
                tracing::warn!(reader = self.options.name, "the table was not applied: {text}");
                self.troubles
                    .push(bounded(format!("the table was not applied: {text}")));
                let pause = self
                    .reapply
                    .map_or(REAPPLY_MS.0, |(_, pause)| (pause * 2).min(REAPPLY_MS.1));
                self.reapply = Some((Instant::now() + Duration::from_millis(pause), pause));
            }
        }
    }

    /// Tells control what is held and used, or what is wrong.
    async fn acknowledge(&mut self, sender: &mut Sender) -> Result<(), Error> {
        for trouble in std::mem::take(&mut self.troubles) {
            sender.send(&FromReader::Trouble(trouble)).await?;
        }
        if self.reapply.is_none() && self.applied == Some(self.table.version) {
            sender.send(&FromReader::Ack(self.table.version)).await?;
        }
        Ok(())
    }

    async fn send_report(&mut self, sender: &mut Sender) -> Result<(), Error> {
        let report = self.reports.borrow_and_update().clone();
        let mut batches = report.open.chunks(REPORT_ENTRIES).peekable();
        let mut open = batches.next().unwrap_or_default().to_vec();
        loop {
            let next = batches.next();
            let message = FromReader::InFlight {
                version: report.version,
                open,
                last: next.is_none(),
            };
            sender.send(&message).await?;
            let Some(batch) = next else { return Ok(()) };
            open = batch.to_vec();
        }
    }
}

/// Waits for a new value; for ever when nobody is left to give one.
async fn changed<T>(values: &mut watch::Receiver<T>) {
    if values.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn bounded(mut text: String) -> String {
    let mut end = text.len().min(MAX_TROUBLE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
