//! A WebSocket that echoes (RFC 6455), for tests of what an open connection meets on its way. Text and binary frames
//! come back as they were sent, a ping gets its pong, a close its close. Extensions are not spoken.

use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is added to the client's key (section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest frame that is echoed, in bytes.
const MAX_FRAME_BYTES: u64 = 1 << 20;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The answer to a client's key.
pub(super) fn accept_key(key: &str) -> String {
    STANDARD.encode(digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{MAGIC}").as_bytes(),
    ))
}

/// Echoes until the other side closes or goes away.
pub(super) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if length > MAX_FRAME_BYTES || head[1] & 0x80 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame is too long or not masked",
            ));
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let opcode = head[0] & 0x0f;
        match opcode {
            PONG => {}
            PING => send(&mut stream, 0x80 | PONG, &payload).await?,
            CLOSE => {
                send(&mut stream, 0x80 | CLOSE, &payload).await?;
                return stream.shutdown().await;
            }
            _ => send(&mut stream, head[0], &payload).await?,
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_standard() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test]
    async fn frames_come_back() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let task = tokio::spawn(echo(server));
        for length in [0, 5, 125, 126, 70_000] {
            let payload = vec![b'x'; length];
            let mut frame = vec![0x82];
            match length {
                0..126 => frame.push(0x80 | length as u8),
                126..65_536 => {
                    frame.push(0xfe);
                    frame.extend((length as u16).to_be_bytes());
                }
                _ => {
                    frame.push(0xff);
                    frame.extend((length as u64).to_be_bytes());
                }
            }
            frame.extend([1, 2, 3, 4]);
            frame.extend(
                payload
                    .iter()
                    .zip([1, 2, 3, 4].iter().cycle())
                    .map(|(byte, mask)| byte ^ mask),
            );
            client.write_all(&frame).await.unwrap();
            let mut head = vec![
                0;
                match length {
                    0..126 => 2,
                    126..65_536 => 4,
                    _ => 10,
                }
            ];
            client.read_exact(&mut head).await.unwrap();
            let mut back = vec![0; length];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!((head[0], back), (0x82, payload));
        }
        client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut close = [0; 2];
        client.read_exact(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 0]);
        task.await.unwrap().unwrap();
    }
}
