//! A small HTTP client that hides nothing: one connection is one connection, and no request is sent twice.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::Failure;
use crate::wait::wait_for;

/// Longest wait for a whole answer, in milliseconds.
const ANSWER_MS: u64 = 30_000;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
    /// The header `x-version` of the tests' target.
    pub version: Option<String>,
    /// Whether the server said that it closes the connection.
    pub closes: bool,
}

/// One connection to the edge.
pub struct Connection {
    send: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Connects; requests carry this host.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open(address: SocketAddr, host: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            send,
            host: host.to_owned(),
        })
    }

    /// Connects to a server on a Unix socket.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open_unix(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket).await?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            send,
            host: "localhost".to_owned(),
        })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// Whatever loses the request: refused, reset, truncated, too slow.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .body(Full::new(body))?;
        self.exchange(request).await
    }

    /// Sends JSON to the API with a token.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_json(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("if-match", "*")
            .body(Full::new(Bytes::from(body.to_string())))?;
        self.exchange(request).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let exchange = async {
            self.send.ready().await?;
            let response = self.send.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            let text = |name: &str| {
                head.headers
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned)
            };
            Ok::<_, Failure>(Answer {
                status: head.status.as_u16(),
                body: String::from_utf8_lossy(&body).into_owned(),
                version: text("x-version"),
                closes: text("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
            })
        };
        tokio::time::timeout(Duration::from_millis(ANSWER_MS), exchange)
            .await
            .map_err(|_| format!("no whole answer in {ANSWER_MS} ms"))?
    }
}

/// `GET` on a connection of its own.
///
/// # Errors
/// As [`Connection::send`].
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer, Failure> {
    Connection::open(address, host)
        .await?
        .send(Method::GET, path, Bytes::new())
        .await
}

/// Waits until `/` of a host answers as it should.
///
/// # Errors
/// What it answered last, when the time is over.
pub async fn wait_for_answer(
    address: SocketAddr,
    host: &str,
    deadline: Duration,
    expected: impl Fn(&Answer) -> bool,
) -> Result<(), Failure> {
    let what = format!("the right answer of {host}");
    wait_for(&what, deadline, || async {
        match get(address, host, "/").await {
            Ok(answer) if expected(&answer) => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}
