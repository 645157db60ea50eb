//! Which replica a request reaches, with what in its head, and what is said when none.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferrovia_core::table::RouteTarget;
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::{self, App, Refusing};
use crate::client::{Client, get, raw, read_head, status_of};
use crate::control::{route, to};
use crate::edge::Edge;

#[tokio::test]
async fn hosts_lead_to_their_replicas_and_unknown_ones_to_a_page() {
    let edge = Edge::start().await;
    let (a, b) = (App::start("a").await, App::start("b").await);
    edge.control
        .publish(vec![
            to("a.localhost", &[(1, a.address)]),
            to("b.localhost", &[(2, b.address)]),
        ])
        .await;
    assert_eq!(get(edge.address, "a.localhost", "/").await, (200, "a".to_owned()));
    assert_eq!(
        get(edge.address, "B.localhost:8080", "/").await,
        (200, "b".to_owned())
    );
    let (status, body) = get(edge.address, "c.localhost", "/").await;
    assert_eq!(status, 404);
    assert!(body.contains("c.localhost"), "{body}");

    let html = raw(
        edge.address,
        b"GET / HTTP/1.1\r\nHost: <c>.localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status_of(&html), 400);
    let json = raw(
        edge.address,
        b"GET / HTTP/1.1\r\nHost: c.localhost\r\nAccept: application/json\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        json.contains("application/problem+json") && json.contains("\"request_id\":\"mine\""),
        "{json}"
    );
    let counts = edge.status().await.counts;
    assert_eq!((counts.answered, counts.unknown_host, counts.refused), (2, 2, 1));
}

#[tokio::test]
async fn a_service_that_does_not_run_says_why() {
    let edge = Edge::start().await;
    let reason = "v3 failed: exit code 1".to_owned();
    edge.control
        .publish(vec![route(
            "a.localhost",
            RouteTarget::Unavailable {
                reason: reason.clone(),
            },
        )])
        .await;
    let (status, body) = get(edge.address, "a.localhost", "/").await;
    assert_eq!(status, 503);
    assert!(body.contains(&reason), "{body}");
}

#[tokio::test]
async fn an_application_sees_who_asked_and_only_what_belongs_to_it() {
    let edge = Edge::start().await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let answer = raw(
        edge.address,
        b"GET http://a.localhost:9/head?q=1 HTTP/1.1\r\nHost: other\r\nConnection: close, x-secret, x-real-ip\r\n\
          X-Secret: 1\r\nX-Forwarded-For: 6.6.6.6\r\nTE: trailers, deflate\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    let fields: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(fields["host"], "a.localhost:9");
    assert_eq!(fields["(target)"], "/head?q=1");
    assert_eq!(fields["x-forwarded-for"], "127.0.0.1");
    assert_eq!(fields["x-real-ip"], "127.0.0.1");
    assert_eq!(fields["x-forwarded-host"], "a.localhost:9");
    assert_eq!(fields["x-forwarded-proto"], "http");
    assert_eq!(fields["te"], "trailers");
    assert_eq!(fields["x-request-id"], fields["x-railway-request-id"]);
    assert!(
        fields["x-request-start"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 1_700_000_000_000
    );
    for gone in ["x-secret", "expect"] {
        assert!(fields.get(gone).is_none(), "{gone}");
    }
    assert!(answer.contains("x-request-id: "), "{answer}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides_and_belong_to_one_run() {
    let edge = Edge::start_with(|options| options.workers = 1).await;
    let (a, b) = (App::start("a").await, App::start("b").await);
    edge.control
        .publish(vec![to("a.localhost", &[(1, a.address)])])
        .await;
    let two = b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\nGET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n";
    let three = [
        two.as_slice(),
        b"HEAD / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    let answer = raw(edge.address, &three).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert_eq!(a.connections.load(Ordering::SeqCst), 1);
    assert_eq!(edge.status().await.counts.reused, 2);

    // The same address under another replica: another connection.
    edge.control
        .publish(vec![
            to("a.localhost", &[(2, a.address)]),
            to("b.localhost", &[(3, b.address)]),
        ])
        .await;
    assert_eq!(get(edge.address, "a.localhost", "/").await.0, 200);
    assert_eq!(a.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn replicas_share_the_load_and_one_that_refuses_is_passed_over() {
    let edge = Edge::start().await;
    let (a, b) = (App::start("a").await, App::start("b").await);
    let gone = Refusing::new();
    let nowhere = gone.address;
    edge.control
        .publish(vec![to(
            "a.localhost",
            &[(1, a.address), (2, b.address), (3, nowhere)],
        )])
        .await;
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..60 {
        let (status, body) = get(edge.address, "a.localhost", "/").await;
        assert_eq!(status, 200);
        *seen.entry(body).or_insert(0) += 1;
    }
    assert!(seen["a"] > 10 && seen["b"] > 10, "{seen:?}");
    let failures = edge.status().await.counts.connect_failures;
    assert!((1..20).contains(&failures), "{failures}");
}

#[tokio::test]
async fn once_acknowledged_no_worker_sends_anything_to_what_left() {
    let edge = Edge::start_with(|options| options.workers = 4).await;
    let (old, new) = (App::start("old").await, App::start("new").await);
    edge.control
        .publish(vec![to("a.localhost", &[(1, old.address)])])
        .await;
    // Connections at all workers, with upstream connections to the old one in their pools.
    let mut clients: Vec<Client> = (0..64).map(|_| Client::new(edge.address)).collect();
    let request = || {
        Request::get("/")
            .header("host", "a.localhost")
            .body(Full::new(Bytes::new()))
            .unwrap()
    };
    for _ in 0..10 {
        for (names, app) in [("old", &old), ("new", &new)] {
            edge.control
                .publish(vec![to(
                    "a.localhost",
                    &[(u128::from(names == "new") + 1, app.address)],
                )])
                .await;
            for client in &mut clients {
                assert_eq!(client.send(request()).await.unwrap().body(), names);
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_in_front_is_believed_when_it_is_trusted() {
    let edge = Edge::start_with(|options| options.trusted = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let answer = raw(
        edge.address,
        b"GET /head HTTP/1.1\r\nHost: a.localhost\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\
          X-Request-Id: id-7\r\nConnection: close\r\n\r\n",
    )
    .await;
    let fields: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(fields["x-forwarded-for"], "198.51.100.7, 127.0.0.1");
    assert_eq!(fields["x-forwarded-proto"], "https");
    assert_eq!(fields["x-request-id"], "id-7");
    assert!(answer.contains("x-request-id: id-7"), "{answer}");
}

#[tokio::test]
async fn a_question_about_the_whole_server_reaches_the_application() {
    let edge = Edge::start().await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let request = b"OPTIONS * HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&raw(edge.address, request).await), 200);
}

#[tokio::test]
async fn what_an_application_nominates_or_means_for_one_connection_stays_behind() {
    let edge = Edge::start().await;
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nConnection: close, x-secret, x-request-id, content-length\r\nX-Secret: 1\r\n\
                  Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
            )
            .await;
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(b"HEAD / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await;
    for kept in ["x-kept: 1", "x-request-id: ", "content-length: 2"] {
        assert!(head.contains(kept), "{head}");
    }
    for gone in ["x-secret", "keep-alive", "connection"] {
        assert!(!head.contains(gone), "{head}");
    }
}
