//! From `buildctl --progress=rawjson` to lines for people: pure.
//!
//! BuildKit reports vertices of its graph; people know steps of their Dockerfile. What BuildKit does for itself is left
//! out unless it fails; mounts and digests are taken out of names; bytes that were pulled are summed up.

mod text;

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

pub use self::text::step_name;
use self::text::{Lines, bytes_for_people, duration_for_people};
use super::secrets::Mask;

/// Lines of a step that are kept for the report of its failure.
pub const TAIL_LINES: usize = 50;

/// A line of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The step that it belongs to.
    pub step: Option<String>,
    /// What it says.
    pub text: String,
}

/// The step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStep {
    /// Its name for people; none for what BuildKit does for itself.
    pub step: Option<String>,
    /// BuildKit's own words.
    pub error: String,
    /// The last lines that it wrote.
    pub log: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    vertexes: Vec<WireVertex>,
    #[serde(default)]
    statuses: Vec<WireStatus>,
    #[serde(default)]
    logs: Vec<WireLog>,
    #[serde(default)]
    warnings: Vec<WireWarning>,
}

#[derive(Deserialize)]
struct WireVertex {
    digest: String,
    #[serde(default)]
    name: String,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct WireStatus {
    id: String,
    #[serde(default)]
    vertex: String,
    #[serde(default)]
    current: u64,
    #[serde(default)]
    total: u64,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
}

#[derive(Deserialize)]
struct WireLog {
    #[serde(default)]
    vertex: String,
    #[serde(default)]
    stream: u8,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct WireWarning {
    #[serde(default)]
    short: String,
}

#[derive(Default)]
struct Vertex {
    step: Option<String>,
    began: bool,
    ended: bool,
    streams: HashMap<u8, Lines>,
    tail: VecDeque<String>,
    /// Bytes of each layer that is fetched.
    fetched: HashMap<String, u64>,
    /// Sub-steps that were told: `pushing layers`.
    told: Vec<String>,
}

/// What is known of a running build.
pub struct Progress {
    mask: Mask,
    vertices: HashMap<String, Vertex>,
    failed: Option<FailedStep>,
    warned: Vec<String>,
}

impl Progress {
    /// Of a build whose log must not show what `mask` hides.
    pub fn new(mask: Mask) -> Self {
        Self {
            mask,
            vertices: HashMap::new(),
            failed: None,
            warned: Vec::new(),
        }
    }

    /// Takes a line of `buildctl`; `None` when it is not progress but words of its own.
    pub fn feed(&mut self, json: &str) -> Option<Vec<Line>> {
        let status: Status = serde_json::from_str(json).ok()?;
        let mut lines = Vec::new();
        for vertex in status.vertexes {
            self.vertex(vertex, &mut lines);
        }
        for status in status.statuses {
            self.status(status, &mut lines);
        }
        for log in status.logs {
            self.log(&log, &mut lines);
        }
        for warning in status.warnings {
            let text = decode(&warning.short);
            if !self.warned.contains(&text) {
                lines.push(self.line(None, format!("warning: {text}")));
                self.warned.push(text);
            }
        }
        Some(lines)
    }

    /// The step that runs now, when one does.
    pub fn current(&self) -> Option<&str> {
        self.vertices
            .values()
            .find(|vertex| vertex.began && !vertex.ended && vertex.step.is_some())?
            .step
            .as_deref()
    }

    /// A line without what must not be shown.
    pub(super) fn masked(&self, line: String) -> String {
        self.mask.apply(line)
    }

    /// The step that failed first, when one did.
    pub const fn failed(&self) -> Option<&FailedStep> {
        self.failed.as_ref()
    }

    fn line(&self, step: Option<String>, text: String) -> Line {
        Line {
            step,
            text: self.mask.apply(text),
        }
    }

    fn vertex(&mut self, wire: WireVertex, lines: &mut Vec<Line>) {
        let vertex = self.vertices.entry(wire.digest.clone()).or_default();
        if !wire.name.is_empty() {
            vertex.step = step_name(&wire.name);
        }
        let step = vertex.step.clone();
        let mut said = Vec::new();
        // The push begins and ends several times; its parts are told instead.
        let is_push = step.as_deref() == Some(text::PUSH);
        if wire.started.is_some() && !vertex.began && !wire.cached && !is_push {
            vertex.began = true;
            said.push("started".to_owned());
        }
        if wire.completed.is_some() && !vertex.ended && step.is_some() && !is_push {
            vertex.ended = true;
            let rest: Vec<String> = vertex.streams.values_mut().filter_map(Lines::rest).collect();
            for text in rest {
                remember(&mut vertex.tail, &self.mask, &text);
                said.push(text);
            }
            said.push(ending(&wire, vertex));
        }
        if !wire.error.is_empty() && self.failed.is_none() && !is_cancellation(&wire.error) {
            self.failed = Some(FailedStep {
                step: step.clone(),
                error: wire.error,
                log: vertex.tail.iter().cloned().collect(),
            });
        }
        if step.is_some() {
            for text in said {
                let line = self.line(step.clone(), text);
                lines.push(line);
            }
        }
    }

    fn status(&mut self, wire: WireStatus, lines: &mut Vec<Line>) {
        let Some(vertex) = self.vertices.get_mut(&wire.vertex) else {
            return;
        };
        if wire.id.starts_with("sha256:") || wire.id.starts_with("https:") || wire.id.starts_with("http:") {
            vertex.fetched.insert(wire.id, wire.total.max(wire.current));
        } else if wire.completed.is_some()
            && (wire.id.starts_with("exporting layers") || wire.id.starts_with("pushing "))
            && let Some(step) = vertex.step.clone()
        {
            let text = wire.id.split(" with ").next().unwrap_or_default();
            let text = text.split(" for ").next().unwrap_or_default();
            if !vertex.told.iter().any(|told| told == text) {
                vertex.told.push(text.to_owned());
                let text = match took(wire.started, wire.completed) {
                    Some(took) => format!("{text} took {took}"),
                    None => text.to_owned(),
                };
                lines.push(self.line(Some(step), text));
            }
        }
    }

    fn log(&mut self, wire: &WireLog, lines: &mut Vec<Line>) {
        let Ok(data) = STANDARD.decode(&wire.data) else {
            return;
        };
        let vertex = self.vertices.entry(wire.vertex.clone()).or_default();
        let whole = vertex.streams.entry(wire.stream).or_default().push(&data);
        let step = vertex.step.clone();
        for text in &whole {
            remember(&mut vertex.tail, &self.mask, text);
        }
        for text in whole {
            lines.push(self.line(step.clone(), text));
        }
    }
}

fn remember(tail: &mut VecDeque<String>, mask: &Mask, text: &str) {
    if tail.len() == TAIL_LINES {
        tail.pop_front();
    }
    tail.push_back(mask.apply(text.to_owned()));
}

fn ending(wire: &WireVertex, vertex: &Vertex) -> String {
    if wire.cached {
        return "cached".to_owned();
    }
    if is_cancellation(&wire.error) {
        return "cancelled".to_owned();
    }
    let took = took(wire.started, wire.completed).unwrap_or_else(|| "0 ms".to_owned());
    let fetched: u64 = vertex.fetched.values().sum();
    match (wire.error.is_empty(), fetched) {
        (false, _) => format!("failed after {took}"),
        (true, 0) => format!("done in {took}"),
        (true, bytes) => format!("fetched {} in {took}", bytes_for_people(bytes)),
    }
}

fn took(started: Option<Timestamp>, completed: Option<Timestamp>) -> Option<String> {
    Some(duration_for_people(
        completed?.duration_since(started?).as_millis(),
    ))
}

fn is_cancellation(error: &str) -> bool {
    error.ends_with("context canceled")
}

fn decode(text: &str) -> String {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn texts(progress: &mut Progress, value: serde_json::Value) -> Vec<String> {
        let lines = progress.feed(&value.to_string()).unwrap();
        lines
            .into_iter()
            .map(|line| format!("{}: {}", line.step.unwrap_or_default(), line.text))
            .collect()
    }

    #[test]
    fn a_step_begins_speaks_and_ends() {
        let mut progress = Progress::new(Mask::new(&[ferrovia_core::secret::Secret::new("hunter22")]));
        let name = "[build 2/4] RUN --mount=type=cache,target=/root/.npm npm ci";
        let began = texts(
            &mut progress,
            json!({"vertexes": [{"digest": "a", "name": name, "started": "2026-01-01T00:00:00Z"}]}),
        );
        assert_eq!(began, ["[build 2/4] RUN npm ci: started"]);
        let spoke = texts(
            &mut progress,
            json!({"logs": [
                {"vertex": "a", "stream": 1, "data": encoded("one\r\n\u{1b}[32mtwo\u{1b}[0m\nhal")},
                {"vertex": "a", "stream": 2, "data": encoded("err hunter22\n")},
                {"vertex": "a", "stream": 1, "data": encoded("f\n10%\r20%\rdone")},
            ]}),
        );
        let step = "[build 2/4] RUN npm ci";
        assert_eq!(
            spoke,
            ["one", "two", "err ***", "half"].map(|text| format!("{step}: {text}"))
        );
        let ended = texts(
            &mut progress,
            json!({"vertexes": [{"digest": "a", "name": name, "started": "2026-01-01T00:00:00Z",
                                 "completed": "2026-01-01T00:00:02.5Z"}]}),
        );
        assert_eq!(
            ended,
            ["done", "done in 2.5 s"].map(|text| format!("{step}: {text}"))
        );
    }

    #[test]
    fn what_was_there_is_cached_and_the_daemons_own_work_is_quiet() {
        let mut progress = Progress::new(Mask::default());
        let lines = texts(
            &mut progress,
            json!({"vertexes": [
                {"digest": "i", "name": "[internal] load build context", "started": "2026-01-01T00:00:00Z",
                 "completed": "2026-01-01T00:00:01Z"},
                {"digest": "c", "name": "[2/3] WORKDIR /app", "started": "2026-01-01T00:00:00Z",
                 "completed": "2026-01-01T00:00:00Z", "cached": true},
            ]}),
        );
        assert_eq!(lines, ["[2/3] WORKDIR /app: cached"]);
        assert!(progress.feed("error: failed to solve").is_none());
    }

    #[test]
    fn pulls_are_summed_up() {
        let mut progress = Progress::new(Mask::default());
        let vertex = json!({"digest": "f", "name": "[1/3] FROM docker.io/library/node:20@sha256:abc",
                            "started": "2026-01-01T00:00:00Z"});
        texts(&mut progress, json!({"vertexes": [vertex]}));
        texts(
            &mut progress,
            json!({"statuses": [
                {"id": "sha256:1", "vertex": "f", "current": 1_000_000, "total": 40_000_000},
                {"id": "sha256:2", "vertex": "f", "current": 5_200_000, "total": 5_200_000},
                {"id": "extracting sha256:1", "vertex": "f", "current": 1},
            ]}),
        );
        let mut done = vertex;
        done["completed"] = json!("2026-01-01T00:00:03Z");
        let lines = texts(&mut progress, json!({"vertexes": [done]}));
        assert_eq!(lines, ["[1/3] FROM node:20: fetched 45.2 MB in 3.0 s"]);
    }

    #[test]
    fn the_first_failure_is_kept_with_its_last_lines() {
        let mut progress = Progress::new(Mask::default());
        let vertex = json!({"digest": "r", "name": "[3/3] RUN make", "started": "2026-01-01T00:00:00Z"});
        texts(&mut progress, json!({"vertexes": [vertex]}));
        let many: String = (0..80).map(|n| format!("line {n}\n")).collect();
        texts(
            &mut progress,
            json!({"logs": [{"vertex": "r", "stream": 1, "data": encoded(&many)}]}),
        );
        let mut failed = vertex.clone();
        failed["completed"] = json!("2026-01-01T00:00:03Z");
        failed["error"] = json!("process \"/bin/sh -c make\" did not complete successfully: exit code: 2");
        let other = json!({"digest": "o", "name": "[2/2] RUN x", "started": "2026-01-01T00:00:00Z",
                           "completed": "2026-01-01T00:00:03Z", "error": "context canceled"});
        let lines = texts(&mut progress, json!({"vertexes": [other, failed]}));
        assert_eq!(lines.last().unwrap(), "[3/3] RUN make: failed after 3.0 s");
        let failed = progress.failed().unwrap();
        assert_eq!(failed.step.as_deref(), Some("[3/3] RUN make"));
        assert_eq!(
            (failed.log.len(), failed.log[0].as_str()),
            (TAIL_LINES, "line 30")
        );
    }
}
