//! The end of an edge, and the next one in its place.

use ferrovia_edge::{Options, command};
use ferrovia_table::Peers;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::{read_head, status_of};
use crate::control::{draining, to};
use crate::edge::{Edge, WORKERS, launch, status};
use crate::eventually;
use crate::load::{HOST, Load, unix_ms};
use crate::tunnels::WebSocket;

/// Edges that take over from each other.
const EDGES: u128 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_takes_over_from_another_without_a_lost_request() {
    let mut edge = Edge::start().await;
    let mut old = App::start("v0").await;
    edge.control.publish(vec![to(HOST, &[(1, old.address)])]).await;
    let load = Load::start(edge.address);
    load.goes_on(50).await;

    for n in 0..EDGES {
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
        // Another number of threads than of listeners: each listener still has somebody.
        options.workers = if n % 2 == 0 { WORKERS + 1 } else { 1 };
        options.build = format!("build-{n}");
        let build = options.build.clone();
        let next = launch(options);
        // While two edges serve, a deployment takes the place of another.
        let new = App::start(&format!("v{}", n + 1)).await;
        let version = edge.control.write(
            vec![
                to(HOST, &[(n + 2, new.address)]),
                draining(n + 1, unix_ms() + 3_000),
            ],
            &[],
        );
        let socket = edge.socket();
        eventually("the next one serves the new table", async || {
            status(&socket)
                .await
                .is_ok_and(|status| status.control && status.build == build && status.version == version)
        })
        .await;
        eventually("the old replica has nothing open at any edge", async || {
            edge.control.open(n + 1, version) == Some(0)
        })
        .await;
        std::mem::replace(&mut old, new).kill().await;
        load.goes_on(50).await;
        edge.replaced_by(next).await;
        load.goes_on(50).await;
    }
    let (_, goodbyes) = load.stop().await;
    assert!(goodbyes >= 5, "{goodbyes} goodbyes only");
    eventually("control is told of each that it is gone", async || {
        edge.control.said_goodbye().len() == 5
    })
    .await;
    let gone = edge.control.said_goodbye();
    assert!(
        gone.iter().all(|name| name.starts_with("edge-draining-")),
        "{gone:?}"
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
    eventually("control is told that it is gone", async || {
        edge.control.said_goodbye() == [name.as_str()]
    })
    .await;
}
