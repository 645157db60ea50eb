//! The client of a fake engine that is a process of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferrovia_core::id::InstanceId;
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, Workload};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::{Request as HttpRequest, StatusCode};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::faults::{Call, Script};
use super::wire::{Answer, CALL_PATH, EVENTS_PATH, HEARTBEAT_MS, ORDER_PATH, Order, Request};
use crate::socket::{Failure, Socket, lines};
use crate::{Capabilities, Engine, EngineInfo, Error, Hint, ImageInfo, RegistryLogin, Scope, Stats};

/// How long a call may take, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 30_000;
/// How long a scripted kill is waited for, in milliseconds.
const KILL_TIMEOUT_MS: u64 = 600_000;

/// A fake engine at a socket. Cheap to clone; connects when it is first used.
#[derive(Clone)]
pub struct FakeEngine {
    socket: Socket,
}

impl FakeEngine {
    /// The engine that serves at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: Socket::new(socket),
        }
    }

    /// Puts another script in place; counting of steps starts again.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer.
    pub async fn set_script(&self, script: Script) -> Result<(), Error> {
        self.order("set script", Order::SetScript { script }).await
    }

    /// Steps since the script was set; of one kind, when it is named.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer.
    pub async fn steps(&self, of: Option<Call>) -> Result<u64, Error> {
        self.order("steps", Order::Steps { of }).await
    }

    /// Ends once a scripted kill was met: the caller is to be killed now, at a known step.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer, or nothing is met for ten minutes.
    pub async fn killed(&self) -> Result<(), Error> {
        self.send("killed", ORDER_PATH, Order::Killed, KILL_TIMEOUT_MS)
            .await
    }

    /// A new caller takes over after a scripted kill.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer.
    pub async fn revive(&self) -> Result<(), Error> {
        self.order("revive", Order::Revive).await
    }

    /// Ends a replica's process as if it had crashed.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer.
    pub async fn crash(&self, handle: &str, code: i32, out_of_memory: bool) -> Result<(), Error> {
        let handle = handle.to_owned();
        self.order(
            "crash",
            Order::Crash {
                handle,
                code,
                out_of_memory,
            },
        )
        .await
    }

    /// Ends everything and starts what the restart policies say, as a reboot of the host does.
    ///
    /// # Errors
    /// [`Error`] when the engine does not answer.
    pub async fn reboot(&self) -> Result<(), Error> {
        self.order("reboot", Order::Reboot).await
    }

    async fn order<T: DeserializeOwned>(&self, name: &'static str, order: Order) -> Result<T, Error> {
        self.send(name, ORDER_PATH, order, CALL_TIMEOUT_MS).await
    }

    async fn call<T: DeserializeOwned>(&self, name: &'static str, request: Request) -> Result<T, Error> {
        self.send(name, CALL_PATH, request, CALL_TIMEOUT_MS).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        name: &'static str,
        path: &str,
        body: impl Serialize,
        timeout_ms: u64,
    ) -> Result<T, Error> {
        let refused = |why: String| Error::Refused { call: name, why };
        let body = serde_json::to_vec(&body).map_err(|error| refused(error.to_string()))?;
        let request = http_request(path, Bytes::from(body)).map_err(&refused)?;
        let answer = self.socket.call(request, timeout_ms).await;
        let (status, body) = answer.map_err(|failure| failed(name, failure))?;
        if status != StatusCode::OK {
            return Err(refused(format!("status {status}")));
        }
        match serde_json::from_slice(&body).map_err(|error| refused(error.to_string()))? {
            Answer::Ok(value) => serde_json::from_value(value).map_err(|error| refused(error.to_string())),
            Answer::Error(error) => Err(error.into()),
        }
    }
}

fn http_request(path: &str, body: Bytes) -> Result<HttpRequest<Full<Bytes>>, String> {
    let request = HttpRequest::post(format!("http://fake{path}")).body(Full::new(body));
    request.map_err(|error| error.to_string())
}

fn failed(call: &'static str, failure: Failure) -> Error {
    match failure {
        Failure::Unreachable(why) => Error::Unavailable(why),
        Failure::Lost { after_ms } => Error::Unknown {
            call,
            timeout_ms: after_ms,
        },
    }
}

/// A line of the stream of hints; without an id it only says that the engine lives.
#[derive(Deserialize)]
struct Line {
    instance_id: Option<InstanceId>,
}

#[async_trait]
impl Engine for FakeEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            static_addresses: true,
            pause: false,
            socket_inspection: false,
        }
    }

    async fn info(&self) -> Result<EngineInfo, Error> {
        self.call("info", Request::Info).await
    }

    async fn find_image(&self, image: &ImageReference) -> Result<Option<ImageInfo>, Error> {
        self.call("find image", Request::FindImage { image: image.clone() })
            .await
    }

    async fn ensure_image(&self, image: &ImageReference, _: &RegistryLogin) -> Result<ImageInfo, Error> {
        self.call("ensure image", Request::EnsureImage { image: image.clone() })
            .await
    }

    async fn images(&self, repository_prefix: &str) -> Result<Vec<ImageReference>, Error> {
        self.call(
            "images",
            Request::Images {
                prefix: repository_prefix.to_owned(),
            },
        )
        .await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), Error> {
        self.call("remove image", Request::RemoveImage { image: image.clone() })
            .await
    }

    async fn apply(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.call(
            "apply",
            Request::Apply {
                workload: Box::new(workload.into()),
            },
        )
        .await
    }

    async fn prepare(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.call(
            "prepare",
            Request::Prepare {
                workload: Box::new(workload.into()),
            },
        )
        .await
    }

    async fn observe(&self, scope: Scope) -> Result<Vec<Observed>, Error> {
        self.call("observe", Request::Observe { scope }).await
    }

    async fn find(&self, handle: &str) -> Result<Option<Observed>, Error> {
        self.call(
            "find",
            Request::Find {
                handle: handle.to_owned(),
            },
        )
        .await
    }

    async fn start(&self, handle: &str) -> Result<(), Error> {
        self.call(
            "start",
            Request::Start {
                handle: handle.to_owned(),
            },
        )
        .await
    }

    async fn set_restart(&self, handle: &str, restart: EngineRestart) -> Result<(), Error> {
        self.call(
            "set restart",
            Request::SetRestart {
                handle: handle.to_owned(),
                restart,
            },
        )
        .await
    }

    async fn stop(&self, handle: &str, grace_ms: u32) -> Result<(), Error> {
        let request = Request::Stop {
            handle: handle.to_owned(),
            grace_ms,
        };
        self.send("stop", CALL_PATH, request, CALL_TIMEOUT_MS + u64::from(grace_ms))
            .await
    }

    async fn remove(&self, handle: &str) -> Result<(), Error> {
        self.call(
            "remove",
            Request::Remove {
                handle: handle.to_owned(),
            },
        )
        .await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Hint, Error>>, Error> {
        let refused = |why: String| Error::Refused { call: "events", why };
        let request = http_request(EVENTS_PATH, Bytes::new()).map_err(refused)?;
        let response = self
            .socket
            .open(request, CALL_TIMEOUT_MS)
            .await
            .map_err(|failure| failed("events", failure))?;
        if !response.status().is_success() {
            return Err(Error::Unavailable(format!("status {}", response.status())));
        }
        let next = |lines: Option<BoxStream<'static, std::io::Result<Bytes>>>| async move {
            let mut lines = lines?;
            loop {
                let silence = Duration::from_millis(HEARTBEAT_MS * 3);
                let line = match tokio::time::timeout(silence, lines.next()).await {
                    Ok(Some(Ok(line))) => line,
                    Ok(Some(Err(error))) => return Some((Err(Error::Unavailable(error.to_string())), None)),
                    Ok(None) => return None,
                    Err(_) => {
                        return Some((
                            Err(Error::Unavailable("the stream of hints is silent".into())),
                            None,
                        ));
                    }
                };
                if let Ok(Line {
                    instance_id: Some(instance_id),
                }) = serde_json::from_slice(&line)
                {
                    return Some((Ok(Hint { instance_id }), Some(lines)));
                }
            }
        };
        Ok(unfold(Some(lines(response.into_body())), next).boxed())
    }

    async fn stats(&self, handle: &str) -> Result<Option<Stats>, Error> {
        self.call(
            "stats",
            Request::Stats {
                handle: handle.to_owned(),
            },
        )
        .await
    }

    async fn log_file(&self, handle: &str) -> Result<Option<PathBuf>, Error> {
        self.call(
            "log file",
            Request::LogFile {
                handle: handle.to_owned(),
            },
        )
        .await
    }

    async fn process_id(&self, handle: &str) -> Result<Option<u32>, Error> {
        self.call(
            "process id",
            Request::ProcessId {
                handle: handle.to_owned(),
            },
        )
        .await
    }
}
