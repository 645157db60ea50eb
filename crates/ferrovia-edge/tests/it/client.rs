//! Clients: one that writes bytes, one that speaks HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// Sends bytes; everything that comes back until the other end closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end like any other here; what came before it counts.
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A `GET` over a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let answer = raw(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .await;
    (
        status_of(&answer),
        answer
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
            .to_owned(),
    )
}

pub fn status_of(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// Reads up to the end of a head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(LIMIT, stream.read_u8())
            .await
            .expect("no head came")
            .expect("the connection ended");
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

/// A keep-alive connection.
pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    /// One request and its whole answer; a connection that the edge closed after an answer is replaced.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_err()
        {
            self.sender = None;
        }
        if self.sender.is_none() {
            self.sender = Some(connect(self.address).await?);
        }
        let sender = self.sender.as_mut().ok_or("no connection")?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| format!("no answer: {error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| format!("a cut answer: {error:?}"))?
                .to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        timeout(LIMIT, exchange)
            .await
            .map_err(|_| "no answer in time".to_owned())?
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.sender = None;
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    Ok(sender)
}
