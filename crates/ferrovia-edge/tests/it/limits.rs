//! Nobody takes longer than they may, and nobody sends more.

use std::time::{Duration, Instant};

use ferrovia_edge::access::AccessRecord;
use ferrovia_edge::watch::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::app::{self, App};
use crate::client::{get, raw, read_head, status_of};
use crate::control::to;
use crate::edge::Edge;
use crate::eventually;

const SHORT: Patience = Patience {
    head_ms: 300,
    idle_ms: 600,
    client_ms: 300,
    answer_ms: 300,
    wake_ms: 300,
};

/// Sends bytes and waits for the end of the connection; what came and how long it took.
async fn until_closed(edge: &Edge, bytes: &[u8]) -> (String, Duration) {
    let start = Instant::now();
    (raw(edge.address, bytes).await, start.elapsed())
}

#[tokio::test]
async fn clients_that_stand_still_are_let_go() {
    let edge = Edge::start_with(|options| options.patience = SHORT).await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    for (what, bytes) in [
        ("silence", b"".as_slice()),
        ("half a head", b"GET / HTTP/1.1\r\nHost: a.loc"),
        (
            "half a body",
            b"POST /echo HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 10\r\n\r\nhalf",
        ),
    ] {
        let (answer, took) = until_closed(&edge, bytes).await;
        assert_eq!(answer, "", "{what}");
        assert!((300..3_000).contains(&took.as_millis()), "{what}: {took:?}");
    }
    let (answer, took) = until_closed(&edge, b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    assert_eq!(status_of(&answer), 200);
    assert!((600..3_000).contains(&took.as_millis()), "idle: {took:?}");
}

#[tokio::test]
async fn applications_that_stand_still_are_told_on() {
    let edge = Edge::start_with(|options| options.patience = SHORT).await;
    let silent = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let halting = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    edge.control
        .publish(vec![
            to("a.localhost", &[(1, silent.address)]),
            to("b.localhost", &[(2, halting.address)]),
        ])
        .await;
    assert_eq!(get(edge.address, "a.localhost", "/").await.0, 504);
    // The connection goes on after a page.
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"HEAD / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(status_of(&read_head(&mut stream).await), 504);
    }
    let (answer, _) = until_closed(&edge, b"GET / HTTP/1.1\r\nHost: b.localhost\r\n\r\n").await;
    assert!(answer.ends_with("half"), "{answer}");
    assert_eq!(edge.status().await.counts.late, 3);
}

#[tokio::test]
async fn heads_are_bounded() {
    let edge = Edge::start().await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let with =
        |fields: &str| format!("GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n{fields}\r\n");
    let large = format!("X-Large: {}\r\n", "x".repeat(30_000));
    assert_eq!(status_of(&raw(edge.address, with(&large).as_bytes()).await), 200);
    let larger = format!("X-Large: {}\r\n", "x".repeat(33_000));
    assert_eq!(status_of(&raw(edge.address, with(&larger).as_bytes()).await), 431);
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(status_of(&raw(edge.address, with(&many).as_bytes()).await), 431);
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n",
        "x".repeat(40_000)
    );
    assert!(matches!(
        status_of(&raw(edge.address, long.as_bytes()).await),
        414 | 431
    ));
}

#[tokio::test]
async fn every_request_leaves_a_record() {
    let (sink, mut records) = mpsc::channel::<AccessRecord>(16);
    let edge = Edge::start_with(|options| options.access = Some(sink)).await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    get(edge.address, "a.localhost", "/x?y=1").await;
    let record = records.recv().await.unwrap();
    assert_eq!(
        (record.status.as_u16(), record.target.as_str(), record.bytes),
        (200, "/x?y=1", 1)
    );
    assert_eq!(record.replica_id, Some(crate::control::replica(1)));
    get(edge.address, "b.localhost", "/").await;
    let record = records.recv().await.unwrap();
    assert_eq!(
        (record.status.as_u16(), record.host.as_str(), record.replica_id),
        (404, "b.localhost", None)
    );
}

#[tokio::test]
async fn when_there_is_no_room_the_longest_unused_connection_makes_it() {
    let edge = Edge::start_with(|options| {
        options.workers = 1;
        options.max_connections = 3;
    })
    .await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let get = b"HEAD / HTTP/1.1\r\nHost: a.localhost\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(get).await.unwrap();
        assert_eq!(status_of(&read_head(&mut stream).await), 200);
        streams.push(stream);
    }
    // The first is in the middle of a request: the second has to go.
    streams[0]
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 2\r\n\r\n")
        .await
        .unwrap();
    eventually("the upload is known", async || {
        edge.status().await.counts.requests == 4
    })
    .await;
    let mut fourth = TcpStream::connect(edge.address).await.unwrap();
    fourth.write_all(get).await.unwrap();
    assert_eq!(status_of(&read_head(&mut fourth).await), 200);
    assert_eq!(streams[1].read(&mut [0; 1]).await.unwrap(), 0);
    streams[0].write_all(b"hi").await.unwrap();
    streams[2].write_all(get).await.unwrap();
    for n in [0, 2] {
        assert_eq!(status_of(&read_head(&mut streams[n]).await), 200);
    }
}
