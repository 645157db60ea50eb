//! A replica's socket, where an answer outweighs a failed write.
//!
//! A server that answers an upload early and closes makes the next write fail while its answer waits to be read. hyper
//! gives up at the failed write, so the failure is kept from it: what is written from then on goes nowhere, the reading
//! side says how it ends, and the connection is never used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The socket of a replica.
#[derive(Debug)]
pub struct ReplicaIo {
    stream: TcpStream,
    broken: Arc<AtomicBool>,
}

impl ReplicaIo {
    /// A socket, and what tells whether a write to it has failed.
    pub fn new(stream: TcpStream) -> (Self, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        (
            Self {
                stream,
                broken: Arc::clone(&broken),
            },
            broken,
        )
    }

    /// The socket itself.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn wrote(&self, result: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(_)) => {
                self.broken.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(bytes))
            }
            result => result,
        }
    }
}

impl AsyncRead for ReplicaIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ReplicaIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(result, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(result, pieces.iter().map(|piece| piece.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
