//! Connections that change their protocol.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::app::{self, App};
use crate::client::read_head;
use crate::control::{draining, replica, to};
use crate::edge::Edge;
use crate::eventually;
use crate::load::unix_ms;

const LIMIT: Duration = Duration::from_secs(20);

/// A client's end of a WebSocket to a server that sends everything back.
pub struct WebSocket {
    stream: TcpStream,
}

/// Why a WebSocket is over.
#[derive(Debug)]
pub enum Goodbye {
    /// Status 1001.
    GoingAway,
    /// Anything else.
    Lost(String),
}

impl WebSocket {
    pub async fn open(address: SocketAddr, host: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_head(&mut stream).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(
            answer.contains("upgrade: websocket") && answer.contains("connection: upgrade"),
            "{answer}"
        );
        Self { stream }
    }

    /// Sends a message (masked with zeros) and reads it back; a close frame is answered.
    pub async fn exchange(&mut self, message: &[u8]) -> Result<(), Goodbye> {
        let lost = |error: std::io::Error| Goodbye::Lost(error.to_string());
        let mut frame = vec![0x81, 0x80 | u8::try_from(message.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(message);
        // What was sent after the goodbye is lost by right.
        let sent = self.stream.write_all(&frame).await;
        let mut head = [0; 2];
        timeout(LIMIT, self.stream.read_exact(&mut head))
            .await
            .map_err(|_| Goodbye::Lost("no answer".to_owned()))?
            .map_err(lost)?;
        let length = usize::from(head[1] & 0x7f) + if head[1] & 0x80 == 0 { 0 } else { 4 };
        let mut content = vec![0; length];
        self.stream.read_exact(&mut content).await.map_err(lost)?;
        match head[0] {
            0x88 if content == [0x03, 0xe9] => {
                let _ = self.stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
                Err(Goodbye::GoingAway)
            }
            0x81 => {
                sent.map_err(lost)?;
                assert_eq!(&content[4..], message);
                Ok(())
            }
            other => Err(Goodbye::Lost(format!("frame {other:#x} {content:?}"))),
        }
    }
}

#[tokio::test]
async fn a_websocket_is_in_flight_until_it_is_closed() {
    let edge = Edge::start().await;
    let app = App::start("a").await;
    let version = edge
        .control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut socket = WebSocket::open(edge.address, "a.localhost").await;
    socket.exchange(b"one").await.unwrap();
    socket.exchange(&[b'x'; 100]).await.unwrap();
    eventually("it is counted", async || edge.control.open(1, version) == Some(1)).await;
    drop(socket);
    eventually("it is counted out", async || {
        edge.control.open(1, version) == Some(0)
    })
    .await;
    assert_eq!(edge.status().await.counts.tunnels, 1);
}

#[tokio::test]
async fn at_the_end_of_a_drain_both_ends_are_told_between_two_frames() {
    let edge = Edge::start().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    // Begins a message, and ends it only after the drain is over.
    let app = App::script(move |_, mut stream| {
        let said = said.clone();
        async move {
            app::read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x04ab")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(600)).await;
            stream.write_all(b"cd\x81\x02xx").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            said.send(rest).unwrap();
        }
    })
    .await;
    let new = App::start("new").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut socket = WebSocket::open(edge.address, "a.localhost").await;
    edge.control
        .publish(vec![
            to("a.localhost", &[(2, new.address)]),
            draining(1, unix_ms() + 100),
        ])
        .await;
    let mut all = Vec::new();
    timeout(LIMIT, socket.stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all, b"\x81\x04abcd\x88\x02\x03\xe9");
    assert_eq!(heard.recv().await.unwrap(), [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
}

#[tokio::test]
async fn without_a_drain_row_a_tunnel_goes_on_and_with_the_row_it_goes() {
    let edge = Edge::start().await;
    let (old, new) = (App::start("old").await, App::start("new").await);
    edge.control
        .publish(vec![to("a.localhost", &[(1, old.address)])])
        .await;
    let mut socket = WebSocket::open(edge.address, "a.localhost").await;
    edge.control
        .publish(vec![to("a.localhost", &[(2, new.address)])])
        .await;
    socket.exchange(b"still there").await.unwrap();
    edge.control
        .publish(vec![draining(1, unix_ms() + 3_600_000)])
        .await;
    socket.exchange(b"still there").await.unwrap();
    // Back in the routes: no drain at all.
    edge.control
        .replace(
            vec![to("b.localhost", &[(1, old.address)])],
            &[format!("draining/{}", replica(1))],
        )
        .await;
    socket.exchange(b"still there").await.unwrap();
    edge.control
        .replace(
            vec![draining(1, unix_ms() + 3_600_000)],
            &["host/b.localhost".to_owned()],
        )
        .await;
    socket.exchange(b"still there").await.unwrap();
    edge.control
        .replace(vec![], &[format!("draining/{}", replica(1))])
        .await;
    assert!(matches!(socket.exchange(b"gone").await, Err(Goodbye::GoingAway)));
}

#[tokio::test]
async fn an_application_may_decline_and_may_not_switch_unasked() {
    let edge = Edge::start().await;
    let declines = App::script(|_, stream| app::serve_ok(stream)).await;
    let switches = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    edge.control
        .publish(vec![
            to("a.localhost", &[(1, declines.address)]),
            to("b.localhost", &[(2, switches.address)]),
        ])
        .await;
    let answer = crate::client::raw(
        edge.address,
        b"GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
          GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(crate::client::get(edge.address, "b.localhost", "/").await.0, 502);
}

#[tokio::test]
async fn any_protocol_passes_byte_for_byte_both_ways_until_each_side_has_ended() {
    const BYTES: usize = 3_000_000;
    let edge = Edge::start().await;
    let app = App::script(|_, mut stream| async move {
        let head = app::read_head(&mut stream).await;
        // What the client sent without waiting may stand behind the head already.
        let early = head.split_once("\r\n\r\n").unwrap().1.to_owned();
        stream
            .write_all(b"HTTP/1.1 101 X\r\nUpgrade: custom\r\nConnection: upgrade\r\n\r\nhello")
            .await
            .unwrap();
        let mut all = early.into_bytes();
        stream.read_to_end(&mut all).await.unwrap();
        // Everything back, after the client's own end.
        stream.write_all(&all).await.unwrap();
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\nearly",
        )
        .await
        .unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.contains("upgrade: custom"), "{head}");
    let sent: Vec<u8> = (0..BYTES).map(|n| u8::try_from(n % 251).unwrap()).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert!(all.starts_with(b"helloearly") && all[10..] == sent);
}
