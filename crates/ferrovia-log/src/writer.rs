//! The one writer of a log: appends frames, seals segments, keeps the budget, recovers what a kill left behind.
//!
//! Order of a seal: the next open segment is made whole under another name (its first frame holds all cursors, so
//! that the newest open segment alone is enough to go on) and renamed; then the old one is compressed, synced and
//! renamed; then the old open file is removed. After a kill between any two of these, the next writer seals what
//! is open and not the newest.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::frame::{self, HEAD_BYTES, MAX_PAYLOAD_BYTES};
use crate::segment::{self, Segment, Span};
use crate::{MAX_LINE_BYTES, NewLine};

/// Compression level of sealed segments: zstd's usual one.
const SEAL_LEVEL: i32 = 3;
/// Window of the compression, as a power of two in bytes: little memory, and lines resemble their neighbours.
const SEAL_WINDOW_LOG: u32 = 17;
/// Logs are for root and the platform's own user.
const FILE_MODE: u32 = 0o600;

/// How large a log may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size past which an open segment is sealed, in bytes before compression.
    pub segment_bytes: u64,
    /// Size of the whole directory, in bytes on disk: the oldest sealed segments give way.
    pub budget_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 * 1024 * 1024,
            budget_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Sets or removes the cursor of a source, together with the lines of the same append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorChange<'a> {
    /// Which source.
    pub key: &'a str,
    /// Where to read on; `None` forgets the source.
    pub value: Option<&'a [u8]>,
}

/// Writes one log. Calls block on the disk.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    limits: Limits,
    /// Holds the lock; the directory itself is locked.
    lock: File,
    open: Open,
    next_seq: u64,
    cursors: BTreeMap<String, Vec<u8>>,
    /// Segments that are complete and still to be compressed, because that failed before.
    unsealed: Vec<Complete>,
    sealed: BTreeMap<u64, (Span, u64)>,
    poisoned: bool,
    #[cfg(test)]
    steps_left: Option<u32>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    file: File,
    length: u64,
    span: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Complete {
    number: u64,
    length: u64,
    span: Option<Span>,
}

impl Writer {
    /// Opens a log, makes its directory if there is none, and recovers what a kill left behind.
    ///
    /// # Errors
    /// [`Error::Locked`] while another writer has it; [`Error::Io`].
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, Error> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let lock = File::open(directory).map_err(Error::io("open", directory))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Locked(directory.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(Error::io("lock", directory)(error)),
        }
        let found = Found::scan(directory)?;
        let last_sealed = found.sealed.last_key_value().map_or(0, |(number, _)| *number);
        let mut next_seq = found
            .sealed
            .last_key_value()
            .map_or(1, |(_, (span, _))| span.last_seq + 1);
        let mut cursors = BTreeMap::new();
        let mut complete = Vec::new();
        for number in &found.open {
            complete.push(recover(directory, *number, &mut next_seq, &mut cursors)?);
        }
        let open = match complete.pop() {
            Some(newest) if newest.number > last_sealed => Open::resume(directory, newest)?,
            newest => {
                complete.extend(newest);
                let number = last_sealed.max(found.open.last().copied().unwrap_or(0)) + 1;
                Open::create(directory, number, next_seq, &cursors)?
            }
        };
        let mut writer = Self {
            directory: directory.to_owned(),
            limits,
            lock,
            open,
            next_seq,
            cursors,
            unsealed: complete,
            sealed: found.sealed,
            poisoned: false,
            #[cfg(test)]
            steps_left: None,
        };
        writer.seal_complete();
        Ok(writer)
    }

    /// Number of the newest line; 0 when there was none yet.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Where to read on in a source.
    pub fn cursor(&self, key: &str) -> Option<&[u8]> {
        self.cursors.get(key).map(Vec::as_slice)
    }

    /// All sources with a cursor.
    pub fn cursors(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.cursors
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Appends lines and moves cursors, all or nothing, and returns the number of the newest line.
    ///
    /// # Errors
    /// [`Error::TooLarge`] past 8 MiB at once; [`Error::Io`]: nothing was appended and the call may be repeated;
    /// [`Error::Poisoned`]: the writer must be opened again.
    pub fn append(&mut self, lines: &[NewLine<'_>], cursors: &[CursorChange<'_>]) -> Result<u64, Error> {
        if self.poisoned {
            return Err(Error::Poisoned(self.directory.clone()));
        }
        if self.open.length >= self.limits.segment_bytes
            && let Err(error) = self.rotate()
        {
            tracing::warn!(log = %self.directory.display(), %error, "a log segment was not sealed; it is tried again");
        }
        let split = split_long(lines);
        let lines = split.as_deref().unwrap_or(lines);
        let changes = cursors.iter().map(|change| (change.key, change.value));
        let bytes = frame::encode(self.next_seq, lines, changes);
        if bytes.len() - HEAD_BYTES > MAX_PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                bytes: bytes.len(),
                max_bytes: MAX_PAYLOAD_BYTES,
            });
        }
        self.step()?;
        if let Err(error) = self.open.file.write_all_at(&bytes, self.open.length) {
            self.poisoned = self.open.file.set_len(self.open.length).is_err();
            return Err(Error::io("append to", self.directory.as_path())(error));
        }
        self.open.length += bytes.len() as u64;
        for line in lines {
            self.open.span = Some(Span::with(self.open.span, self.next_seq, line.at_ms));
            self.next_seq += 1;
        }
        for change in cursors {
            match change.value {
                Some(value) => self.cursors.insert(change.key.to_owned(), value.to_vec()),
                None => self.cursors.remove(change.key),
            };
        }
        Ok(self.next_seq - 1)
    }

    /// Compresses what was written: at the end of a log that nothing is appended to for long.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is lost then.
    pub fn seal(&mut self) -> Result<(), Error> {
        if self.open.span.is_none() {
            return Ok(());
        }
        self.rotate()
    }

    /// Begins the next open segment and seals the one before.
    fn rotate(&mut self) -> Result<(), Error> {
        self.step()?;
        let next = Open::create(
            &self.directory,
            self.open.number + 1,
            self.next_seq,
            &self.cursors,
        )?;
        let old = std::mem::replace(&mut self.open, next);
        self.unsealed.push(Complete {
            number: old.number,
            length: old.length,
            span: old.span,
        });
        self.step()?;
        self.seal_complete();
        Ok(())
    }

    /// Compresses the complete segments and keeps the budget. What fails is tried again at the next rotation.
    fn seal_complete(&mut self) {
        for complete in std::mem::take(&mut self.unsealed) {
            if let Err(error) = self.seal_one(complete) {
                tracing::warn!(log = %self.directory.display(), %error, "a log segment was not compressed; it is tried again");
                self.unsealed.push(complete);
            }
        }
        let room = self.limits.budget_bytes.saturating_sub(self.limits.segment_bytes);
        let mut total: u64 = self.sealed.values().map(|(_, bytes)| bytes).sum();
        while total > room
            && let Some((number, (span, bytes))) = self.sealed.pop_first()
        {
            total -= bytes;
            let path = segment::sealed_path(&self.directory, number, span);
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, "an old log segment was not removed");
            }
        }
    }

    fn seal_one(&mut self, complete: Complete) -> Result<(), Error> {
        let source = segment::open_path(&self.directory, complete.number);
        if let Some(span) = complete.span
            && !self.sealed.contains_key(&complete.number)
        {
            let temporary = self.directory.join(format!(
                "{}{:010}.zst",
                segment::TEMPORARY_PREFIX,
                complete.number
            ));
            let target = segment::sealed_path(&self.directory, complete.number, span);
            let bytes = compress(&source, complete.length, &temporary)?;
            self.step()?;
            std::fs::rename(&temporary, &target).map_err(Error::io("seal", target))?;
            sync_directory(&self.directory)?;
            self.sealed.insert(complete.number, (span, bytes));
        }
        self.step()?;
        remove(&source)
    }

    /// A place where a test lets the writer die.
    #[cfg(test)]
    fn step(&mut self) -> Result<(), Error> {
        match &mut self.steps_left {
            Some(0) => {
                self.poisoned = true;
                Err(Error::Poisoned(self.directory.clone()))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    const fn step(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Lets the writer die at the step after `steps` more.
    #[cfg(test)]
    pub(crate) const fn die_after(&mut self, steps: u32) {
        self.steps_left = Some(steps);
    }
}

impl Drop for Writer {
    /// A process that is being started has a copy of every descriptor until it runs its program: closing alone would
    /// leave the lock to it for that long.
    fn drop(&mut self) {
        // The descriptor is closed in any case.
        let _ = self.lock.unlock();
    }
}

impl Open {
    /// A new open segment: whole under another name, then renamed.
    fn create(
        directory: &Path,
        number: u64,
        next_seq: u64,
        cursors: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, Error> {
        let state = cursors
            .iter()
            .map(|(key, value)| (key.as_str(), Some(value.as_slice())));
        let bytes = frame::encode(next_seq, &[], state);
        let temporary = directory.join(format!("{}{number:010}.open", segment::TEMPORARY_PREFIX));
        let path = segment::open_path(directory, number);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        file.write_all_at(&bytes, 0)
            .map_err(Error::io("write", &temporary))?;
        file.sync_all().map_err(Error::io("sync", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(Error::io("create", path))?;
        sync_directory(directory)?;
        Ok(Self {
            number,
            file,
            length: bytes.len() as u64,
            span: None,
        })
    }

    /// An open segment to go on with; what follows its last whole frame is cut.
    fn resume(directory: &Path, complete: Complete) -> Result<Self, Error> {
        let path = segment::open_path(directory, complete.number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        file.set_len(complete.length).map_err(Error::io("cut", &path))?;
        Ok(Self {
            number: complete.number,
            file,
            length: complete.length,
            span: complete.span,
        })
    }
}

/// What a directory holds.
struct Found {
    open: Vec<u64>,
    sealed: BTreeMap<u64, (Span, u64)>,
}

impl Found {
    /// Looks, and removes what was half made.
    fn scan(directory: &Path) -> Result<Self, Error> {
        let mut found = Self {
            open: Vec::new(),
            sealed: BTreeMap::new(),
        };
        for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let entry = entry.map_err(Error::io("list", directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(segment::TEMPORARY_PREFIX) {
                remove(&entry.path())?;
                continue;
            }
            match segment::parse(name) {
                Some(Segment { number, sealed: None }) => found.open.push(number),
                Some(Segment {
                    number,
                    sealed: Some(span),
                }) => {
                    let bytes = entry.metadata().map_err(Error::io("read", entry.path()))?.len();
                    found.sealed.insert(number, (span, bytes));
                }
                None => {}
            }
        }
        found.open.sort_unstable();
        Ok(found)
    }
}

/// Reads an open segment to its last whole frame and brings the state up to it. Its first frame holds all cursors.
fn recover(
    directory: &Path,
    number: u64,
    next_seq: &mut u64,
    cursors: &mut BTreeMap<String, Vec<u8>>,
) -> Result<Complete, Error> {
    let path = segment::open_path(directory, number);
    let mut file = BufReader::new(File::open(&path).map_err(Error::io("open", &path))?);
    let mut complete = Complete {
        number,
        length: 0,
        span: None,
    };
    while let Some((frame, length)) = segment::read_frame(&mut file).map_err(Error::io("read", &path))? {
        if complete.length == 0 {
            cursors.clear();
        }
        complete.length += length;
        *next_seq = frame.next_seq().max(*next_seq);
        for line in &frame.lines {
            complete.span = Some(Span::with(complete.span, line.seq, line.at_ms));
        }
        for (key, value) in frame.cursors {
            match value {
                Some(value) => cursors.insert(key, value),
                None => cursors.remove(&key),
            };
        }
    }
    Ok(complete)
}

/// Compresses the first `length` bytes of `source` into a new, synced file and returns its size.
fn compress(source: &Path, length: u64, target: &Path) -> Result<u64, Error> {
    let input = File::open(source).map_err(Error::io("open", source))?;
    let output = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(FILE_MODE)
        .open(target)
        .map_err(Error::io("create", target))?;
    let write = |output: File| -> std::io::Result<u64> {
        let mut encoder = zstd::Encoder::new(output, SEAL_LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.window_log(SEAL_WINDOW_LOG)?;
        std::io::copy(&mut input.take(length), &mut encoder)?;
        let mut output = encoder.finish()?;
        output.flush()?;
        output.sync_all()?;
        output.seek(SeekFrom::End(0))
    };
    write(output).map_err(Error::io("compress", target))
}

fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("sync", directory))
}

/// Removes a file; one that is gone is success.
fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The lines with every text in bounds; `None` when they all are.
fn split_long<'a>(lines: &[NewLine<'a>]) -> Option<Vec<NewLine<'a>>> {
    lines
        .iter()
        .any(|line| line.text.len() > MAX_LINE_BYTES)
        .then(|| {
            let mut split = Vec::with_capacity(lines.len() + 1);
            for line in lines {
                let mut rest = line.text;
                while rest.len() > MAX_LINE_BYTES {
                    let (part, after) = rest.split_at(rest.floor_char_boundary(MAX_LINE_BYTES));
                    split.push(NewLine {
                        text: part,
                        continues: true,
                        ..*line
                    });
                    rest = after;
                }
                split.push(NewLine { text: rest, ..*line });
            }
            split
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Query, Reader, Stream};

    const SMALL: Limits = Limits {
        segment_bytes: 300,
        budget_bytes: 1_000_000,
    };

    /// Appends numbered lines until the writer dies; how many it took.
    fn append_until_death(writer: &mut Writer, mut next: u64) -> u64 {
        for _ in 0..40 {
            let text = format!("line {next} with some text after it");
            let line = NewLine {
                at_ms: next as i64,
                stream: Stream::Stdout,
                source: "r",
                deployment: None,
                text: &text,
                continues: false,
            };
            let cursor = CursorChange {
                key: "r",
                value: Some(text.as_bytes()),
            };
            if writer.append(&[line], &[cursor]).is_err() {
                break;
            }
            next += 1;
        }
        next
    }

    #[test]
    fn dead_at_every_step_and_nothing_is_lost_or_repeated() {
        for steps in 0..80 {
            let directory = tempfile::tempdir().unwrap();
            let mut follower = Reader::new(directory.path()).follow(0);
            let mut next = 1;
            let mut followed = 0;
            for again in [steps, 80 - steps, 7] {
                let mut writer = Writer::open(directory.path(), SMALL).unwrap();
                assert_eq!(writer.next_seq, next);
                writer.die_after(again);
                next = append_until_death(&mut writer, next);
                drop(writer);
                followed += follower.poll().unwrap().len() as u64;
                assert_eq!(followed + 1, next, "after {again} steps");
            }
            let writer = Writer::open(directory.path(), SMALL).unwrap();
            assert_eq!(writer.next_seq, next);
            let cursor = format!("line {} with some text after it", next - 1);
            assert_eq!(writer.cursor("r"), (next > 1).then_some(cursor.as_bytes()));
            let lines = Reader::new(directory.path()).read(&Query::default()).unwrap();
            assert!(
                lines
                    .iter()
                    .zip(1..)
                    .all(|(line, n)| line.seq == n && line.at_ms == n as i64)
            );
            assert_eq!(lines.len() as u64 + 1, next);
            let open = std::fs::read_dir(directory.path())
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .path()
                        .extension()
                        .is_some_and(|suffix| suffix == "open")
                })
                .count();
            assert_eq!(open, 1, "after {steps} steps");
        }
    }
}
