//! Where WebSocket frames end (RFC 6455 section 5.2), so that a close frame can be put between two of them.
//!
//! Lengths are followed, contents are not looked at: extensions and masks do not matter here.

/// The close frame of a server that goes away: status 1001 (RFC 6455 section 7.4.1), not masked.
pub const GOING_AWAY_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same as a client sends it, masked with zeros.
pub const GOING_AWAY_TO_SERVER: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of the current frame's head so far.
    head: [u8; 14],
    head_bytes: usize,
    /// Bytes of the current frame's content that are still to come.
    content: u64,
    closed: bool,
}

impl Frames {
    /// Whether a frame ends right before the next byte.
    pub const fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.content == 0
    }

    /// Whether this direction has sent its close frame: nothing may follow it.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes bytes until the first end of a frame among them; how many that were. All, when none ends.
    pub fn until_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
            if self.at_boundary() {
                break;
            }
        }
        at
    }

    /// Takes all bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
    }

    /// Takes a piece of a frame, at least one byte and never beyond the frame's end.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.content > 0 {
            let taken = self.content.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            self.content -= taken;
            return usize::try_from(taken).unwrap_or(bytes.len());
        }
        self.head[self.head_bytes] = bytes[0];
        self.head_bytes += 1;
        if self.head_bytes >= 2 {
            let extended = match self.head[1] & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
            if self.head_bytes == 2 + extended + mask {
                self.content = match extended {
                    0 => u64::from(self.head[1] & 0x7f),
                    _ => self.head[2..2 + extended]
                        .iter()
                        .fold(0, |length, &byte| length << 8 | u64::from(byte)),
                };
                self.closed |= self.head[0] & 0x0f == 0x8;
                self.head_bytes = 0;
            }
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, content: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match content {
            0..126 => bytes.push(mask | u8::try_from(content).unwrap()),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&u16::try_from(content).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&u64::try_from(content).unwrap().to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(0xAA, content + if masked { 4 } else { 0 }));
        bytes
    }

    #[test]
    fn close_frames_are_seen() {
        let mut frames = Frames::default();
        frames.take(&frame(1, false, 3));
        assert!(frames.at_boundary() && !frames.is_closed());
        frames.take(&GOING_AWAY_TO_CLIENT);
        assert!(frames.at_boundary() && frames.is_closed());
        let mut frames = Frames::default();
        frames.take(&GOING_AWAY_TO_SERVER);
        assert!(frames.at_boundary() && frames.is_closed());
    }

    proptest! {
        #[test]
        fn boundaries_are_where_frames_end(
            sizes in proptest::collection::vec((prop_oneof![0usize..300, 65_530usize..65_540], any::<bool>()), 1..6),
            cut in 1usize..5_000,
        ) {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (size, masked) in sizes {
                bytes.extend(frame(2, masked, size));
                ends.push(bytes.len());
            }
            let mut frames = Frames::default();
            let mut at = 0;
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let taken = frames.until_boundary(rest);
                    prop_assert!(taken > 0);
                    at += taken;
                    rest = &rest[taken..];
                    if frames.at_boundary() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, ends);
        }
    }
}
