//! Reads the log files of one container: by inode and offset, over rotations, from a cursor.
//!
//! Docker renames `LOG` to `LOG.1`, `LOG.1` to `LOG.2` and so on, and begins a new `LOG`. The file in hand is read to
//! its end after it was seen that it is not `LOG` any more (nothing is written to it from then on), then the next newer
//! one. A file is known by its inode and a checksum of its beginning: inodes are used again.
//!
//! What was read counts only when the caller has committed the cursor; the state is then taken over. A line that came
//! in pieces and is not yet whole stands in the cursor, since the lines of the other stream after it are committed.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ferrovia_log::{MAX_LINE_BYTES, Stream};
use serde::{Deserialize, Serialize};

use super::entry;

/// Most that is read at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// Longest line of a log file, in bytes: 16 KiB of text, escaped, with its labels. What is longer is no line.
const MAX_ENTRY_BYTES: usize = 1024 * 1024;
/// Beginning of a file that its checksum is over, in bytes: it holds the time of the first line.
const HEAD_BYTES: usize = 128;
/// Rotated files that are looked for.
const MAX_ROTATED: usize = 100;

/// Where to read on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The file.
    inode: u64,
    /// Where in it.
    offset: u64,
    /// Checksum of its first bytes, and how many.
    head: (u32, usize),
    /// Lines that came in pieces and are not whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<Pending>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    stream: Stream,
    at_ms: i64,
    text: String,
}

/// A line of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Where it was written to.
    pub stream: Stream,
    /// Its text.
    pub text: String,
    /// Whether it goes on in the next line of this stream.
    pub continues: bool,
}

/// What one look gave.
#[derive(Debug, Default)]
pub struct Batch {
    /// Lines in order.
    pub lines: Vec<Line>,
    /// Whether lines were rotated away before they could be read.
    pub gap: bool,
    /// Whether another file was begun: the cursor must not stay behind in one that may be rotated away.
    pub moved: bool,
    /// Whether there is nothing more to read for now.
    pub at_end: bool,
}

/// One container's log.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: Option<File>,
    cursor: Cursor,
}

impl Source {
    /// The log at `path`, from a cursor or from the oldest file that is there.
    pub fn new(path: PathBuf, cursor: Option<Cursor>) -> Self {
        Self {
            path,
            file: None,
            cursor: cursor.unwrap_or_default(),
        }
    }

    /// Where to read on after the batches so far.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether there is more to read, at the cost of two looks at the file system.
    pub fn has_news(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let longer = file.metadata().is_ok_and(|file| file.len() != self.cursor.offset);
        longer || inode(&self.path).is_some_and(|inode| inode != self.cursor.inode)
    }

    /// Reads on, a bounded amount. `buffer` is working space that all sources share: there are many of them, and most
    /// are quiet.
    ///
    /// # Errors
    /// What the system says; the source is then made anew from the committed cursor.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<Batch> {
        let mut batch = Batch::default();
        if self.file.is_none() && !self.open(&mut batch)? {
            // There is no file yet.
            batch.at_end = true;
            return Ok(batch);
        }
        // Asked before the file is read: nothing is written to a file after it was renamed.
        let rotated = inode(&self.path).is_some_and(|inode| inode != self.cursor.inode);
        let consumed = self.read_chunk(buffer, &mut batch)?;
        if consumed == 0 {
            batch.moved = rotated && self.go_on()?;
            batch.at_end = !batch.moved;
        }
        Ok(batch)
    }

    /// Ends the lines that are not whole: the container has ended, and nothing comes any more.
    pub fn finish(&mut self, batch: &mut Batch) {
        for pending in std::mem::take(&mut self.cursor.pending) {
            batch.lines.push(pending.into_line(false));
        }
    }

    fn read_chunk(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch) -> std::io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        if file.metadata()?.len() < self.cursor.offset {
            // Emptied in place: with a single file Docker does so instead of renaming.
            self.cursor.offset = 0;
            self.cursor.head = (0, 0);
            batch.gap = true;
        }
        let mut want = CHUNK_BYTES;
        let whole = loop {
            buffer.resize(want, 0);
            let length = read_full_at(file, buffer, self.cursor.offset)?;
            let whole = buffer[..length]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            if whole > 0 || length < want {
                break whole;
            }
            if want >= MAX_ENTRY_BYTES {
                // No line of Docker's: a file that was damaged when the machine stopped.
                break length;
            }
            want = MAX_ENTRY_BYTES;
        };
        if self.cursor.head.1 < HEAD_BYTES && whole > 0 {
            self.cursor.head = head(file, HEAD_BYTES)?;
        }
        for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
            if let Some(entry) = entry::parse(line) {
                self.take(entry, batch);
            }
        }
        buffer.truncate(CHUNK_BYTES);
        buffer.shrink_to(CHUNK_BYTES);
        self.cursor.offset += whole as u64;
        Ok(whole)
    }

    /// Joins pieces to lines.
    fn take(&mut self, entry: entry::Entry<'_>, batch: &mut Batch) {
        let place = self
            .cursor
            .pending
            .iter()
            .position(|pending| pending.stream == entry.stream);
        let Some(place) = place else {
            if entry.ends {
                batch.lines.push(Line {
                    at_ms: entry.at_ms,
                    stream: entry.stream,
                    text: entry.text.into_owned(),
                    continues: false,
                });
            } else {
                self.cursor.pending.push(Pending {
                    stream: entry.stream,
                    at_ms: entry.at_ms,
                    text: entry.text.into_owned(),
                });
            }
            return;
        };
        let pending = &mut self.cursor.pending[place];
        if pending.text.len() + entry.text.len() > MAX_LINE_BYTES {
            let text = std::mem::take(&mut pending.text);
            batch.lines.push(Line {
                at_ms: pending.at_ms,
                stream: pending.stream,
                text,
                continues: true,
            });
        }
        pending.text.push_str(&entry.text);
        if entry.ends {
            let pending = self.cursor.pending.swap_remove(place);
            batch.lines.push(pending.into_line(false));
        }
    }

    /// Opens the file of the cursor, or the oldest; `false` when there is none.
    fn open(&mut self, batch: &mut Batch) -> std::io::Result<bool> {
        let files = files(&self.path)?;
        let known = self.cursor.inode != 0;
        for (path, inode) in &files {
            if known && *inode == self.cursor.inode {
                let file = File::open(path)?;
                let long_enough = file.metadata()?.len() >= self.cursor.offset;
                let same = file.metadata()?.ino() == self.cursor.inode
                    && head(&file, self.cursor.head.1)? == self.cursor.head;
                if long_enough && same {
                    self.file = Some(file);
                    return Ok(true);
                }
            }
        }
        // The newest comes first.
        let Some((path, _)) = files.last() else {
            return Ok(false);
        };
        batch.gap = known;
        self.begin(File::open(path)?)?;
        Ok(true)
    }

    /// Goes to the next newer file; `false` when there is none.
    fn go_on(&mut self) -> std::io::Result<bool> {
        let files = files(&self.path)?;
        let next = match files.iter().position(|(_, inode)| *inode == self.cursor.inode) {
            Some(0) => return Ok(false),
            Some(place) => files.get(place - 1),
            // It was rotated away while it was open here: all that are there are newer.
            None => files.last(),
        };
        let Some((path, _)) = next else { return Ok(false) };
        self.begin(File::open(path)?)?;
        Ok(true)
    }

    fn begin(&mut self, file: File) -> std::io::Result<()> {
        self.cursor.inode = file.metadata()?.ino();
        self.cursor.offset = 0;
        self.cursor.head = (0, 0);
        self.file = Some(file);
        Ok(())
    }
}

impl Pending {
    fn into_line(self, continues: bool) -> Line {
        Line {
            at_ms: self.at_ms,
            stream: self.stream,
            text: self.text,
            continues,
        }
    }
}

/// The log's files with their inodes, the newest first. One that is renamed while we look is met once.
fn files(path: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found: Vec<(PathBuf, u64)> = Vec::new();
    for number in 0..MAX_ROTATED {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let file = PathBuf::from(name);
        match std::fs::metadata(&file) {
            Ok(metadata) => {
                if !found.iter().any(|(_, inode)| *inode == metadata.ino()) {
                    found.push((file, metadata.ino()));
                }
            }
            // Between a rename and the making of the new file there is no newest one.
            Err(error) if error.kind() == ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

/// The checksum of a file's first bytes, at most `length`, and how many there were.
fn head(file: &File, length: usize) -> std::io::Result<(u32, usize)> {
    let mut head = vec![0; length];
    let length = read_full_at(file, &mut head, 0)?;
    Ok((crc32fast::hash(&head[..length]), length))
}

fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
