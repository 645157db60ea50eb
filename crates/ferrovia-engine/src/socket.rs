//! HTTP over a Unix socket with connections that are used again: how the Docker engine and the fake one are spoken to.
//!
//! A failure says whether the request can have arrived: [`Failure::Unreachable`] never did, [`Failure::Lost`] may have.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tower_service::Service;

/// Idle connections that are kept.
const IDLE_CONNECTIONS: usize = 8;
/// How long an idle connection is kept, in milliseconds.
const IDLE_TIMEOUT_MS: u64 = 30_000;
/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest line of a stream, in bytes.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody took the request.
    Unreachable(String),
    /// The request was sent, or may have been.
    Lost {
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
}

/// A server at a Unix socket. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Socket {
    path: Arc<PathBuf>,
    client: Client<Connector, Full<Bytes>>,
}

impl Socket {
    /// A client for the socket at `path`; connects when first used.
    pub fn new(path: &Path) -> Self {
        let path = Arc::new(path.to_owned());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(IDLE_TIMEOUT_MS))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(Connector(path.clone()));
        Self { path, client }
    }

    /// Sends a request and reads the whole answer, all within `timeout_ms`.
    pub async fn call(
        &self,
        request: Request<Full<Bytes>>,
        timeout_ms: u64,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let begun = Instant::now();
        let exchange = async {
            let response = self.send(request, begun).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            Ok((status, body.map_err(|_| lost(begun))?.to_bytes()))
        };
        deadline(exchange, begun, timeout_ms).await
    }

    /// Sends a request and waits for the head of the answer, within `timeout_ms`.
    pub async fn open(
        &self,
        request: Request<Full<Bytes>>,
        timeout_ms: u64,
    ) -> Result<Response<Incoming>, Failure> {
        let begun = Instant::now();
        deadline(self.send(request, begun), begun, timeout_ms).await
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        begun: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        self.client.request(request).await.map_err(|error| {
            if error.is_connect() {
                Failure::Unreachable(format!("`{}`: {}", self.path.display(), root(&error)))
            } else {
                lost(begun)
            }
        })
    }
}

async fn deadline<T>(
    exchange: impl Future<Output = Result<T, Failure>>,
    begun: Instant,
    timeout_ms: u64,
) -> Result<T, Failure> {
    let limit = Duration::from_millis(timeout_ms);
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(lost(begun)))
}

fn lost(begun: Instant) -> Failure {
    Failure::Lost {
        after_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// The innermost reason: `No such file or directory`.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The lines of a body as they come; an error ends it.
pub fn lines(body: Incoming) -> BoxStream<'static, io::Result<Bytes>> {
    let next = |state: Option<(Incoming, BytesMut)>| async move {
        let (mut body, mut buffer) = state?;
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze().slice(..end);
                return Some((Ok(line), Some((body, buffer))));
            }
            if buffer.len() > MAX_LINE_BYTES {
                return Some((
                    Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long")),
                    None,
                ));
            }
            match body.frame().await {
                Some(Ok(frame)) => buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Some((Err(io::Error::other(error)), None)),
                None if buffer.is_empty() => return None,
                None => return Some((Ok(buffer.freeze()), None)),
            }
        }
    };
    unfold(Some((body, BytesMut::new())), next)
        .filter(|line| {
            let blank = line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty());
            std::future::ready(!blank)
        })
        .boxed()
}

#[derive(Clone)]
struct Connector(Arc<PathBuf>);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path.as_path()).await.map(TokioIo::new) })
    }
}
