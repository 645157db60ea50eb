//! The listeners of control: the API's TCP with what is known of the peer, the Unix socket of the host's owner, and the
//! registry's two, for engines and for builds.
//!
//! One task per connection, and one way to serve them all. Bounds that belong to a connection are here: how long a head
//! may take to come, how large it may be, how many connections there are.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_service::Service;

use super::auth::Peer;
use super::pace::Paced;

/// The API's listeners.
pub const API: Bounds = Bounds {
    connections: 1_024,
    head_timeout_ms: 10_000,
};
/// The registry's listener for engines: an engine pulls a few layers of a few images at once.
pub const REGISTRY: Bounds = Bounds {
    connections: 256,
    head_timeout_ms: 10_000,
};
/// The registry's listener inside the network of builds, which only BuildKit and its clients reach. They use a connection
/// again for up to two minutes, and an upload on one that is just being closed fails.
pub const BUILDS_REGISTRY: Bounds = Bounds {
    connections: 256,
    head_timeout_ms: 150_000,
};
/// Largest head of a request, in bytes.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Most header fields of a request.
pub const MAX_HEADERS: usize = 100;
/// Longest time for a client to take a piece of an answer, in milliseconds.
pub const WRITE_PROGRESS_MS: u64 = 30_000;
/// How long requests in hand may go on once the server ends, in milliseconds.
pub const SHUTDOWN_GRACE_MS: u64 = 5_000;
/// Pause after a connection could not be accepted (no file descriptors left), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Bounds on the connections of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections that are open at once; the next ones wait in the kernel's queue.
    pub connections: usize,
    /// Longest time for a request's head to come, from the connection's beginning or the answer before, in milliseconds.
    pub head_timeout_ms: u64,
}

/// Cancelled when the server ends; in each request, for answers that would last beyond it.
#[derive(Debug, Clone)]
pub struct Ending(pub CancellationToken);

/// The Unix socket at `path`: made anew, for its owner only.
///
/// # Errors
/// When the old file cannot be removed or the socket cannot be made.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the API over TCP until `ended`, then lets requests in hand finish for a while.
pub async fn serve_tcp(listener: TcpListener, router: Router, ended: CancellationToken) {
    serve_bounded(listener, router, API, ended).await;
}

/// As [`serve_tcp`], with other bounds. Dropping it cuts its connections.
pub async fn serve_bounded(listener: TcpListener, router: Router, bounds: Bounds, ended: CancellationToken) {
    let server = Server::new(router, bounds, ended.clone());
    while let Some(permit) = server.turn(&ended).await {
        tokio::select! {
            () = ended.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    // A small answer must not wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    server.spawn(stream, Peer::Address(address.ip().to_canonical()), permit);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    server.finish().await;
}

/// How a builder serves the registry inside the network of builds.
pub fn builds_registry() -> ferrovia_build::registry::Serve {
    Arc::new(|listener, router| {
        serve_bounded(listener, router, BUILDS_REGISTRY, CancellationToken::new()).boxed()
    })
}

/// Serves over a Unix socket until `ended`. Who is not root and not this process' own user is not let in.
pub async fn serve_unix(listener: UnixListener, router: Router, ended: CancellationToken) {
    let server = Server::new(router, API, ended.clone());
    let own = rustix::process::geteuid().as_raw();
    while let Some(permit) = server.turn(&ended).await {
        tokio::select! {
            () = ended.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match stream.peer_cred().map(|peer| peer.uid()) {
                    Ok(uid) if uid == 0 || uid == own => server.spawn(stream, Peer::User { uid }, permit),
                    Ok(uid) => tracing::warn!(uid, "a user without the right to it spoke to the API's socket"),
                    Err(error) => tracing::warn!(%error, "who speaks to the API's socket is unknown"),
                },
                Err(error) => pause(&error).await,
            },
        }
    }
    server.finish().await;
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

struct Server {
    router: Router,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    head_timeout: Duration,
    ended: CancellationToken,
    /// Cancelled when no connection may go on: with the server, however it ends.
    cut: DropGuard,
}

impl Server {
    fn new(router: Router, bounds: Bounds, ended: CancellationToken) -> Self {
        Self {
            router,
            connections: Arc::new(Semaphore::new(bounds.connections)),
            graceful: GracefulShutdown::new(),
            head_timeout: Duration::from_millis(bounds.head_timeout_ms),
            ended,
            cut: CancellationToken::new().drop_guard(),
        }
    }

    /// Waits for room for one more connection; none once the server ends.
    async fn turn(&self, ended: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = ended.cancelled() => None,
            permit = self.connections.clone().acquire_owned() => permit.ok(),
        }
    }

    fn spawn(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
        permit: OwnedSemaphorePermit,
    ) {
        let stream = Paced::new(stream, Duration::from_millis(WRITE_PROGRESS_MS));
        let (router, ending) = (self.router.clone(), Ending(self.ended.clone()));
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (mut router, ending) = (router.clone(), ending.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(ending);
                router.call(request).await.map_err(|never: Infallible| never)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        let cut = self.cut.token().clone();
        tokio::spawn(async move {
            tokio::select! {
                // A client that goes away is no event of ours.
                _ = connection => {}
                () = cut.cancelled() => {}
            }
            drop(permit);
        });
    }

    async fn finish(self) {
        let grace = Duration::from_millis(SHUTDOWN_GRACE_MS);
        let _ = tokio::time::timeout(grace, self.graceful.shutdown()).await;
        drop(self.cut);
    }
}
