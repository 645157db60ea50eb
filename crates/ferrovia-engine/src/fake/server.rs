//! The fake engine as a process: the trait's calls over a Unix socket.
//!
//! Every call runs to its end whether or not its caller still waits, as it does in a real engine.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ferrovia_core::workload::Workload;
use futures_util::stream::{self, StreamExt};
use http::{Request as HttpRequest, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Options;
use super::listeners::Listeners;
use super::log::Logs;
use super::memory::Memory;
use super::wire::{Answer, CALL_PATH, EVENTS_PATH, HEARTBEAT_MS, ORDER_PATH, Order, Request, WireWorkload};
use crate::{Engine, Error, Hint};

/// Connections that are served at a time; more of them wait.
const MAX_CONNECTIONS: usize = 256;
/// Largest call, in bytes.
const MAX_CALL_BYTES: usize = 16 << 20;
/// Only its owner may speak to the socket: variables pass it in clear.
const SOCKET_MODE: u32 = 0o600;
/// Longest sleep when nothing is due, in milliseconds.
const IDLE_MS: i64 = 60_000;

/// What a fake engine is served with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where it listens. A socket that nobody answers at is replaced.
    pub socket: PathBuf,
    /// Directory for the logs of its replicas; none: no logs.
    pub logs: Option<PathBuf>,
    /// How it behaves.
    pub engine: Options,
}

/// Why a fake engine does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one answers at the socket.
    #[error("a fake engine serves at `{0}` already")]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("the fake engine cannot listen at `{path}`")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory for logs cannot be made.
    #[error("the fake engine cannot write logs")]
    Logs(#[source] io::Error),
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct State {
    memory: Memory,
    listeners: Listeners,
    logs: Arc<Logs>,
}

/// Serves a fake engine until `shutdown` ends; all its replicas end with it.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub async fn serve(options: ServeOptions, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let listener = listen(&options.socket).await?;
    let logs = Arc::new(Logs::new(options.logs).map_err(ServeError::Logs)?);
    let memory = Memory::new(options.engine, Arc::new(now_ms));
    let listeners = Listeners::new(memory.clone(), logs.clone());
    let state = Arc::new(State {
        memory,
        listeners,
        logs,
    });
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_time(state.clone()));
    tokio::pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = connections.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (accepted, permit) = accept => {
                let Ok((stream, _)) = accepted else { continue };
                let state = state.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    connection(stream, state).await;
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
    state.listeners.end().await;
    // Whoever starts next replaces it anyway.
    let _ = std::fs::remove_file(&options.socket);
    Ok(())
}

async fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::Taken(path.to_owned()));
    }
    let failed = |source| ServeError::Listen {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Does what time alone changes, and follows every change with the replicas' servers.
async fn keep_time(state: Arc<State>) {
    let mut changes = state.memory.changes();
    loop {
        state.memory.tick();
        changes.mark_unchanged();
        state.listeners.sync().await;
        let due_in_ms = state
            .memory
            .next_due_ms()
            .map_or(IDLE_MS, |due_ms| (due_ms - now_ms()).clamp(1, IDLE_MS));
        let wait = Duration::from_millis(u64::try_from(due_in_ms).unwrap_or(1));
        // A change or the time, whichever is first; the sender lives as long as the state.
        let _ = tokio::time::timeout(wait, changes.changed()).await;
    }
}

async fn connection(stream: UnixStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.respond(request).await) }
    });
    // A client that goes away is its own affair.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl State {
    async fn respond(self: Arc<Self>, request: HttpRequest<Incoming>) -> Response<Body> {
        match request.uri().path() {
            EVENTS_PATH => self.events().await,
            ORDER_PATH => match read(request).await {
                Some(order) => answer(self.order(order).await),
                None => plain(StatusCode::BAD_REQUEST, Bytes::new()),
            },
            CALL_PATH => match read(request).await {
                Some(call) => self.spawned(call).await,
                None => plain(StatusCode::BAD_REQUEST, Bytes::new()),
            },
            _ => plain(StatusCode::NOT_FOUND, Bytes::new()),
        }
    }

    async fn spawned(self: Arc<Self>, call: Request) -> Response<Body> {
        let memory = self.memory.clone();
        let mut task = tokio::spawn(async move { self.call(call).await });
        tokio::select! {
            result = &mut task => match result {
                Ok(result) => answer(result),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
            },
            // Its caller died by the script; nobody waits for it any more.
            () = memory.revived() => {
                task.abort();
                plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::new())
            }
        }
    }

    async fn call(&self, request: Request) -> Result<Value, Error> {
        let memory = &self.memory;
        let result = match request {
            Request::Info => value(memory.info().await?),
            Request::FindImage { image } => value(memory.find_image(&image).await?),
            Request::EnsureImage { image } => value(memory.fetch(&image).await?),
            Request::Images { prefix } => value(memory.images(&prefix).await?),
            Request::RemoveImage { image } => value(memory.remove_image(&image).await?),
            Request::Apply { workload } => value(memory.apply(&reachable(*workload)?).await?),
            Request::Prepare { workload } => value(memory.prepare(&reachable(*workload)?).await?),
            Request::Observe { scope } => value(memory.observe(scope).await?),
            Request::Find { handle } => value(memory.find(&handle).await?),
            Request::Start { handle } => value(memory.start(&handle).await?),
            Request::SetRestart { handle, restart } => value(memory.set_restart(&handle, restart).await?),
            Request::Stop { handle, grace_ms } => value(memory.stop(&handle, grace_ms).await?),
            Request::Remove { handle } => {
                memory.remove(&handle).await?;
                self.logs.remove(&handle);
                value(())
            }
            Request::Stats { handle } => value(memory.stats(&handle).await?),
            Request::LogFile { handle } => {
                memory.log_file(&handle).await?;
                let there = memory.variables(&handle).is_some();
                value(self.logs.path(&handle).filter(|_| there))
            }
            Request::ProcessId { handle } => value(memory.process_id(&handle).await?),
        };
        self.listeners.sync().await;
        result
    }

    async fn order(&self, order: Order) -> Result<Value, Error> {
        let memory = &self.memory;
        let result = match order {
            Order::Steps { of } => value(of.map_or_else(|| memory.steps(), |call| memory.count(call))),
            Order::Killed => {
                memory.killed().await;
                value(())
            }
            Order::SetScript { script } => {
                memory.set_script(script);
                value(())
            }
            Order::Revive => {
                memory.revive();
                value(())
            }
            Order::Crash {
                handle,
                code,
                out_of_memory,
            } => {
                memory.crash(&handle, code, out_of_memory);
                value(())
            }
            Order::Reboot => {
                memory.reboot();
                value(())
            }
        };
        self.listeners.sync().await;
        result
    }

    async fn events(&self) -> Response<Body> {
        let hints = match self.memory.events().await {
            Ok(hints) => hints,
            Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(error.to_string())),
        };
        let lines = stream::unfold(hints, |mut hints| async move {
            let line = match tokio::time::timeout(Duration::from_millis(HEARTBEAT_MS), hints.next()).await {
                Ok(Some(Ok(Hint { instance_id }))) => {
                    serde_json::json!({ "instance_id": instance_id }).to_string()
                }
                Ok(Some(Err(_)) | None) => return None,
                Err(_) => "{}".to_owned(),
            };
            Some((Ok(Frame::data(Bytes::from(line + "\n"))), hints))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

async fn read<T: DeserializeOwned>(request: HttpRequest<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), MAX_CALL_BYTES).collect().await;
    serde_json::from_slice(&body.ok()?.to_bytes()).ok()
}

/// A workload whose replicas can listen: on addresses that every host has.
fn reachable(wire: WireWorkload) -> Result<Workload, Error> {
    let workload = Workload::from(wire);
    let mut addresses = workload.replicas.iter().filter_map(|slot| slot.address);
    match addresses.find(|address| !address.is_loopback()) {
        Some(address) => Err(Error::Refused {
            call: "create",
            why: format!("the fake engine's replicas need addresses of 127.0.0.0/8, `{address}` is none"),
        }),
        None => Ok(workload),
    }
}

fn value(result: impl Serialize) -> Result<Value, Error> {
    let failed = |error: serde_json::Error| Error::Refused {
        call: "answer",
        why: error.to_string(),
    };
    serde_json::to_value(result).map_err(failed)
}

fn answer(result: Result<Value, Error>) -> Response<Body> {
    let answer = match result {
        Ok(value) => Answer::Ok(value),
        Err(error) => Answer::Error(error.into()),
    };
    match serde_json::to_vec(&answer) {
        Ok(body) => plain(StatusCode::OK, Bytes::from(body)),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    }
}

fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response
}
