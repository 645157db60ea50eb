//! Says what happens, into a build's log, with the step and the time since the build began.

use std::time::Instant;

use crate::BuildLog;

/// Speaks into one build's log.
#[derive(Clone)]
pub struct Narrator<'a> {
    log: &'a dyn BuildLog,
    began: Instant,
    step: Option<String>,
}

impl<'a> Narrator<'a> {
    /// Of a build that begins now.
    pub fn new(log: &'a dyn BuildLog) -> Self {
        Self {
            log,
            began: Instant::now(),
            step: None,
        }
    }

    /// The same, inside a step.
    #[must_use]
    pub fn step(&self, step: impl Into<String>) -> Self {
        Self {
            step: Some(step.into()),
            ..self.clone()
        }
    }

    /// Says a line.
    pub fn say(&self, text: &str) {
        self.say_in(self.step.as_deref(), text);
    }

    /// Says a line in another step.
    pub fn say_in(&self, step: Option<&str>, text: &str) {
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.log.line(step, at_ms, text);
    }
}
