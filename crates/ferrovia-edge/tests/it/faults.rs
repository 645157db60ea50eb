//! Servers that break: what is sent again, what is not, and what the visitor is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::{self, App, OK, Refusing};
use crate::client::{get, raw, status_of};
use crate::control::to;
use crate::edge::{Edge, WORKERS};
use crate::eventually;

const HOST: &str = "a.localhost";

async fn before(app: &App) -> Edge {
    // One worker: both requests of a test meet the same pool.
    let edge = Edge::start_with(|options| options.workers = 1).await;
    edge.control.publish(vec![to(HOST, &[(1, app.address)])]).await;
    edge
}

async fn post(edge: &Edge) -> u16 {
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    status_of(&raw(edge.address, head.as_bytes()).await)
}

/// Answers `first` requests of each connection and closes it when the next one comes.
async fn impatient(first: usize) -> App {
    App::script(move |_, mut stream| async move {
        for _ in 0..first {
            app::read_head(&mut stream).await;
            let _ = stream.write_all(OK).await;
        }
        app::read_head(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_pooled_connection_that_dies_under_a_request_costs_nothing_that_can_be_repeated() {
    let app = impatient(1).await;
    let edge = before(&app).await;
    for _ in 0..20 {
        assert_eq!(get(edge.address, HOST, "/").await.0, 200);
    }
    let counts = edge.status().await.counts;
    assert!(counts.replayed >= 10, "{counts:?}");
    assert_eq!(counts.broken, 0);
}

#[tokio::test]
async fn what_cannot_be_repeated_is_not_and_avoids_old_connections() {
    let app = impatient(1).await;
    let edge = before(&app).await;
    assert_eq!(post(&edge).await, 200);
    // In use a moment ago: taken, dead, and not to be repeated.
    assert_eq!(post(&edge).await, 502);
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    assert_eq!(post(&edge).await, 200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(post(&edge).await, 200);
    assert_eq!(app.connections.load(Ordering::SeqCst), 3);
    assert_eq!(edge.status().await.counts.replayed, 0);
}

#[tokio::test]
async fn an_unused_connection_is_closed_before_a_server_would() {
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let app = App::script(move |_, mut stream| {
        let said = said.clone();
        async move {
            app::read_head(&mut stream).await;
            let _ = stream.write_all(OK).await;
            let answered = Instant::now();
            // Node closes what was unused for 5 s.
            app::read_head(&mut stream).await;
            said.send(answered.elapsed()).unwrap();
        }
    })
    .await;
    let edge = before(&app).await;
    assert_eq!(get(edge.address, HOST, "/").await.0, 200);
    let unused = heard.recv().await.unwrap();
    assert!(unused >= Duration::from_millis(3_900), "{unused:?}");
    assert!(unused < Duration::from_millis(5_000), "{unused:?}");
}

#[tokio::test]
async fn a_server_that_closes_without_a_word_loses_no_post() {
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.write_all(OK).await;
        tokio::time::sleep(Duration::from_micros(300)).await;
    })
    .await;
    let edge = before(&app).await;
    // One may meet the race at each worker, which knows the server after it.
    let mut lost = 0;
    for _ in 0..50 {
        match post(&edge).await {
            200 => {}
            502 => lost += 1,
            status => panic!("{status}"),
        }
    }
    assert!(lost <= WORKERS, "{lost}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_told_as_such() {
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
    })
    .await;
    let edge = before(&app).await;
    let (status, body) = get(edge.address, HOST, "/").await;
    assert!(
        status == 502 && body.contains("closed the connection"),
        "{status} {body}"
    );
    assert_eq!(
        app.connections.load(Ordering::SeqCst),
        2,
        "one attempt and one more"
    );
    assert_eq!(post(&edge).await, 502);
    assert_eq!(app.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_that_dies_in_its_head_is_asked_again() {
    let app = App::script(|n, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream
            .write_all(if n == 0 { b"HTTP/1.1 200 OK\r\nConte" } else { OK })
            .await;
    })
    .await;
    let edge = before(&app).await;
    assert_eq!(get(edge.address, HOST, "/").await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn another_replica_answers_for_one_that_breaks() {
    let bad = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
    })
    .await;
    let good = App::start("good").await;
    let edge = before(&bad).await;
    edge.control
        .publish(vec![to(HOST, &[(1, bad.address), (2, good.address)])])
        .await;
    for _ in 0..30 {
        assert_eq!(get(edge.address, HOST, "/").await, (200, "good".to_owned()));
    }
}

#[tokio::test]
async fn what_is_not_http_is_told_as_such() {
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    let edge = before(&app).await;
    let (status, body) = get(edge.address, HOST, "/").await;
    assert!(status == 502 && body.contains("HTTP/1.1"), "{status} {body}");
}

#[tokio::test]
async fn a_server_that_starts_again_is_waited_for() {
    let gone = Refusing::new();
    let address = gone.address;
    let edge = Edge::start().await;
    edge.control.publish(vec![to(HOST, &[(1, address)])]).await;
    let request = get(edge.address, HOST, "/");
    let restart = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listener = gone.listen(8);
        app::serve_ok(listener.accept().await.unwrap().0).await;
    };
    let ((status, _), ()) = tokio::join!(request, restart);
    assert_eq!(status, 200);
    assert!(edge.status().await.counts.connect_failures > 1);
}

#[tokio::test]
async fn a_request_whose_replica_leaves_under_it_goes_to_the_new_one() {
    let gone = Refusing::new();
    let address = gone.address;
    let new = App::start("new").await;
    let edge = Edge::start().await;
    edge.control.publish(vec![to(HOST, &[(1, address)])]).await;
    let swap = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        edge.control.publish(vec![to(HOST, &[(2, new.address)])]).await;
    };
    let (answer, ()) = tokio::join!(get(edge.address, HOST, "/"), swap);
    assert_eq!(answer, (200, "new".to_owned()));
}

#[tokio::test]
async fn a_connection_attempt_to_a_replica_that_leaves_is_given_up_at_once() {
    // A listener whose backlog is full answers no SYN: an attempt hangs.
    let full = Refusing::new();
    let address = full.address;
    let _full = full.listen(0);
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
    }
    let new = App::start("new").await;
    let edge = Edge::start().await;
    edge.control.publish(vec![to(HOST, &[(1, address)])]).await;
    let start = Instant::now();
    let swap = async {
        eventually("it is on its way", async || {
            edge.status().await.counts.requests == 1
        })
        .await;
        edge.control.publish(vec![to(HOST, &[(2, new.address)])]).await;
    };
    let (answer, ()) = tokio::join!(get(edge.address, HOST, "/"), swap);
    assert_eq!(answer, (200, "new".to_owned()));
    assert!(
        start.elapsed() < Duration::from_millis(2_500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_body_that_is_none_is_the_clients_fault() {
    let app = App::script(|_, mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let edge = before(&app).await;
    let request =
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nxyz\r\n");
    assert_eq!(status_of(&raw(edge.address, request.as_bytes()).await), 400);
    let counts = edge.status().await.counts;
    assert_eq!((counts.broken, counts.abandoned), (0, 1));
}

#[tokio::test]
async fn nothing_listens_for_long_and_the_visitor_is_told() {
    let gone = Refusing::new();
    let address = gone.address;
    let edge = Edge::start().await;
    edge.control.publish(vec![to(HOST, &[(1, address)])]).await;
    let (status, body) = get(edge.address, HOST, "/").await;
    assert!(status == 502 && body.contains("ferrovia logs"), "{status} {body}");
}

#[tokio::test]
async fn a_put_whose_body_was_not_taken_is_repeated_whole() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&bodies);
    let app = App::script(move |n, stream| {
        let count = Arc::clone(&count);
        async move {
            if n == 0 {
                // Closed at once: it may be met before or after the request is written.
                drop(stream);
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
            app::serve_ok(stream).await;
        }
    })
    .await;
    let edge = before(&app).await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nhi"
    );
    let status = status_of(
        &raw(edge.address, head.as_bytes())
            .await
            .replace("HTTP/1.1 100 Continue\r\n\r\n", ""),
    );
    assert!(
        status == 200 && bodies.load(Ordering::SeqCst) == 1 || status == 502,
        "{status}"
    );
}
