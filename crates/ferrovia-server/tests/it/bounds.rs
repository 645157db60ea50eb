//! Bounds on what is worked on at once and on how long an answer lives, through a real listener.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use ferrovia_api::client::{Client, Endpoint};
use ferrovia_api::deployment::Deployment;
use ferrovia_core::secret::Secret;
use ferrovia_server::http::{MAX_SIGN_INS, serve};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{Api, uuid_of};

async fn asked(address: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn answered(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn sign_in(length: usize) -> String {
    format!(
        "POST /v1/sign-in HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn who_has_no_token_holds_up_nobody() {
    let api = Api::new().await;
    let (address, _guard) = api.listen().await;
    let body = "{\"token\":\"fvt_x\"}";
    let whole = format!("{}{body}", sign_in(body.len()));
    let mut slow = Vec::new();
    for _ in 0..MAX_SIGN_INS {
        slow.push(asked(address, &sign_in(1_000)).await);
    }
    // The slow ones are taken up one after the other: the first that finds no place says that all are.
    loop {
        let text = answered(asked(address, &whole).await).await;
        if text.starts_with("HTTP/1.1 429") {
            assert!(
                text.contains("too_many_requests") && text.contains("retry-after: 1"),
                "{text}"
            );
            break;
        }
        assert!(text.starts_with("HTTP/1.1 401"), "{text}");
    }
    let healthz = "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(
        answered(asked(address, healthz).await)
            .await
            .starts_with("HTTP/1.1 200")
    );
    let authorization = format!("authorization: Bearer {}", api.owner);
    let whoami =
        format!("GET /v1/whoami HTTP/1.1\r\nhost: a\r\n{authorization}\r\nconnection: close\r\n\r\n");
    assert!(
        answered(asked(address, &whoami).await)
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop(slow);
}

#[tokio::test]
async fn a_revoked_token_sees_no_more() {
    let api = Api::new().await;
    api.target().await;
    let deployment = api.deploy().await;
    let made = api
        .post("/v1/tokens", json!({"name": "laptop"}))
        .await
        .expect(201);
    let (address, _guard) = api.listen().await;
    let url = format!("http://{address}/").parse().unwrap();
    let token = Some(Secret::new(made["secret"].as_str().unwrap()));
    let client = Client::new(Endpoint::Url { url, token }).unwrap();
    let mut follow = client.follow_deployment(uuid_of(&deployment));
    assert!(follow.next::<Deployment>().await.unwrap().is_some());
    let id = made["token"]["id"].as_str().unwrap();
    api.call(Method::DELETE, &format!("/v1/tokens/{id}"))
        .send()
        .await
        .expect(204);
    let error = follow.next::<Deployment>().await.unwrap_err();
    assert_eq!(error.code(), Some("unauthenticated"));
}

#[tokio::test]
async fn a_server_that_ends_waits_for_no_stream() {
    let api = Api::new().await;
    api.target().await;
    let deployment = api.deploy().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = CancellationToken::new();
    let served = tokio::spawn(serve::serve_tcp(listener, api.router(), ended.clone()));
    let (id, owner) = (uuid_of(&deployment), &api.owner);
    let request = format!(
        "GET /v1/deployments/{id}/stream HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {owner}\r\n\r\n"
    );
    let mut stream = asked(address, &request).await;
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    let begun = std::time::Instant::now();
    ended.cancel();
    let rest = answered(stream).await;
    // The body is whole, so that the client knows that it was not cut off in an event.
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    served.await.unwrap();
    assert!(begun.elapsed().as_millis() < u128::from(serve::SHUTDOWN_GRACE_MS));
}

/// A listener with these bounds that answers `ok` to whoever asks for `/`, and to `/held` once `held` says so.
async fn bounded(bounds: serve::Bounds, held: Arc<Held>) -> (std::net::SocketAddr, DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let wait = move || async move {
        held.begun.add_permits(1);
        held.release.acquire().await.unwrap().forget();
        "ok"
    };
    let router = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/held", get(wait));
    let ended = CancellationToken::new();
    tokio::spawn(serve::serve_bounded(listener, router, bounds, ended.clone()));
    (address, ended.drop_guard())
}

struct Held {
    /// One for each request that began.
    begun: Semaphore,
    /// One for each request that may end.
    release: Semaphore,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Semaphore::new(0),
            release: Semaphore::new(0),
        })
    }
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let bounds = serve::Bounds {
        connections: 2,
        head_timeout_ms: 100,
    };
    let (address, _guard) = bounded(bounds, Held::new()).await;
    // As many as there are places: none says anything, or not all of a head.
    let silent = TcpStream::connect(address).await.unwrap();
    let slow = asked(address, "GET / HTTP/1.1\r\nhost:").await;
    // It has its answer once one of them is cut off.
    let whole = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = answered(asked(address, whole).await).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(answered(silent).await, "");
    assert!(!answered(slow).await.contains("200"));
    // One that was answered and says no more, too.
    let idle = asked(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answered(idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let bounds = serve::Bounds {
        connections: 2,
        head_timeout_ms: 60_000,
    };
    let held = Held::new();
    let (address, _guard) = bounded(bounds, held.clone()).await;
    let request = "GET /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(tokio::spawn(answered(asked(address, request).await)));
    }
    held.begun.acquire_many(2).await.unwrap().forget();
    for left in (0..5).rev() {
        // Nobody but the two in hand has begun.
        assert_eq!(held.begun.available_permits(), 0);
        held.release.add_permits(1);
        if left >= 2 {
            held.begun.acquire().await.unwrap().forget();
        }
    }
    for stream in streams {
        assert!(stream.await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_its_connections() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "ok" }));
    let serve = ferrovia_server::http::serve::builds_registry();
    let served = tokio::spawn(serve(listener, router));
    let mut stream = asked(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    served.abort();
    assert_eq!(answered(stream).await, "");
}
