//! Logs as part of a test: an unexpected warning or error fails it.
//!
//! The capture belongs to the thread that made it. `#[tokio::test]` runs every task on that thread; a test with a
//! multi-threaded runtime sees what its own thread logs only.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// Captures the logs of this thread until it is dropped; then panics if a warning or error was not allowed.
#[must_use = "the capture ends when this is dropped"]
pub struct Logs {
    lines: Arc<Mutex<Vec<Line>>>,
    allowed: Vec<String>,
    _guard: DefaultGuard,
}

/// One event: its level, target, message and fields in one text.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// `TARGET: MESSAGE FIELD=VALUE …`.
    pub text: String,
}

struct Capture(Arc<Mutex<Vec<Line>>>);

/// Begins to capture what this thread logs, from `DEBUG` upwards.
pub fn capture() -> Logs {
    let lines = Arc::default();
    let subscriber = tracing_subscriber::registry().with(Capture(Arc::clone(&lines)));
    let guard = tracing::subscriber::set_default(subscriber);
    Logs {
        lines,
        allowed: Vec::new(),
        _guard: guard,
    }
}

impl Logs {
    /// Warnings and errors with this text in them do not fail the test.
    pub fn allow(&mut self, text: impl Into<String>) {
        self.allowed.push(text.into());
    }

    /// What was logged so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a line has this text in it.
    pub fn contains(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.text.contains(text))
    }

    fn unexpected(&self) -> Vec<Line> {
        let is_allowed = |line: &Line| self.allowed.iter().any(|text| line.text.contains(text));
        self.lines()
            .into_iter()
            .filter(|line| line.level <= Level::WARN && !is_allowed(line))
            .collect()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let unexpected = self.unexpected();
        if !unexpected.is_empty() && !std::thread::panicking() {
            panic!("unexpected in the log: {unexpected:#?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::DEBUG {
            return;
        }
        let mut text = format!("{}:", event.metadata().target());
        event.record(&mut Fields(&mut text));
        // Shown by the test harness when the test fails.
        println!("{level} {text}");
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Line { level, text });
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_warning_fails_the_test() {
        let outcome = std::panic::catch_unwind(|| {
            let mut logs = capture();
            logs.allow("disk");
            tracing::warn!("disk is slow");
            tracing::info!(count = 3, "fine");
            assert!(logs.contains("fine count=3"));
            tracing::warn!("nobody reckoned with this");
        });
        let message = *outcome.unwrap_err().downcast::<String>().unwrap();
        assert!(
            message.contains("nobody reckoned") && !message.contains("disk"),
            "{message}"
        );
    }
}
