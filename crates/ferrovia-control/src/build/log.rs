//! A build's lines on their way to its log on disk.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ferrovia_build::BuildLog;
use ferrovia_core::id::BuildId;
use ferrovia_log::{Limits, NewLine, Order, Query, Reader, Stream, Writer, place};
use ferrovia_store::Clock;

/// Size of a build's log on disk, in bytes: past it the oldest lines go.
const BUDGET_BYTES: u64 = 16 * 1024 * 1024;
/// Lines that a report carries.
const LAST_LINES: usize = 50;
/// Longest line in a report, in bytes.
const LINE_BYTES: usize = 1_000;

/// Writes the lines of one build as they come: each is a write of its own, so that who follows sees it at once.
pub(super) struct LogWriter {
    writer: Mutex<Writer>,
    began_ms: i64,
    clock: Clock,
}

impl LogWriter {
    /// Opens the log of a build. One that was begun by a pass that died goes on.
    pub(super) async fn open(directory: PathBuf, clock: Clock) -> Result<Self, ferrovia_log::Error> {
        let limits = Limits {
            budget_bytes: BUDGET_BYTES,
            ..Limits::default()
        };
        let opened = tokio::task::spawn_blocking(move || Writer::open(&directory, limits)).await;
        let writer = match opened {
            Ok(opened) => opened?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        let log = Self {
            writer: Mutex::new(writer),
            began_ms: clock.now_ms(),
            clock,
        };
        if log.lock().last_seq() > 0 {
            log.line(
                None,
                0,
                "the build begins again: it was interrupted, or what it needs did not answer",
            );
        }
        Ok(log)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BuildLog for LogWriter {
    fn line(&self, step: Option<&str>, at_ms: u64, text: &str) {
        let at_ms = self
            .began_ms
            .saturating_add_unsigned(at_ms)
            .min(self.clock.now_ms());
        let line = NewLine {
            at_ms,
            stream: Stream::Stdout,
            source: step.unwrap_or_default(),
            deployment: None,
            text,
            continues: false,
        };
        if let Err(error) = self.lock().append(&[line], &[]) {
            // A full disk must not fail a build that is otherwise well.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a line of a build was lost"
            );
        }
    }
}

/// The last lines of a build's log, for its report.
pub(super) async fn last_lines(logs: &Path, build: BuildId) -> Vec<String> {
    let directory = place::of_build(logs, build);
    let lines = tokio::task::spawn_blocking(move || {
        Reader::new(directory).read(&Query {
            limit: LAST_LINES,
            order: Order::Newest,
            ..Query::default()
        })
    })
    .await;
    let Ok(Ok(lines)) = lines else {
        return Vec::new();
    };
    lines
        .into_iter()
        .map(|mut line| {
            line.text.truncate(line.text.floor_char_boundary(LINE_BYTES));
            line.text
        })
        .collect()
}
