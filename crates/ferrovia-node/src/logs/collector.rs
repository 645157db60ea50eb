//! The thread that carries the containers' lines into the instances' logs.
//!
//! One thread for all containers: reading files blocks, and a container that writes without end must take turns with
//! the others. A container's lines and its cursor are appended as one frame, so that a kill at any point loses and
//! repeats nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_log::{CursorChange, Error, Limits, NewLine, Stream, Writer, place};

use super::source::{Batch, Cursor, Source};
use crate::clock::now_ms;

/// Shortest and longest pause between two looks at a quiet container's log, in milliseconds.
const LOOK_MS: (u64, u64) = (100, 1_000);
/// The pause is this part of the time since its last line.
const LOOK_PART: u32 = 10;
/// Reads of one container before the next has its turn.
const READS_A_TURN: usize = 4;
/// How long a log that nobody writes to stays open, in milliseconds.
const WRITER_IDLE_MS: u64 = 60_000;
/// Pause after a failure, in milliseconds.
const FAILURE_PAUSE_MS: u64 = 1_000;
/// Stands in the log where lines are missing.
const GAP: &str = "[ferrovia] lines are missing here: the engine rotated its log before it could be read";

/// What the thread is told.
#[derive(Debug)]
pub enum Command {
    /// A container that was not known.
    Add(Container),
    /// It runs, or does not, or was run once more.
    Run {
        /// The engine's id.
        handle: String,
        /// Which run: its start, in milliseconds since 1970.
        run: Option<i64>,
        /// Whether it goes on.
        running: bool,
    },
    /// It was removed.
    Gone {
        /// The engine's id.
        handle: String,
    },
    /// Every container that there is was told: cursors of others are of no use any more.
    Complete,
}

/// A container whose log is read.
#[derive(Debug, Clone)]
pub struct Container {
    /// The engine's id.
    pub handle: String,
    /// The replica: who wrote the lines.
    pub replica: ReplicaId,
    /// Whose log they go to.
    pub instance: InstanceId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Where the engine writes; `None` when it writes nowhere.
    pub path: Option<PathBuf>,
    /// Its newest run: the start, in milliseconds since 1970; `None` before the first.
    pub run: Option<i64>,
    /// Whether that goes on.
    pub running: bool,
}

/// A container whose log was read to its end, and after which run: another may have begun since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// The engine's id.
    pub handle: String,
    /// The run's start, in milliseconds since 1970; `None` when it never ran.
    pub run: Option<i64>,
}

struct Tracked {
    container: Container,
    name: String,
    source: Option<Source>,
    due: Instant,
    last_line: Instant,
    drained: bool,
}

struct OpenLog {
    writer: Writer,
    used: Instant,
}

/// The state of the thread.
pub struct Collector {
    logs: PathBuf,
    limits: Limits,
    tracked: BTreeMap<String, Tracked>,
    open: HashMap<InstanceId, OpenLog>,
    complete: bool,
    /// Working space for reading.
    buffer: Vec<u8>,
    /// Told when a container's log was read to its end after it had ended.
    drained: Box<dyn Fn(Drained) + Send>,
}

impl Collector {
    /// Logs go below `logs`.
    pub fn new(logs: PathBuf, limits: Limits, drained: Box<dyn Fn(Drained) + Send>) -> Self {
        Self {
            logs,
            limits,
            tracked: BTreeMap::new(),
            open: HashMap::new(),
            complete: false,
            buffer: Vec::new(),
            drained,
        }
    }

    /// Runs until nobody can tell it anything any more.
    pub fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let now = Instant::now();
            let due = self
                .tracked
                .values()
                .filter(|tracked| tracked.is_read())
                .map(|tracked| tracked.due)
                .min();
            let wait = due.map_or(Duration::from_millis(LOOK_MS.1), |due| {
                due.saturating_duration_since(now)
            });
            match commands.recv_timeout(wait.min(Duration::from_millis(LOOK_MS.1))) {
                Ok(command) => {
                    self.command(command);
                    while let Ok(command) = commands.try_recv() {
                        self.command(command);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look(Instant::now());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Add(container) => {
                let now = Instant::now();
                let tracked = Tracked {
                    name: container.replica.to_string(),
                    source: None,
                    due: now,
                    last_line: now,
                    drained: false,
                    container,
                };
                self.tracked.insert(tracked.container.handle.clone(), tracked);
            }
            Command::Run { handle, run, running } => {
                if let Some(tracked) = self.tracked.get_mut(&handle) {
                    tracked.container.run = run;
                    tracked.container.running = running;
                    tracked.drained = false;
                    tracked.due = Instant::now();
                }
            }
            Command::Gone { handle } => self.forget(&handle),
            Command::Complete => self.complete = true,
        }
    }

    /// Reads what is due, each container in turn. What is due soon is read with it, so that many quiet containers
    /// wake the thread as seldom as one.
    fn look(&mut self, now: Instant) {
        let soon = now + Duration::from_millis(LOOK_MS.0);
        let due: Vec<String> = self
            .tracked
            .values()
            .filter(|tracked| tracked.is_read() && tracked.due <= soon)
            .map(|tracked| tracked.container.handle.clone())
            .collect();
        for handle in due {
            let Some(mut tracked) = self.tracked.remove(&handle) else {
                continue;
            };
            if let Err(error) = self.turn(&mut tracked) {
                tracing::warn!(container = handle, "lines are not written and wait: {error}");
                tracked.source = None;
                tracked.due = Instant::now() + Duration::from_millis(FAILURE_PAUSE_MS);
            }
            self.tracked.insert(handle, tracked);
        }
        let idle = Duration::from_millis(WRITER_IDLE_MS);
        self.open.retain(|_, log| log.used.elapsed() < idle);
    }

    fn turn(&mut self, tracked: &mut Tracked) -> Result<(), Failure> {
        let Some(path) = tracked.container.path.clone() else {
            if !tracked.container.running {
                self.tell_drained(tracked);
            }
            return Ok(());
        };
        if tracked.source.is_none() {
            let cursor = self.cursor(&tracked.container)?;
            tracked.source = Some(Source::new(path, cursor));
        }
        for _ in 0..READS_A_TURN {
            let Some(source) = &mut tracked.source else { break };
            if tracked.container.running && !source.has_news() {
                break;
            }
            let mut batch = source.read(&mut self.buffer)?;
            let ended = batch.at_end && !tracked.container.running;
            if ended {
                source.finish(&mut batch);
            }
            if !batch.lines.is_empty() {
                tracked.last_line = Instant::now();
            }
            if !batch.lines.is_empty() || batch.gap || batch.moved {
                let cursor = serde_json::to_vec(source.cursor())?;
                self.append(tracked, &batch, Some(&cursor))?;
            }
            if ended {
                self.tell_drained(tracked);
            }
            if batch.at_end {
                break;
            }
        }
        let quiet = tracked.last_line.elapsed() / LOOK_PART;
        let pause = quiet.clamp(Duration::from_millis(LOOK_MS.0), Duration::from_millis(LOOK_MS.1));
        let more = tracked.source.as_ref().is_some_and(Source::has_news);
        tracked.due = Instant::now() + if more { Duration::ZERO } else { pause };
        Ok(())
    }

    fn tell_drained(&self, tracked: &mut Tracked) {
        tracked.drained = true;
        (self.drained)(Drained {
            handle: tracked.container.handle.clone(),
            run: tracked.container.run,
        });
    }

    /// Reads the rest of a container that was removed, from the file that is still open, and forgets its cursor.
    fn forget(&mut self, handle: &str) {
        let Some(mut tracked) = self.tracked.remove(handle) else {
            return;
        };
        if let Err(error) = self.read_rest(&mut tracked) {
            tracing::warn!(
                container = handle,
                "the last lines of a removed container are lost: {error}"
            );
        }
    }

    fn read_rest(&mut self, tracked: &mut Tracked) -> Result<(), Failure> {
        let mut last = Batch::default();
        if let Some(mut source) = tracked.source.take() {
            loop {
                last = source.read(&mut self.buffer)?;
                if last.at_end {
                    break;
                }
                let cursor = serde_json::to_vec(source.cursor())?;
                self.append(tracked, &last, Some(&cursor))?;
            }
            source.finish(&mut last);
        }
        self.append(tracked, &last, None)
    }

    fn append(&mut self, tracked: &Tracked, batch: &Batch, cursor: Option<&[u8]>) -> Result<(), Failure> {
        let Container {
            handle,
            instance,
            deployment,
            ..
        } = &tracked.container;
        let new = |at_ms, stream, text, continues| NewLine {
            at_ms,
            stream,
            source: &tracked.name,
            deployment: Some(*deployment),
            text,
            continues,
        };
        let mut lines = Vec::with_capacity(batch.lines.len() + 1);
        if batch.gap {
            let at_ms = batch.lines.first().map_or_else(now_ms, |line| line.at_ms);
            lines.push(new(at_ms, Stream::Stderr, GAP, false));
        }
        lines.extend(
            batch
                .lines
                .iter()
                .map(|line| new(line.at_ms, line.stream, line.text.as_str(), line.continues)),
        );
        let complete = self.complete;
        // Who has its turn is not among those that are tracked.
        let (all, own) = (&self.tracked, handle.as_str());
        let is_known = |key: &str| key == own || all.contains_key(key);
        let log = open(&mut self.open, &self.logs, self.limits, *instance)?;
        let stale: Vec<String> = log
            .writer
            .cursors()
            .map(|(key, _)| key)
            .filter(|key| complete && !is_known(key))
            .map(str::to_owned)
            .collect();
        let mut changes: Vec<CursorChange<'_>> = stale
            .iter()
            .map(|key| CursorChange { key, value: None })
            .collect();
        if cursor.is_some() || log.writer.cursor(handle).is_some() {
            changes.push(CursorChange {
                key: handle,
                value: cursor,
            });
        }
        if lines.is_empty() && changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = log.writer.append(&lines, &changes) {
            // Opened again, it is what is on the disk.
            self.open.remove(instance);
            return Err(error.into());
        }
        Ok(())
    }

    fn cursor(&mut self, container: &Container) -> Result<Option<Cursor>, Failure> {
        let log = open(&mut self.open, &self.logs, self.limits, container.instance)?;
        let bytes = log.writer.cursor(&container.handle);
        Ok(bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()))
    }
}

impl Tracked {
    /// Whether there is anything to wait for.
    const fn is_read(&self) -> bool {
        self.container.running || !self.drained
    }
}

fn open<'a>(
    logs: &'a mut HashMap<InstanceId, OpenLog>,
    directory: &std::path::Path,
    limits: Limits,
    instance: InstanceId,
) -> Result<&'a mut OpenLog, Error> {
    use std::collections::hash_map::Entry;
    let log = match logs.entry(instance) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(OpenLog {
            writer: Writer::open(&place::of_instance(directory, instance), limits)?,
            used: Instant::now(),
        }),
    };
    log.used = Instant::now();
    Ok(log)
}

/// Why lines wait.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the engine's log cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("{0}")]
    Write(#[from] Error),
    #[error("the cursor cannot be written: {0}")]
    Cursor(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests;
