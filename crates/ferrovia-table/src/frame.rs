//! Frames: length, checksum, JSON. The same on the wire and in the file, so that both are cut and checked alike.
//!
//! `u32` length of the payload (little endian), `u32` CRC-32 of the payload, payload `{"format":N,"message":…}`. The
//! message is looked at only when its format is understood, so that a later format may change everything in it.

use ferrovia_core::table::FORMAT;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::Error;

/// Longest payload of a frame, in bytes. Changes are cut into parts far below it; only one huge row comes near.
pub(crate) const MAX_FRAME_BYTES: usize = 4 << 20;
/// Bytes of length and checksum before the payload.
const HEAD_BYTES: usize = 8;

/// Formats that this build understands, best first.
pub(crate) const FORMATS: &[u32] = &[FORMAT];

#[derive(Serialize)]
struct Outgoing<'a, T> {
    format: u32,
    message: &'a T,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    format: u32,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// One message as a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    encode_as(FORMAT, message)
}

/// One message as a frame that claims `format`.
pub(crate) fn encode_as<T: Serialize>(format: u32, message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut frame, &Outgoing { format, message }).map_err(Error::Content)?;
    let length = frame.len() - HEAD_BYTES;
    if length > MAX_FRAME_BYTES {
        return Err(Error::FrameTooLong(length));
    }
    let checksum = crc32fast::hash(&frame[HEAD_BYTES..]);
    frame[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    frame[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

/// The message in a payload whose checksum was right.
pub(crate) fn message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    let incoming: Incoming<'_> = serde_json::from_slice(payload).map_err(Error::Content)?;
    if !FORMATS.contains(&incoming.format) {
        return Err(Error::UnknownFormat(incoming.format));
    }
    serde_json::from_str(incoming.message.get()).map_err(Error::Content)
}

/// A payload and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first payload of `bytes` and what follows it; `None` when the frame is torn.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, Error> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Ok(None);
    };
    let (length, checksum) = parse_head(head)?;
    let Some((payload, rest)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    check(payload, checksum)?;
    Ok(Some((payload, rest)))
}

/// The next payload of a stream; `None` when it ended between two frames.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, Error> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    while filled < HEAD_BYTES {
        match stream
            .read(&mut head[filled..])
            .await
            .map_err(Error::Connection)?
        {
            0 if filled == 0 => return Ok(None),
            0 => return Err(Error::Closed),
            n => filled += n,
        }
    }
    let (length, checksum) = parse_head(&head)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.map_err(Error::Connection)?;
    check(&payload, checksum)?;
    Ok(Some(payload))
}

fn parse_head(head: &[u8]) -> Result<(usize, u32), Error> {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    let length = usize::try_from(word(0)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES {
        return Err(Error::FrameTooLong(length));
    }
    Ok((length, word(4)))
}

fn check(payload: &[u8], checksum: u32) -> Result<(), Error> {
    if crc32fast::hash(payload) == checksum {
        Ok(())
    } else {
        Err(Error::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_round_trip() {
        let frame = encode(&vec!["a", "b"]).unwrap();
        let (payload, rest) = split(&frame).unwrap().unwrap();
        assert!(rest.is_empty());
        assert_eq!(message::<Vec<String>>(payload).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_torn_frame_is_none_and_a_changed_one_an_error() {
        let frame = encode(&"hello").unwrap();
        for end in 0..frame.len() {
            assert!(split(&frame[..end]).unwrap().is_none(), "{end}");
        }
        for at in 4..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert!(split(&changed).is_err(), "{at}");
        }
    }

    #[test]
    fn another_format_is_told_from_nonsense() {
        let frame = encode_as(99, &"later").unwrap();
        let (payload, _) = split(&frame).unwrap().unwrap();
        assert!(matches!(
            message::<String>(payload),
            Err(Error::UnknownFormat(99))
        ));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
        let mut frame = encode(&"x").unwrap();
        frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(split(&frame), Err(Error::FrameTooLong(_))));
    }
}
