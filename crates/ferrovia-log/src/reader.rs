//! Reading back: a time range, a text filter, a limit, from either end.
//!
//! Whole segments are skipped by their names. Read backwards, a segment is decoded from its start while only the
//! newest matches are kept, so that memory is bounded by the limit and not by the log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ferrovia_core::id::DeploymentId;

use crate::Line;
use crate::error::Error;
use crate::follow::Follower;
use crate::segment::{self, Frames, Segment};

/// Most text that one read returns, in bytes: past it the result ends early, like a limit.
const MAX_RESULT_BYTES: usize = 16 * 1024 * 1024;

/// Which end of the range the limit counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The oldest lines first.
    #[default]
    Oldest,
    /// The newest lines: the last `limit`, still in the order they were written.
    Newest,
}

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Written at or after, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Written before, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Numbers above this one.
    pub after: Option<u64>,
    /// Numbers below this one.
    pub before: Option<u64>,
    /// Text that must be in the line; letters of ASCII match in either case.
    pub contains: Option<String>,
    /// Only lines of this source.
    pub source: Option<String>,
    /// Only lines of this deployment.
    pub deployment: Option<DeploymentId>,
    /// Most lines.
    pub limit: usize,
    /// From which end.
    pub order: Order,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            from_ms: None,
            until_ms: None,
            after: None,
            before: None,
            contains: None,
            source: None,
            deployment: None,
            limit: 1000,
            order: Order::Oldest,
        }
    }
}

impl Query {
    /// Whether a line is wanted, the limit apart. For followers too.
    pub fn matches(&self, line: &Line) -> bool {
        self.from_ms.is_none_or(|from| line.at_ms >= from)
            && self.until_ms.is_none_or(|until| line.at_ms < until)
            && self.after.is_none_or(|after| line.seq > after)
            && self.before.is_none_or(|before| line.seq < before)
            && self.source.as_ref().is_none_or(|source| *source == line.source)
            && self
                .deployment
                .is_none_or(|deployment| line.deployment == Some(deployment))
            && self
                .contains
                .as_ref()
                .is_none_or(|text| contains(&line.text, text))
    }

    /// Whether a segment may hold wanted lines.
    fn may_match(&self, segment: &Segment) -> bool {
        segment.sealed.is_none_or(|span| {
            self.from_ms.is_none_or(|from| span.until_ms >= from)
                && self.until_ms.is_none_or(|until| span.from_ms < until)
                && self.after.is_none_or(|after| span.last_seq > after)
                && self.before.is_none_or(|before| span.first_seq < before)
        })
    }
}

/// Whether `text` is in `line`; letters of ASCII match in either case.
fn contains(line: &str, text: &str) -> bool {
    let (line, text) = (line.as_bytes(), text.as_bytes());
    text.is_empty()
        || line
            .windows(text.len())
            .any(|window| window.eq_ignore_ascii_case(text))
}

/// Reads one log. Calls block on the disk.
#[derive(Debug, Clone)]
pub struct Reader {
    directory: PathBuf,
}

impl Reader {
    /// A reader of the log in this directory, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Where the log is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The wanted lines, in the order they were written.
    ///
    /// # Errors
    /// [`Error::Io`]. A damaged segment is left out and said in the platform's own log.
    pub fn read(&self, query: &Query) -> Result<Vec<Line>, Error> {
        match query.order {
            Order::Oldest => self.read_oldest(query),
            Order::Newest => self.read_newest(query),
        }
    }

    /// Number of the newest line; 0 when there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn last_seq(&self) -> Result<u64, Error> {
        let newest = Query {
            limit: 1,
            order: Order::Newest,
            ..Query::default()
        };
        Ok(self.read(&newest)?.last().map_or(0, |line| line.seq))
    }

    /// Every line after a number (0: from the beginning), those to come too, in this and other processes.
    pub fn follow(&self, after: u64) -> Follower {
        Follower::new(self.directory.clone(), after)
    }

    fn read_oldest(&self, query: &Query) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut done = 0;
        'listing: loop {
            for segment in segment::list(&self.directory)? {
                if segment.number <= done || !query.may_match(&segment) {
                    continue;
                }
                let Some(mut frames) = Frames::open(&self.directory, &segment)? else {
                    // Sealed since it was listed: look again. Expired: the next listing leaves it out.
                    continue 'listing;
                };
                while let Some(frame) = next_or_skip(&mut frames)? {
                    for line in frame.lines.into_iter().filter(|line| query.matches(line)) {
                        if lines.len() >= query.limit || bytes >= MAX_RESULT_BYTES {
                            return Ok(lines);
                        }
                        bytes += line.text.len();
                        lines.push(line);
                    }
                }
                done = segment.number;
            }
            return Ok(lines);
        }
    }

    fn read_newest(&self, query: &Query) -> Result<Vec<Line>, Error> {
        let mut lines = VecDeque::new();
        let mut bytes = 0;
        let mut done = u64::MAX;
        'listing: loop {
            for segment in segment::list(&self.directory)?.into_iter().rev() {
                if segment.number >= done || !query.may_match(&segment) {
                    continue;
                }
                if lines.len() >= query.limit || bytes >= MAX_RESULT_BYTES {
                    break;
                }
                let Some(mut frames) = Frames::open(&self.directory, &segment)? else {
                    continue 'listing;
                };
                let room = query.limit - lines.len();
                let mut newest = VecDeque::new();
                let mut newest_bytes = 0;
                while let Some(frame) = next_or_skip(&mut frames)? {
                    for line in frame.lines.into_iter().filter(|line| query.matches(line)) {
                        newest_bytes += line.text.len();
                        newest.push_back(line);
                        if (newest.len() > room || bytes + newest_bytes > MAX_RESULT_BYTES)
                            && let Some(dropped) = newest.pop_front()
                        {
                            newest_bytes -= dropped.text.len();
                        }
                    }
                }
                bytes += newest_bytes;
                newest.append(&mut lines);
                lines = newest;
                done = segment.number;
            }
            return Ok(lines.into());
        }
    }
}

/// The next frame; a damaged segment ends there.
pub fn next_or_skip(frames: &mut Frames) -> Result<Option<crate::frame::Frame>, Error> {
    match frames.next() {
        Err(Error::Damaged(path)) => {
            tracing::error!(path = %path.display(), "a log segment is damaged; the rest of it is left out");
            Ok(None)
        }
        other => other,
    }
}
