//! The end of an edge, and the next one in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use ferrovia_edge::{Options, command};
use ferrovia_table::Peers;
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::app::App;
use crate::client::{Client, read_head, status_of};
use crate::control::to;
use crate::edge::{Edge, WORKERS, launch, status};
use crate::eventually;
use crate::tunnels::{Goodbye, WebSocket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_takes_over_from_another_without_a_lost_request() {
    let mut edge = Edge::start().await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let mut visitors = JoinSet::new();
    for fresh in [false, false, true, true] {
        let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), edge.address);
        visitors.spawn(async move {
            let mut client = Client::new(address);
            while !stop.load(Ordering::Relaxed) {
                let path = if fresh { "/" } else { "/slow" };
                let request = Request::get(path)
                    .header("host", "a.localhost")
                    .body(Full::new(Bytes::new()))
                    .unwrap();
                assert_eq!(client.send(request).await.unwrap().status(), 200);
                done.fetch_add(1, Ordering::Relaxed);
                if fresh {
                    client.close();
                }
            }
        });
    }
    let mut socket = WebSocket::open(edge.address, "a.localhost").await;

    for _ in 0..3 {
        let path = edge.socket();
        let listeners = tokio::task::spawn_blocking(move || {
            let listeners = command::fetch_listeners(&path).unwrap();
            command::drain(&path, 500, 4_000).unwrap();
            listeners
        })
        .await
        .unwrap();
        assert_eq!(listeners.len(), WORKERS);
        let mut options = Options::new(
            edge.dir.path().to_owned(),
            edge.dir.path().join("table"),
            listeners,
            Peers::same_user(),
        );
        options.workers = WORKERS;
        options.build = "next".to_owned();
        let next = launch(options);
        let socket = edge.socket();
        eventually("the next one answers", async || {
            status(&socket)
                .await
                .is_ok_and(|status| status.control && status.build == "next" && status.hosts == 1)
        })
        .await;
        let before = done.load(Ordering::Relaxed);
        eventually("requests go on", async || {
            done.load(Ordering::Relaxed) > before + 50
        })
        .await;
        edge.replaced_by(next).await;
    }
    assert!(matches!(socket.exchange(b"x").await, Err(Goodbye::GoingAway)));
    stop.store(true, Ordering::Relaxed);
    visitors.join_all().await;
    let goodbyes = edge.control.said_goodbye();
    assert!(
        goodbyes.iter().all(|name| name.starts_with("edge-draining-")) && goodbyes.len() == 3,
        "{goodbyes:?}"
    );
}

#[tokio::test]
async fn the_next_answer_says_close_and_what_is_open_is_still_reported() {
    let mut edge = Edge::start().await;
    let app = App::start("a").await;
    let version = edge
        .control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let get = b"GET / HTTP/1.1\r\nHost: a.localhost\r\nX: 1\r\n\r\n";
    stream.write_all(get).await.unwrap();
    assert!(!read_head(&mut stream).await.contains("connection: close"));
    let _socket = WebSocket::open(edge.address, "a.localhost").await;

    let path = edge.socket();
    tokio::task::spawn_blocking(move || command::drain(&path, 10_000, 1_500).unwrap())
        .await
        .unwrap();
    stream.write_all(get).await.unwrap();
    // The first body of one byte is still to be read.
    let head = read_head(&mut stream).await;
    assert_eq!(status_of(&head[1..]), 200);
    assert!(head.contains("connection: close"), "{head}");
    eventually("it reads under another name", async || {
        edge.control
            .readers()
            .iter()
            .any(|name| name.starts_with("edge-draining-"))
    })
    .await;
    eventually("the tunnel is counted once", async || {
        edge.control.open(1, version) == Some(1)
    })
    .await;
    let later = edge
        .control
        .write(vec![to("b.localhost", &[(1, app.address)])], &[]);
    let name = edge
        .control
        .readers()
        .into_iter()
        .find(|name| name.starts_with("edge-draining-"))
        .unwrap();
    eventually("it still acknowledges", async || {
        edge.control.acknowledged(&name) >= Some(later)
    })
    .await;
    edge.ended().await;
    assert_eq!(edge.control.said_goodbye(), [name]);
}
