//! Servers behind the edge: one that behaves, and scripts that do not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A server; it ends, with all of its connections, when this is dropped.
pub struct App {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// Ends it at once, as a kill does, and waits until it is gone.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// A server that does with each connection what `script` says; the number counts them from 0.
    pub async fn script<F>(script: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        open.spawn(script(count.fetch_add(1, Ordering::SeqCst), stream));
                    }
                    Some(_) = open.join_next() => {}
                }
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// A server that behaves and says `name`.
    pub async fn start(name: &str) -> Self {
        let name = name.to_owned();
        Self::script(move |_, stream| {
            let name = name.clone();
            async move {
                let service = service_fn(move |request| {
                    let name = name.clone();
                    async move { Ok::<_, Infallible>(answer(&name, request).await) }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            }
        })
        .await
    }
}

/// A port that refuses connections until somebody listens at it, and that nobody else is given.
pub struct Refusing {
    pub address: SocketAddr,
    socket: std::os::fd::OwnedFd,
}

impl Refusing {
    pub fn new() -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = std::net::TcpListener::from(socket);
        Self {
            address: listener.local_addr().unwrap(),
            socket: listener.into(),
        }
    }

    /// Listens, with room for this many connections and one.
    pub fn listen(self, room: i32) -> TcpListener {
        rustix::net::listen(&self.socket, room).unwrap();
        let listener = std::net::TcpListener::from(self.socket);
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }
}

/// Reads a head and whatever of the body came with it.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => return String::new(),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers every request on a connection with [`OK`].
pub async fn serve_ok(mut stream: TcpStream) {
    while !read_head(&mut stream).await.is_empty() {
        if stream.write_all(OK).await.is_err() {
            return;
        }
    }
}

async fn answer(name: &str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let text = |text: String| Response::new(Full::new(Bytes::from(text)));
    match path.as_str() {
        "/echo" => match request.into_body().collect().await {
            Ok(body) => Response::new(Full::new(body.to_bytes())),
            Err(_) => {
                let mut response = text("no body".to_owned());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        },
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(60)).await;
            text(name.to_owned())
        }
        "/head" => {
            let fields: BTreeMap<String, String> = request
                .headers()
                .iter()
                .map(|(name, value)| {
                    (
                        name.to_string(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .chain([("(target)".to_owned(), request.uri().to_string())])
                .collect();
            text(serde_json::to_string(&fields).unwrap())
        }
        "/socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 4096];
                while let Ok(n) = stream.read(&mut buffer).await {
                    if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
            });
            let mut response = text(String::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("connection", "upgrade".parse().unwrap());
            response
                .headers_mut()
                .insert("upgrade", request.headers()["upgrade"].clone());
            response
        }
        _ => text(name.to_owned()),
    }
}
