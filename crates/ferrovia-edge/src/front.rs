//! The client's side of HTTP/1.1: hyper's server connection between a socket and [`exchange::serve`].
//!
//! Everything that depends on hyper's server is in this file, so that another one can take its place.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::config::{MAX_BUFFER_BYTES, MAX_HEAD_BYTES, MAX_REQUESTS_PER_CONNECTION};
use crate::exchange;
use crate::io::ClientIo;
use crate::watch::{Kick, Watch};
use crate::worker::{Registration, Worker};

/// Pause after an accept that failed (open files ran out), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Pause while there is no room for another connection, in milliseconds.
const ROOM_PAUSE_MS: u64 = 10;
/// How long a client may go on sending a body that nobody reads, so that it sees the answer, in milliseconds.
const LINGER_MS: u64 = 2_000;
/// How much of such a body is thrown away at most, in bytes.
const LINGER_BYTES: usize = 4 << 20;
/// Silence after which the kernel asks whether a client is still there, and how often it asks.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// Accepts connections for ever.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let watch = Arc::new(Watch::default());
                watch.accepted(&worker.config.patience);
                let registration = worker.register(&watch, peer);
                spawn_local(serve(Rc::clone(&worker), stream, watch, registration));
                // Others wait in the backlog, not here, where they would be lost when the listener passes on.
                while !worker.has_room() {
                    sleep(Duration::from_millis(ROOM_PAUSE_MS)).await;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!("no connection was accepted: {error}");
                sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// One connection of a client.
async fn serve(worker: Rc<Worker>, stream: TcpStream, watch: Arc<Watch>, registration: Registration) {
    if prepare(&stream).is_err() {
        return;
    }
    let patience = worker.config.patience;
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&watch), patience));
    let requests = Cell::new(0_u32);
    let service = service_fn(|request| {
        requests.set(requests.get() + 1);
        let last = requests.get() >= MAX_REQUESTS_PER_CONNECTION;
        let (worker, watch, client) = (Rc::clone(&worker), Arc::clone(&watch), registration.client);
        async move { Ok::<_, Infallible>(exchange::serve(worker, watch, client, last, request).await) }
    });
    let mut connection = http1::Builder::new()
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    let ended = loop {
        tokio::select! {
            biased;
            ended = Pin::new(&mut connection) => break ended.is_ok(),
            kick = watch.kicked() => match kick {
                Kick::Finish => Pin::new(&mut connection).graceful_shutdown(),
                _ => break false,
            },
        }
    };
    let Some(parts) = connection.into_parts() else {
        return;
    };
    let stream = parts.io.into_inner().into_inner();
    leave(stream, ended, &watch, registration).await;
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, interval, count) = TCP_KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)?;
    Ok(())
}

/// Closes a connection so that the client sees what happened: a cut answer as a reset, since without a length the end
/// of the connection would look like the end of the answer; an early answer before the end of its own request.
async fn leave(mut stream: TcpStream, ended: bool, watch: &Watch, registration: Registration) {
    if !ended && watch.is_aborted() {
        // A socket that refuses this is closed in the ordinary way.
        let _ = stream.set_zero_linger();
        return;
    }
    if !ended || !watch.is_unread() {
        return;
    }
    let unread = async {
        let mut buffer = [0; 4096];
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => thrown_away += n,
            }
        }
    };
    let _ = timeout(Duration::from_millis(LINGER_MS), unread).await;
    drop(registration);
}
