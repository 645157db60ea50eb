//! A build's lines for people: one line for a step, with its time, and everything that a failed step wrote.
//!
//! The builder tells of a step line by line, in words of its own: it starts, what runs writes, it ends. Who waits for
//! a URL wants to know how far it is. What an application writes may look like the builder's last word on a step; that
//! makes a line more, and none less.

use std::collections::VecDeque;

use ferrovia_api::log::LogLine;
use jiff::Timestamp;

use crate::printer::span;

/// Lines of a step that are kept until it ends.
const MAX_STEP_LINES: usize = 2_000;
/// Steps under way that are kept; more are not told apart.
const MAX_STEPS: usize = 64;
/// A step that never says that it ends is told whole when it wrote no more lines than this.
const SHORT_LINES: usize = 3;

/// The steps of a build as they are told.
#[derive(Debug, Default)]
pub struct Steps {
    verbose: bool,
    open: Vec<Step>,
    failed: bool,
}

#[derive(Debug)]
struct Step {
    name: String,
    began: Timestamp,
    last: Timestamp,
    lines: VecDeque<String>,
    dropped: usize,
}

/// How a step ends, in the builder's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Good,
    Failed,
}

impl Steps {
    /// Nothing was told yet. `verbose`: every line is.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            ..Self::default()
        }
    }

    /// What a line gives to tell.
    pub fn take(&mut self, line: &LogLine) -> Vec<String> {
        if line.source.is_empty() {
            return vec![format!("  {}", line.text)];
        }
        if self.verbose {
            return vec![said(&line.source, &line.text)];
        }
        let Some(end) = end_of(&line.text) else {
            return self.keep(line);
        };
        let at = self.open.iter().position(|step| step.name == line.source);
        let ended = at.map(|at| self.open.remove(at));
        let mut told = Vec::new();
        if end == End::Failed {
            self.failed = true;
            told.extend(ended.iter().flat_map(Step::whole));
        }
        // Steps of the platform's own do not say how long they took.
        let text = match (line.text.as_str(), &ended) {
            (text @ ("made" | "they hold"), Some(step)) => {
                format!("{text} in {}", between(step.began, line.at))
            }
            (text, _) => text.to_owned(),
        };
        told.push(said(&line.source, &text));
        told
    }

    fn keep(&mut self, line: &LogLine) -> Vec<String> {
        let mut told = Vec::new();
        let at = match self.open.iter().position(|step| step.name == line.source) {
            Some(at) => at,
            None => {
                if self.open.len() == MAX_STEPS {
                    told.push(self.open.remove(0).summary());
                }
                self.open.push(Step {
                    name: line.source.clone(),
                    began: line.at,
                    last: line.at,
                    lines: VecDeque::new(),
                    dropped: 0,
                });
                self.open.len() - 1
            }
        };
        if let Some(step) = self.open.get_mut(at) {
            step.last = line.at;
            if step.lines.len() == MAX_STEP_LINES {
                step.lines.pop_front();
                step.dropped += 1;
            }
            if !(line.text == "started" && step.lines.is_empty()) {
                step.lines.push_back(line.text.clone());
            }
        }
        told
    }

    /// The build has ended: what is left to tell.
    pub fn end(&mut self, failed: bool) -> Vec<String> {
        let mut open = std::mem::take(&mut self.open);
        // Nothing said which step failed: it is the one that wrote last.
        let culprit = match failed && !self.failed {
            true => open
                .iter()
                .enumerate()
                .max_by_key(|(_, step)| step.last)
                .map(|(at, _)| at),
            false => None,
        };
        let whole = culprit.map(|at| open.remove(at));
        let mut told: Vec<String> = open.iter().map(Step::summary).collect();
        if let Some(step) = whole {
            self.failed = true;
            told.extend(step.whole());
        }
        told
    }

    /// Whether what the failed step wrote was told.
    pub const fn told_failure(&self) -> bool {
        self.failed || self.verbose
    }

    /// The step that runs, as far as is known.
    pub fn current(&self) -> Option<&str> {
        self.open
            .iter()
            .max_by_key(|step| step.last)
            .map(|step| step.name.as_str())
    }
}

impl Step {
    fn whole(&self) -> Vec<String> {
        let mut told = Vec::with_capacity(self.lines.len() + 1);
        if self.dropped > 0 {
            told.push(said(
                &self.name,
                &format!("({} lines before these)", self.dropped),
            ));
        }
        told.extend(self.lines.iter().map(|text| said(&self.name, text)));
        told
    }

    fn summary(&self) -> String {
        let count = self.lines.len() + self.dropped;
        if count <= SHORT_LINES {
            let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
            return said(&self.name, &lines.join(", "));
        }
        said(
            &self.name,
            &format!("{count} lines in {}", between(self.began, self.last)),
        )
    }
}

fn between(from: Timestamp, to: Timestamp) -> String {
    span(u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0))
}

fn said(step: &str, text: &str) -> String {
    format!("  {step} | {text}")
}

fn end_of(text: &str) -> Option<End> {
    match text {
        "cached" | "cancelled" | "made" | "they hold" => Some(End::Good),
        _ if text.starts_with("done in ") => Some(End::Good),
        _ if text.starts_with("fetched ") && !text.starts_with("fetched from ") => Some(End::Good),
        _ if text.starts_with("failed after ") => Some(End::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_api::log::LogStream;

    use super::*;

    fn line(at_ms: i64, source: &str, text: &str) -> LogLine {
        LogLine {
            cursor: at_ms.to_string(),
            at: Timestamp::from_millisecond(at_ms).unwrap(),
            stream: LogStream::Stdout,
            source: source.to_owned(),
            deployment_id: None,
            text: text.to_owned(),
            continues: false,
        }
    }

    fn all(verbose: bool, failed: bool, lines: &[(i64, &str, &str)]) -> Vec<String> {
        let mut steps = Steps::new(verbose);
        let mut told: Vec<String> = lines
            .iter()
            .flat_map(|(at_ms, source, text)| steps.take(&line(*at_ms, source, text)))
            .collect();
        told.extend(steps.end(failed));
        told
    }

    const BUILD: [(i64, &str, &str); 13] = [
        (0, "", "builder: auto, node"),
        (1, "source", "5 files"),
        (2, "base node-22", "made from Debian packages, once"),
        (3, "base node-22", "Get:1 a"),
        (4, "base node-22", "Get:2 b"),
        (5, "base node-22", "Get:3 c"),
        (6, "base node-22", "made"),
        (7, "RUN npm ci", "started"),
        (8, "RUN npm ci", "added 68 packages"),
        (9, "RUN npm ci", "done in 3.2 s"),
        (10, "COPY . .", "cached"),
        (11, "push", "exporting layers took 469 ms"),
        (12, "push", "pushing layers took 207 ms"),
    ];

    #[test]
    fn a_step_is_a_line() {
        assert_eq!(
            all(false, false, &BUILD),
            [
                "  builder: auto, node",
                "  base node-22 | made in 4 ms",
                "  RUN npm ci | done in 3.2 s",
                "  COPY . . | cached",
                "  source | 5 files",
                "  push | exporting layers took 469 ms, pushing layers took 207 ms",
            ]
        );
        assert_eq!(all(true, false, &BUILD).len(), BUILD.len());
    }

    #[test]
    fn a_failed_step_is_told_whole() {
        let lines = [
            (0, "RUN a", "started"),
            (1, "RUN b", "started"),
            (2, "RUN b", "fine"),
            (3, "RUN a", "npm error"),
            (4, "RUN a", "failed after 3 ms"),
        ];
        assert_eq!(
            all(false, true, &lines),
            [
                "  RUN a | npm error",
                "  RUN a | failed after 3 ms",
                "  RUN b | fine"
            ]
        );
        // Cut off: the last one that wrote.
        assert_eq!(
            all(false, true, &lines[..4]),
            ["  RUN b | fine", "  RUN a | npm error"]
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<(i64, &str, &str)> = (0..2_500).map(|n| (n, "RUN a", "x")).collect();
        assert_eq!(all(false, false, &many), ["  RUN a | 2500 lines in 2.4 s"]);
        let whole = all(false, true, &many);
        assert_eq!(whole.len(), MAX_STEP_LINES + 1);
        assert_eq!(whole[0], "  RUN a | (500 lines before these)");
    }
}
