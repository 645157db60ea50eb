//! One probe: a TCP connection, or an HTTP request whose answer is read to a bound.

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use ferrovia_core::observation::asked;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::schedule::Outcome;

/// How long a connection may take, in milliseconds: the replica is on this host.
const CONNECT_TIMEOUT_MS: u64 = 1_000;
/// How long an answer may take, in milliseconds.
const ANSWER_TIMEOUT_MS: u64 = 5_000;
/// Most of an answer's body that is read, in bytes: enough for the application not to meet a broken connection.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How applications know the probes in their logs.
const AGENT: &str = concat!("ferrovia-probe/", env!("CARGO_PKG_VERSION"));

/// Whether the port takes a connection.
pub async fn tcp(address: SocketAddrV4) -> Outcome {
    match connect(address).await {
        Ok(_) => Outcome::Good,
        Err(why) => Outcome::Bad(why),
    }
}

/// Whether the path answers below 400.
pub async fn http(address: SocketAddrV4, path: &str, host: &str) -> Outcome {
    match status(address, path, host).await {
        Ok(status) if status < 400 => Outcome::Good,
        Ok(status) => Outcome::Bad(format!("{} answered {status}", asked(path))),
        Err(why) => Outcome::Bad(why),
    }
}

/// The status that a path answers with.
///
/// # Errors
/// What happened instead, in a few words.
pub async fn status(address: SocketAddrV4, path: &str, host: &str) -> Result<u16, String> {
    let stream = connect(address).await?;
    match timeout(
        Duration::from_millis(ANSWER_TIMEOUT_MS),
        exchange(stream, path, host),
    )
    .await
    {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) if error.is_parse() => Err(format!("{} was not answered in HTTP", asked(path))),
        Ok(Err(_)) => Err(format!(
            "the connection was closed before {} was answered",
            asked(path)
        )),
        Err(_) => Err(format!(
            "{} was not answered in {ANSWER_TIMEOUT_MS} ms",
            asked(path)
        )),
    }
}

async fn connect(address: SocketAddrV4) -> Result<TcpStream, String> {
    match timeout(
        Duration::from_millis(CONNECT_TIMEOUT_MS),
        TcpStream::connect(address),
    )
    .await
    {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("port {} refuses connections", address.port()))
        }
        Ok(Err(error)) => Err(format!("port {} cannot be connected to: {error}", address.port())),
        Err(_) => Err(format!("port {} does not answer", address.port())),
    }
}

async fn exchange(stream: TcpStream, path: &str, host: &str) -> Result<u16, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    // A path that is no path was refused when it was set.
    let request = request.unwrap_or_default();
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut read = 0;
        while read < MAX_BODY_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        Ok(status)
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // Everything was read; what was read is still to be handed over.
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with these bytes and tells what was asked.
    async fn server(answer: Vec<u8>) -> (SocketAddrV4, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!()
        };
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (address, asked)
    }

    #[tokio::test]
    async fn below_400_is_healthy_and_the_probe_says_who_it_is() {
        let (address, asked) = server(b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nok".to_vec()).await;
        assert_eq!(
            http(address, "/health?a=b", "web.ferrovia.internal").await,
            Outcome::Good
        );
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /health?a=b HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("host: web.ferrovia.internal\r\n")
                && asked.contains("user-agent: ferrovia-probe/")
        );
    }

    #[tokio::test]
    async fn what_went_wrong_is_said() {
        for (answer, wanted) in [
            (
                &b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"[..],
                "`GET /` answered 503",
            ),
            (b"220 smtp ready\r\n", "`GET /` was not answered in HTTP"),
            (b"", "the connection was closed before `GET /` was answered"),
        ] {
            let (address, _) = server(answer.to_vec()).await;
            assert_eq!(http(address, "/", "h").await, Outcome::Bad(wanted.to_owned()));
        }
        let (address, server) = server(Vec::new()).await;
        server.abort();
        let _ = server.await;
        let refused = format!("port {} refuses connections", address.port());
        assert_eq!(tcp(address).await, Outcome::Bad(refused));
    }

    #[tokio::test]
    async fn an_endless_answer_ends() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(answer.len() + 4 * MAX_BODY_BYTES, b'x');
        let (address, _) = server(answer).await;
        assert_eq!(status(address, "/", "h").await, Ok(200));
    }
}
