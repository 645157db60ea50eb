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
    /// It runs, or does not.
    Running {
        /// The engine's id.
        handle: String,
        /// Whether it does.
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
    /// Whether it runs.
    pub running: bool,
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
    /// Told when a container's log was read to its end after it had ended.
    drained: Box<dyn Fn(&str) + Send>,
}

impl Collector {
    /// Logs go below `logs`.
    pub fn new(logs: PathBuf, limits: Limits, drained: Box<dyn Fn(&str) + Send>) -> Self {
        Self {
            logs,
            limits,
            tracked: BTreeMap::new(),
            open: HashMap::new(),
            complete: false,
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
            Command::Running { handle, running } => {
                if let Some(tracked) = self.tracked.get_mut(&handle) {
                    tracked.container.running = running;
                    tracked.drained &= !running;
                    tracked.due = Instant::now();
                }
            }
            Command::Gone { handle } => self.forget(&handle),
            Command::Complete => self.complete = true,
        }
    }

    /// Reads what is due, each container in turn.
    fn look(&mut self, now: Instant) {
        let due: Vec<String> = self
            .tracked
            .values()
            .filter(|tracked| tracked.is_read() && tracked.due <= now)
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
            let mut batch = source.read()?;
            let ended = batch.at_end && !tracked.container.running;
            if ended {
                source.finish(&mut batch);
            }
            if !batch.lines.is_empty() || batch.gap {
                tracked.last_line = Instant::now();
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
        (self.drained)(&tracked.container.handle);
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
                last = source.read()?;
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
        let known: Vec<&str> = self
            .tracked
            .keys()
            .map(String::as_str)
            .chain([handle.as_str()])
            .collect();
        let log = open(&mut self.open, &self.logs, self.limits, *instance)?;
        let stale: Vec<String> = log
            .writer
            .cursors()
            .map(|(key, _)| key)
            .filter(|key| complete && !known.contains(key))
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
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use ferrovia_log::{Query, Reader};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const ROTATED: usize = 3;
    const LIMITS: Limits = Limits {
        segment_bytes: 3_000,
        budget_bytes: 100_000_000,
    };

    /// Writes as Docker does.
    struct Docker {
        path: PathBuf,
        file: File,
        next: u64,
    }

    impl Docker {
        fn new(directory: &Path) -> Self {
            let path = directory.join("c-json.log");
            Self {
                file: File::create(&path).unwrap(),
                path,
                next: 1,
            }
        }

        fn piece(&mut self, stream: &str, text: &str) {
            let line = serde_json::json!({ "log": text, "stream": stream, "time": "2026-01-01T00:00:00.5Z" });
            self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
        }

        fn lines(&mut self, count: u64, length: usize) {
            for _ in 0..count {
                let text = format!("{} {}\n", self.next, "x".repeat(length));
                self.next += 1;
                self.piece("stdout", &text);
            }
        }

        fn rotate(&mut self) {
            let rotated = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
            for number in (1..ROTATED).rev() {
                let _ = std::fs::rename(rotated(number), rotated(number + 1));
            }
            std::fs::rename(&self.path, rotated(1)).unwrap();
            self.file = File::create(&self.path).unwrap();
        }
    }

    struct Rig {
        directory: tempfile::TempDir,
        drained: Arc<Mutex<u32>>,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
                drained: Arc::default(),
            }
        }

        fn container(&self, docker: &Docker, running: bool) -> Container {
            Container {
                handle: "c".to_owned(),
                replica: ReplicaId::from_uuid(Uuid::from_u128(1)),
                instance: InstanceId::from_uuid(Uuid::from_u128(2)),
                deployment: DeploymentId::from_uuid(Uuid::from_u128(3)),
                path: Some(docker.path.clone()),
                running,
            }
        }

        fn collector(&self, docker: &Docker, running: bool) -> Collector {
            let drained = Arc::clone(&self.drained);
            let tell = move |_: &str| *drained.lock().unwrap() += 1;
            let mut collector = Collector::new(self.directory.path().join("logs"), LIMITS, Box::new(tell));
            collector.command(Command::Add(self.container(docker, running)));
            collector.command(Command::Complete);
            collector
        }

        fn texts(&self) -> Vec<(String, bool)> {
            let log = place::of_instance(
                &self.directory.path().join("logs"),
                InstanceId::from_uuid(Uuid::from_u128(2)),
            );
            let query = Query {
                limit: usize::MAX,
                ..Query::default()
            };
            let lines = Reader::new(log).read(&query).unwrap();
            lines
                .into_iter()
                .map(|line| (line.text, line.continues))
                .collect()
        }

        fn numbers(&self) -> Vec<u64> {
            let texts = self.texts();
            texts
                .iter()
                .map(|(text, _)| text.split(' ').next().unwrap().parse().unwrap_or(0))
                .collect()
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, usize),
        Rotate,
        Look,
        Restart,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn each_line_once_over_rotations_and_restarts(ops in proptest::collection::vec(prop_oneof![
            4 => (0..40_u64, 0..200_usize).prop_map(|(count, length)| Op::Write(count, length)),
            1 => Just(Op::Rotate),
            3 => Just(Op::Look),
            1 => Just(Op::Restart),
        ], 1..60)) {
            let rig = Rig::new();
            let mut docker = Docker::new(rig.directory.path());
            let mut collector = rig.collector(&docker, true);
            let mut rotations = 0;
            for op in ops {
                match op {
                    Op::Write(count, length) => docker.lines(count, length),
                    // More would take lines away unread: that is another test.
                    Op::Rotate if rotations == ROTATED => {}
                    Op::Rotate => {
                        rotations += 1;
                        docker.rotate();
                    }
                    Op::Look => {
                        for _ in 0..=ROTATED {
                            collector.look(later());
                        }
                        rotations = 0;
                    }
                    Op::Restart => {
                        drop(collector);
                        collector = rig.collector(&docker, true);
                    }
                }
            }
            collector.command(Command::Running { handle: "c".to_owned(), running: false });
            while *rig.drained.lock().unwrap() == 0 {
                collector.look(later());
            }
            prop_assert_eq!(rig.numbers(), (1..docker.next).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_that_were_rotated_away_are_told() {
        let rig = Rig::new();
        let mut docker = Docker::new(rig.directory.path());
        let mut collector = rig.collector(&docker, true);
        docker.lines(2, 10);
        collector.look(later());
        drop(collector);
        for _ in 0..=ROTATED {
            docker.rotate();
            docker.lines(1, 10);
        }
        let mut collector = rig.collector(&docker, true);
        for _ in 0..=ROTATED {
            collector.look(later());
        }
        assert_eq!(rig.numbers(), [1, 2, 0, 3, 4, 5, 6]);
        assert_eq!(rig.texts()[2].0, GAP);
    }

    #[test]
    fn pieces_are_joined_over_a_restart_and_what_never_ends_is_flushed() {
        let rig = Rig::new();
        let mut docker = Docker::new(rig.directory.path());
        let mut collector = rig.collector(&docker, true);
        let piece = "a".repeat(16 * 1024);
        docker.piece("stdout", &piece);
        docker.piece("stderr", "between\n");
        collector.look(later());
        assert_eq!(rig.texts(), [("between".to_owned(), false)]);
        drop(collector);
        let mut collector = rig.collector(&docker, true);
        docker.piece("stdout", &piece);
        docker.piece("stdout", "end\n");
        docker.piece("stderr", "no newline");
        collector.look(later());
        assert_eq!(rig.texts()[1], (format!("{piece}{piece}end"), false));
        assert_eq!(rig.texts().len(), 2);
        collector.command(Command::Running {
            handle: "c".to_owned(),
            running: false,
        });
        collector.look(later());
        assert_eq!(rig.texts()[2], ("no newline".to_owned(), false));
        for _ in 0..6 {
            docker.piece("stdout", &piece);
        }
        collector.command(Command::Running {
            handle: "c".to_owned(),
            running: true,
        });
        collector.look(later());
        assert_eq!(rig.texts()[3], (piece.repeat(4), true));
    }

    #[test]
    fn a_removed_container_is_read_to_its_end_and_its_cursor_forgotten() {
        let rig = Rig::new();
        let mut docker = Docker::new(rig.directory.path());
        let mut collector = rig.collector(&docker, true);
        docker.lines(3, 10);
        collector.look(later());
        docker.lines(4, 10);
        std::fs::remove_file(&docker.path).unwrap();
        collector.command(Command::Gone {
            handle: "c".to_owned(),
        });
        assert_eq!(rig.numbers(), [1, 2, 3, 4, 5, 6, 7]);
        let log = collector.open.values().next().unwrap();
        assert_eq!(log.writer.cursors().count(), 0);
    }
}
