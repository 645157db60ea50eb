//! The listeners: TCP with what is known of the peer, and the Unix socket of the host's owner.
//!
//! One task per connection. Bounds that belong to a connection are here: how long a head may take to come, how large
//! it may be, how many connections there are.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::auth::Peer;
use super::pace::Paced;

/// Connections that are open at once, per listener.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Longest time for a request's head to come, in milliseconds.
pub const HEAD_TIMEOUT_MS: u64 = 10_000;
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

/// Serves over TCP until `ended`, then lets requests in hand finish for a while.
pub async fn serve_tcp(listener: TcpListener, router: Router, ended: CancellationToken) {
    let server = Server::new(router, ended.clone());
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

/// Serves over a Unix socket until `ended`. Who is not root and not this process' own user is not let in.
pub async fn serve_unix(listener: UnixListener, router: Router, ended: CancellationToken) {
    let server = Server::new(router, ended.clone());
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
    tracing::warn!(%error, "a connection to the API could not be accepted");
    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

struct Server {
    router: Router,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    ended: CancellationToken,
    /// Cancelled when no connection may go on.
    cut: CancellationToken,
}

impl Server {
    fn new(router: Router, ended: CancellationToken) -> Self {
        Self {
            router,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            graceful: GracefulShutdown::new(),
            ended,
            cut: CancellationToken::new(),
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
            .header_read_timeout(Duration::from_millis(HEAD_TIMEOUT_MS))
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        let cut = self.cut.clone();
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
        self.cut.cancel();
    }
}
