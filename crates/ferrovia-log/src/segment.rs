//! Segments: their names, the order of a directory's segments, and reading one frame by frame.
//!
//! `0000000007.open` is written to; `0000000006-FIRST-LAST-FROM-UNTIL.zst` is sealed. While a segment is being
//! sealed both exist for a moment; the sealed one counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::frame::{self, Frame, HEAD_BYTES};

/// Files that were being made when a writer died begin so; the next writer removes them.
pub const TEMPORARY_PREFIX: &str = "tmp-";
const OPEN_SUFFIX: &str = ".open";
const SEALED_SUFFIX: &str = ".zst";

/// What the name of a sealed segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Number of its first line.
    pub first_seq: u64,
    /// Number of its last line.
    pub last_seq: u64,
    /// Smallest time of its lines, in milliseconds since 1970.
    pub from_ms: i64,
    /// Largest time of its lines, in milliseconds since 1970.
    pub until_ms: i64,
}

impl Span {
    /// The span with one more line.
    pub fn with(span: Option<Self>, seq: u64, at_ms: i64) -> Self {
        match span {
            None => Self {
                first_seq: seq,
                last_seq: seq,
                from_ms: at_ms,
                until_ms: at_ms,
            },
            Some(span) => Self {
                first_seq: span.first_seq,
                last_seq: seq,
                from_ms: span.from_ms.min(at_ms),
                until_ms: span.until_ms.max(at_ms),
            },
        }
    }
}

/// A segment on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number in the log, from 1.
    pub number: u64,
    /// What its name says; `None` when it is open.
    pub sealed: Option<Span>,
}

impl Segment {
    /// Where it is.
    pub fn path(&self, directory: &Path) -> PathBuf {
        match self.sealed {
            None => open_path(directory, self.number),
            Some(span) => sealed_path(directory, self.number, span),
        }
    }
}

/// The name of an open segment.
pub fn open_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}{OPEN_SUFFIX}"))
}

/// The name of a sealed segment.
pub fn sealed_path(directory: &Path, number: u64, span: Span) -> PathBuf {
    let Span {
        first_seq,
        last_seq,
        from_ms,
        until_ms,
    } = span;
    directory.join(format!(
        "{number:010}-{first_seq}-{last_seq}-{:016x}-{:016x}{SEALED_SUFFIX}",
        from_ms as u64, until_ms as u64
    ))
}

/// What a file name says; `None` when it is no segment.
pub fn parse(name: &str) -> Option<Segment> {
    if let Some(number) = name.strip_suffix(OPEN_SUFFIX) {
        return Some(Segment {
            number: number.parse().ok()?,
            sealed: None,
        });
    }
    let mut parts = name.strip_suffix(SEALED_SUFFIX)?.split('-');
    let mut next = || parts.next();
    let segment = Segment {
        number: next()?.parse().ok()?,
        sealed: Some(Span {
            first_seq: next()?.parse().ok()?,
            last_seq: next()?.parse().ok()?,
            from_ms: u64::from_str_radix(next()?, 16).ok()? as i64,
            until_ms: u64::from_str_radix(next()?, 16).ok()? as i64,
        }),
    };
    next().is_none().then_some(segment)
}

/// Listings until two say the same: more means that somebody seals without end.
const MAX_LISTINGS: usize = 16;

/// The segments of a log in order; none when there is no such directory. One that exists open and sealed counts as
/// sealed.
///
/// A directory is not listed at one moment: of a segment that is sealed meanwhile, the sealed name may come too late
/// and the open one be gone. It is listed until two listings have the same segments, of which none was missed then.
pub fn list(directory: &Path) -> Result<Vec<Segment>, Error> {
    until_stable(|| list_once(directory))
}

fn until_stable(mut list: impl FnMut() -> Result<Vec<Segment>, Error>) -> Result<Vec<Segment>, Error> {
    let mut before = list()?;
    for _ in 1..MAX_LISTINGS {
        let now = list()?;
        let numbers =
            |segments: &[Segment]| -> Vec<u64> { segments.iter().map(|segment| segment.number).collect() };
        if numbers(&now) == numbers(&before) {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn list_once(directory: &Path) -> Result<Vec<Segment>, Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let mut segments = BTreeMap::<u64, Segment>::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", directory))?;
        if let Some(segment) = entry.file_name().to_str().and_then(parse)
            && (segment.sealed.is_some() || !segments.contains_key(&segment.number))
        {
            segments.insert(segment.number, segment);
        }
    }
    Ok(segments.into_values().collect())
}

/// Reads the frames of a segment in order, one at a time.
pub enum Frames {
    /// An open one, from its beginning.
    Open {
        /// The file.
        file: BufReader<File>,
    },
    /// A sealed one.
    Sealed {
        /// The decompressed bytes.
        input: Box<zstd::Decoder<'static, BufReader<File>>>,
        /// For errors.
        path: PathBuf,
    },
}

impl Frames {
    /// Opens a segment; `None` when it is gone: sealed or expired since it was listed.
    pub fn open(directory: &Path, segment: &Segment) -> Result<Option<Self>, Error> {
        let path = segment.path(directory);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        Ok(Some(if segment.sealed.is_some() {
            let input = Box::new(zstd::Decoder::new(file).map_err(Error::io("read", &path))?);
            Self::Sealed { input, path }
        } else {
            Self::Open {
                file: BufReader::with_capacity(64 * 1024, file),
            }
        }))
    }

    /// The next frame; `None` at the end, which for an open segment is the last whole frame so far.
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        match self {
            Self::Open { file } => {
                let frame = read_frame(file).map_err(Error::io("read", "the open segment"))?;
                Ok(frame.map(|(frame, _)| frame))
            }
            Self::Sealed { input, path } => match read_frame(input) {
                Ok(frame) => Ok(frame.map(|(frame, _)| frame)),
                Err(error) if error.kind() == std::io::ErrorKind::Other => Err(Error::Damaged(path.clone())),
                Err(error) => Err(Error::io("read", path.as_path())(error)),
            },
        }
    }
}

/// A frame and its length; `None` when what is left is no whole frame.
pub fn read_frame(input: &mut impl Read) -> std::io::Result<Option<(Frame, u64)>> {
    let mut head = [0; HEAD_BYTES];
    if !fill(input, &mut head)? {
        return Ok(None);
    }
    let Some((length, checksum)) = frame::decode_head(head) else {
        return Ok(None);
    };
    let mut payload = vec![0; length];
    if !fill(input, &mut payload)? {
        return Ok(None);
    }
    Ok(frame::decode_payload(&payload, checksum).map(|frame| (frame, (HEAD_BYTES + length) as u64)))
}

/// Whether there was as much as the buffer holds.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_a_listing_missed_while_it_was_sealed_is_found() {
        let open = |number| Segment { number, sealed: None };
        let listings = [vec![open(1), open(3)], vec![open(1), open(2), open(3)]];
        let mut next = listings.iter().chain(std::iter::repeat(&listings[1]));
        let found = until_stable(|| Ok(next.next().unwrap().clone())).unwrap();
        assert_eq!(found, listings[1]);
    }

    #[test]
    fn names_are_read_back() {
        let directory = Path::new("/logs");
        let span = Span {
            first_seq: 1,
            last_seq: 900,
            from_ms: -5,
            until_ms: 1_700_000_000_000,
        };
        for segment in [
            Segment {
                number: 3,
                sealed: None,
            },
            Segment {
                number: 12,
                sealed: Some(span),
            },
        ] {
            let path = segment.path(directory);
            assert_eq!(parse(path.file_name().unwrap().to_str().unwrap()), Some(segment));
        }
        for wrong in ["tmp-0000000001.zst", "x.open", "1-2-3.zst", "1-2-3-4-5-6.zst", ""] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
