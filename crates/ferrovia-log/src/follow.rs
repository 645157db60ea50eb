//! Following a log that another process writes: looks at the file's growth at a bounded rate.
//!
//! Exactly once follows from the numbers: a follower gives out lines above the last one it gave, and moves to the
//! next segment only after it read the one before to its end *after* it saw that a next one exists (the writer makes
//! the next only when the one before is complete). A segment that is sealed meanwhile is read on from its sealed
//! form or from the file that is still open, whichever comes first.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Line;
use crate::error::Error;
use crate::frame::Frame;
use crate::reader::next_or_skip;
use crate::segment::{self, Frames};

/// Shortest wait between two looks, in milliseconds.
pub const FOLLOW_POLL_MIN_MS: u64 = 50;
/// Longest wait between two looks at a quiet log, in milliseconds.
pub const FOLLOW_POLL_MAX_MS: u64 = 400;

/// Most lines and bytes of text that one look gives out, give or take a frame.
const POLL_LINES: usize = 1000;
const POLL_BYTES: usize = 1024 * 1024;

/// Gives out every line once, in order.
pub struct Follower {
    directory: PathBuf,
    after: u64,
    at: At,
}

enum At {
    /// In no segment: those up to this number are read.
    Between { done: u64 },
    /// In a sealed one.
    Sealed { number: u64, frames: Frames },
    /// In an open one, or one that was open when it was entered.
    Open { number: u64, file: File, offset: u64 },
}

impl Follower {
    pub(crate) const fn new(directory: PathBuf, after: u64) -> Self {
        Self {
            directory,
            after,
            at: At::Between { done: 0 },
        }
    }

    /// Number of the last line that was given out.
    pub const fn position(&self) -> u64 {
        self.after
    }

    /// The next lines, a bounded number of them; none when there is nothing new. Blocks on the disk only.
    ///
    /// # Errors
    /// [`Error::Io`]; the call may be repeated.
    pub fn poll(&mut self) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < POLL_LINES && bytes < POLL_BYTES {
            let frame = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) if lines.is_empty() => return Err(error),
                // Met again at the next call, after these lines were given out.
                Err(_) => break,
            };
            for line in frame.lines.into_iter().filter(|line| line.seq > self.after) {
                bytes += line.text.len();
                lines.push(line);
            }
            self.after = lines.last().map_or(self.after, |line| line.seq);
        }
        Ok(lines)
    }

    /// Waits for the next lines and gives them out with the follower, off the async threads.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn wait(self) -> Result<(Self, Vec<Line>), Error> {
        let mut follower = self;
        let mut wait_ms = FOLLOW_POLL_MIN_MS;
        loop {
            let directory = follower.directory.clone();
            let polled = tokio::task::spawn_blocking(move || {
                let lines = follower.poll();
                (follower, lines)
            });
            let (back, lines) = polled
                .await
                .map_err(|error| Error::io("follow", directory)(std::io::Error::other(error)))?;
            follower = back;
            let lines = lines?;
            if !lines.is_empty() {
                return Ok((follower, lines));
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            wait_ms = (wait_ms * 2).min(FOLLOW_POLL_MAX_MS);
        }
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            match &mut self.at {
                At::Between { done } => {
                    let done = *done;
                    if !self.enter(done)? {
                        return Ok(None);
                    }
                }
                At::Sealed { number, frames } => match next_or_skip(frames)? {
                    Some(frame) => return Ok(Some(frame)),
                    None => self.at = At::Between { done: *number },
                },
                At::Open { number, file, offset } => {
                    // Asked before the file's length: nothing is appended once there is a next one.
                    let has_next = segment::open_path(&self.directory, *number + 1).exists();
                    let metadata = file.metadata().map_err(Error::io("read", &self.directory))?;
                    let complete = has_next || metadata.nlink() == 0;
                    if metadata.len() < *offset {
                        *offset = 0;
                    }
                    if metadata.len() > *offset {
                        let mut input = BufReader::new(&*file);
                        input
                            .seek(SeekFrom::Start(*offset))
                            .map_err(Error::io("read", &self.directory))?;
                        if let Some((frame, length)) =
                            segment::read_frame(&mut input).map_err(Error::io("read", &self.directory))?
                        {
                            *offset += length;
                            return Ok(Some(frame));
                        }
                    }
                    if !complete {
                        return Ok(None);
                    }
                    self.at = At::Between { done: *number };
                }
            }
        }
    }

    /// Goes into the first segment past `done` that may hold lines to give out; `false` when there is none yet.
    fn enter(&mut self, done: u64) -> Result<bool, Error> {
        'listing: loop {
            for segment in segment::list(&self.directory)? {
                let read = segment.sealed.is_some_and(|span| span.last_seq <= self.after);
                if segment.number <= done || read {
                    continue;
                }
                let number = segment.number;
                self.at = match Frames::open(&self.directory, &segment)? {
                    Some(Frames::Open { file }) => At::Open {
                        number,
                        file: file.into_inner(),
                        offset: 0,
                    },
                    Some(frames) => At::Sealed { number, frames },
                    // Sealed or expired since it was listed.
                    None => continue 'listing,
                };
                return Ok(true);
            }
            return Ok(false);
        }
    }
}
