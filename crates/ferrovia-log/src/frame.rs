//! The frame: what was appended at once, under one checksum.
//!
//! `length u32 | crc32 u32 | payload`, little endian. The payload names each source once and holds lines and cursor
//! changes; it can be read without any other frame. A frame that is cut short or does not match its checksum ends
//! the segment: it was being written when its writer died, or it still is.

use ferrovia_core::id::DeploymentId;

use crate::{Line, NewLine, Stream};

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 8;
/// Longest payload, in bytes: what one append may hold, and what a reader is willing to take into memory.
pub const MAX_PAYLOAD_BYTES: usize = 8 * 1024 * 1024;

const VERSION: u8 = 1;
const STDERR: u8 = 1;
const CONTINUES: u8 = 2;

/// A frame read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Number of its first line; of the next line to come when it has none.
    pub first_seq: u64,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Cursors that were set, or removed (`None`).
    pub cursors: Vec<(String, Option<Vec<u8>>)>,
}

impl Frame {
    /// Number of the line after this frame.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.lines.len() as u64
    }
}

/// The bytes of a frame, head included.
pub fn encode<'a>(
    first_seq: u64,
    lines: &[NewLine<'_>],
    cursors: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> Vec<u8> {
    let mut sources: Vec<(&str, Option<DeploymentId>)> = Vec::new();
    let mut of_line = Vec::with_capacity(lines.len());
    for line in lines {
        let wanted = (line.source, line.deployment);
        let place = sources.iter().rposition(|source| *source == wanted);
        of_line.push(place.unwrap_or_else(|| {
            sources.push(wanted);
            sources.len() - 1
        }) as u64);
    }
    let mut out = vec![0; HEAD_BYTES];
    out.push(VERSION);
    put_number(&mut out, first_seq);
    put_number(&mut out, sources.len() as u64);
    for (name, deployment) in sources {
        put_bytes(&mut out, name.as_bytes());
        out.push(u8::from(deployment.is_some()));
        if let Some(deployment) = deployment {
            out.extend_from_slice(deployment.uuid().as_bytes());
        }
    }
    put_number(&mut out, lines.len() as u64);
    let mut before_ms = 0_i64;
    for (line, source) in lines.iter().zip(of_line) {
        put_number(&mut out, source);
        let stderr = if line.stream == Stream::Stderr { STDERR } else { 0 };
        out.push(stderr | if line.continues { CONTINUES } else { 0 });
        put_number(&mut out, zigzag(line.at_ms.wrapping_sub(before_ms)));
        before_ms = line.at_ms;
        put_bytes(&mut out, line.text.as_bytes());
    }
    put_number(&mut out, cursors.len() as u64);
    for (key, value) in cursors {
        put_bytes(&mut out, key.as_bytes());
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            put_bytes(&mut out, value);
        }
    }
    let length = (out.len() - HEAD_BYTES) as u32;
    let checksum = crc32fast::hash(&out[HEAD_BYTES..]);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Length of the payload that a head announces and its checksum; `None` when no frame begins so.
pub fn decode_head(head: [u8; HEAD_BYTES]) -> Option<(usize, u32)> {
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    (length > 0 && length <= MAX_PAYLOAD_BYTES).then(|| (length, u32::from_le_bytes([e, f, g, h])))
}

/// The frame in a payload; `None` when it is not what was written.
pub fn decode_payload(payload: &[u8], checksum: u32) -> Option<Frame> {
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    let mut input = payload;
    if take_byte(&mut input)? != VERSION {
        return None;
    }
    let first_seq = take_number(&mut input)?;
    let mut sources = Vec::new();
    for _ in 0..take_count(&mut input)? {
        let name = take_text(&mut input)?;
        let deployment = match take_byte(&mut input)? {
            0 => None,
            _ => {
                let (id, rest) = input.split_first_chunk::<16>()?;
                input = rest;
                Some(DeploymentId::from_uuid(uuid::Uuid::from_bytes(*id)))
            }
        };
        sources.push((name, deployment));
    }
    let count = take_count(&mut input)?;
    let mut lines = Vec::with_capacity(count);
    let mut at_ms = 0_i64;
    for place in 0..count {
        let (source, deployment) = sources.get(usize::try_from(take_number(&mut input)?).ok()?)?;
        let flags = take_byte(&mut input)?;
        at_ms = at_ms.wrapping_add(unzigzag(take_number(&mut input)?));
        lines.push(Line {
            seq: first_seq.checked_add(place as u64)?,
            at_ms,
            stream: if flags & STDERR == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            },
            source: source.clone(),
            deployment: *deployment,
            text: take_text(&mut input)?,
            continues: flags & CONTINUES != 0,
        });
    }
    let mut cursors = Vec::new();
    for _ in 0..take_count(&mut input)? {
        let key = take_text(&mut input)?;
        let value = match take_byte(&mut input)? {
            0 => None,
            _ => Some(take_bytes(&mut input)?.to_vec()),
        };
        cursors.push((key, value));
    }
    Some(Frame {
        first_seq,
        lines,
        cursors,
    })
}

/// Small numbers of either sign become small numbers.
const fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn take_number(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(input)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A number of things that follow; each has at least one byte, so that a wrong count allocates nothing.
fn take_count(input: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(take_number(input)?).ok()?;
    (count <= input.len()).then_some(count)
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_count(input)?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

fn take_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(input)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Option<Frame> {
        let (length, checksum) = decode_head(*bytes.first_chunk::<HEAD_BYTES>()?)?;
        decode_payload(bytes.get(HEAD_BYTES..HEAD_BYTES + length)?, checksum)
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back_as_written(
            first_seq in 0..u64::MAX / 2,
            lines in proptest::collection::vec(("[a-c]{0,2}", any::<i64>(), any::<bool>(), any::<bool>(), ".{0,40}"), 0..20),
            cursors in proptest::collection::vec(("[a-z]{1,8}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30))), 0..4),
            cut in any::<proptest::sample::Index>(),
            flip in any::<u8>(),
        ) {
            let written: Vec<NewLine<'_>> = lines
                .iter()
                .map(|(source, at_ms, stderr, continues, text)| NewLine {
                    at_ms: *at_ms,
                    stream: if *stderr { Stream::Stderr } else { Stream::Stdout },
                    source,
                    deployment: source.starts_with('a').then(|| DeploymentId::from_uuid(uuid::Uuid::from_u128(7))),
                    text,
                    continues: *continues,
                })
                .collect();
            let bytes = encode(first_seq, &written, cursors.iter().map(|(k, v)| (k.as_str(), v.as_deref())));
            let frame = decode(&bytes).unwrap();
            prop_assert_eq!(frame.first_seq, first_seq);
            prop_assert_eq!(&frame.cursors, &cursors);
            prop_assert_eq!(frame.lines.len(), written.len());
            for (place, (line, new)) in frame.lines.iter().zip(&written).enumerate() {
                prop_assert_eq!(line.seq, first_seq + place as u64);
                prop_assert_eq!(
                    (line.at_ms, line.stream, line.source.as_str(), line.deployment, line.text.as_str(), line.continues),
                    (new.at_ms, new.stream, new.source, new.deployment, new.text, new.continues)
                );
            }
            let at = cut.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..at]), None);
            if flip != 0 && at >= HEAD_BYTES {
                let mut damaged = bytes;
                damaged[at] ^= flip;
                prop_assert_eq!(decode(&damaged), None);
            }
        }
    }
}
