//! Contents of files as one body: each a line of its digest and its size, then exactly as many bytes.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A file to be sent.
#[derive(Debug, Clone)]
pub struct Content {
    /// What it was when the directory was read.
    pub digest: String,
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes it had when the directory was read.
    pub size: u64,
}

struct Sending {
    waiting: VecDeque<Content>,
    open: Option<(File, u64)>,
}

/// The body. A file that is shorter by now is filled up: the server then says that it changed.
pub fn framed(contents: Vec<Content>) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let sending = Sending {
        waiting: contents.into(),
        open: None,
    };
    unfold(sending, |mut sending| async move {
        let piece = sending.piece().await.transpose()?;
        Some((piece, sending))
    })
}

impl Sending {
    async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            let Some((file, left)) = &mut self.open else {
                let Some(Content { digest, path, size }) = self.waiting.pop_front() else {
                    break;
                };
                piece.extend_from_slice(format!("{digest} {size}\n").as_bytes());
                self.open = Some((File::open(path).await?, size));
                continue;
            };
            let room = (PIECE_BYTES as u64).min(*left);
            let read = file.take(room).read_to_end(&mut piece).await? as u64;
            *left -= read;
            if read < room {
                let missing = room - read;
                piece.resize(piece.len() + usize::try_from(missing).unwrap_or_default(), 0);
                *left -= missing;
            }
            if *left == 0 {
                self.open = None;
            }
        }
        Ok((!piece.is_empty()).then_some(piece))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn every_byte_after_its_head() {
        let directory = tempfile::tempdir().unwrap();
        let large = vec![b'x'; 3 * PIECE_BYTES + 7];
        let file = |name: &str, content: &[u8], size: usize| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            Content {
                digest: format!("d-{name}"),
                path,
                size: size as u64,
            }
        };
        let contents = vec![
            file("empty", b"", 0),
            file("large", &large, large.len()),
            file("shorter", b"ab", 4),
            file("longer", b"abcdef", 3),
        ];
        let pieces: Vec<Vec<u8>> = framed(contents).try_collect().await.unwrap();
        let mut wanted = format!("d-empty 0\nd-large {}\n", large.len()).into_bytes();
        wanted.extend_from_slice(&large);
        wanted.extend_from_slice(b"d-shorter 4\nab\0\0d-longer 3\nabc");
        assert_eq!(pieces.concat(), wanted);
    }
}
