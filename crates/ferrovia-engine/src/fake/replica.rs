//! What a fake replica answers. Any path: who it is, as JSON and in the fields `x-fake-number` and `x-fake-replica`,
//! with the status that its variables say. Below `/__fake/`:
//!
//! | path | |
//! |---|---|
//! | `env` | its variables, as a JSON object |
//! | `stream?chunks=10&bytes=1024&interval_ms=100` | a body in chunks, with time between them |
//! | `upload` | reads the body, answers `{"bytes":N}` |
//! | `ws` | a WebSocket that echoes |
//! | `log?lines=10&text=T` | writes lines to its log |
//! | `exit?code=1` | its process ends |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use super::log::Logs;
use super::memory::Memory;
use super::record::Replica;
use super::websocket;

/// Largest body that a stream has, in bytes.
const MAX_STREAM_BYTES: u64 = 1 << 30;
/// Most lines that one request writes.
const MAX_LINES: u64 = 1_000_000;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A replica that answers.
pub(super) struct Server {
    replica: Replica,
    memory: Memory,
    logs: Arc<Logs>,
    /// Who it is, ready to send.
    identity: Bytes,
    fields: HeaderMap,
}

impl Server {
    pub(super) fn new(replica: Replica, memory: Memory, logs: Arc<Logs>) -> Self {
        let owner = &replica.owner;
        let identity = json!({
            "name": replica.name,
            "replica_id": replica.slot.id,
            "deployment_id": owner.deployment_id,
            "instance_id": owner.instance_id,
            "number": owner.number,
            "service": owner.service,
            "started_at_ms": replica.started_at_ms,
        });
        let mut fields = HeaderMap::new();
        fields.insert("x-fake-number", HeaderValue::from(owner.number));
        if let Ok(name) = HeaderValue::from_str(&replica.name) {
            fields.insert("x-fake-replica", name);
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self {
            identity: Bytes::from(identity.to_string()),
            fields,
            replica,
            memory,
            logs,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let behaviour = &self.replica.behaviour;
        if behaviour.log_requests {
            self.logs.write(
                &self.replica.handle,
                &format!("{} {}", request.method(), request.uri()),
            );
        }
        if behaviour.response_delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(behaviour.response_delay_ms)).await;
        }
        let path = request.uri().path();
        let Some(special) = path.strip_prefix("/__fake/") else {
            let status = StatusCode::from_u16(behaviour.status_of(path)).unwrap_or(StatusCode::OK);
            return Ok(self.respond(status, self.identity.clone()));
        };
        let query = request.uri().query().unwrap_or_default().to_owned();
        Ok(match special {
            "env" => self.respond(StatusCode::OK, self.environment()),
            "stream" => self.streamed(&query),
            "upload" => self.upload(request.into_body()).await,
            "ws" => self.websocket(request),
            "log" => self.log(&query),
            "exit" => {
                let code = number(&query, "code").and_then(|code| i32::try_from(code).ok());
                self.memory.crash(&self.replica.handle, code.unwrap_or(1), false);
                self.respond(StatusCode::OK, Bytes::from_static(b"{}"))
            }
            _ => self.respond(StatusCode::NOT_FOUND, Bytes::from_static(b"{}")),
        })
    }

    fn respond(&self, status: StatusCode, body: Bytes) -> Response<Body> {
        let mut response = Response::new(Full::new(body).boxed_unsync());
        *response.status_mut() = status;
        *response.headers_mut() = self.fields.clone();
        response
    }

    fn environment(&self) -> Bytes {
        let pairs = self
            .replica
            .variables
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        Bytes::from(Value::Object(pairs.collect::<Map<_, _>>()).to_string())
    }

    fn streamed(&self, query: &str) -> Response<Body> {
        let bytes = number(query, "bytes").unwrap_or(1024);
        let chunks = number(query, "chunks")
            .unwrap_or(10)
            .min(MAX_STREAM_BYTES / bytes.max(1));
        let pause = Duration::from_millis(number(query, "interval_ms").unwrap_or(100));
        let chunk = Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap_or(0)]);
        let frames = stream::iter(0..chunks).then(move |at| {
            let chunk = chunk.clone();
            async move {
                if at > 0 {
                    tokio::time::sleep(pause).await;
                }
                Ok(Frame::data(chunk))
            }
        });
        let mut response = self.respond(StatusCode::OK, Bytes::new());
        *response.body_mut() = StreamBody::new(frames).boxed_unsync();
        response
    }

    async fn upload(&self, mut body: Incoming) -> Response<Body> {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return self.respond(StatusCode::BAD_REQUEST, Bytes::from_static(b"{}"));
            };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        self.respond(StatusCode::OK, Bytes::from(json!({ "bytes": bytes }).to_string()))
    }

    fn log(&self, query: &str) -> Response<Body> {
        let text = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "text");
        let text = text.map_or_else(|| "line".to_owned(), |(_, text)| text.into_owned());
        for at in 1..=number(query, "lines").unwrap_or(1).min(MAX_LINES) {
            self.logs.write(&self.replica.handle, &format!("{text} {at}"));
        }
        self.respond(StatusCode::OK, Bytes::from_static(b"{}"))
    }

    fn websocket(&self, mut request: Request<Incoming>) -> Response<Body> {
        let key = request
            .headers()
            .get("sec-websocket-key")
            .and_then(|key| key.to_str().ok());
        let Some(accept) = key.and_then(|key| HeaderValue::from_str(&websocket::accept_key(key)).ok()) else {
            return self.respond(StatusCode::BAD_REQUEST, Bytes::from_static(b"{}"));
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let mut response = self.respond(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
        let fields = response.headers_mut();
        fields.remove(header::CONTENT_TYPE);
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert("sec-websocket-accept", accept);
        let (memory, handle, started) = (
            self.memory.clone(),
            self.replica.handle.clone(),
            self.replica.started_at_ms,
        );
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            // It ends with its replica, as everything of a process does.
            tokio::select! {
                _ = websocket::echo(TokioIo::new(stream)) => {}
                () = memory.run_ended(&handle, started) => {}
            }
        });
        response
    }
}

fn number(query: &str, name: &str) -> Option<u64> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)?
        .1
        .parse()
        .ok()
}
