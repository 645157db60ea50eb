//! Requests that wait, services that sleep, and what `node` says of replicas.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ferrovia_core::id::DeploymentId;
use ferrovia_core::observation::{Health, Observation};
use ferrovia_core::table::RouteTarget;
use ferrovia_table::observe::{Board, ObservationServer};
use ferrovia_table::{Peers, listen};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::app::App;
use crate::client::get;
use crate::control::{instance, replica, route, to};
use crate::edge::Edge;
use crate::eventually;

const HOST: &str = "a.localhost";

#[tokio::test]
async fn held_requests_go_where_new_ones_go() {
    let edge = Edge::start().await;
    edge.control
        .publish(vec![route(HOST, RouteTarget::Hold { max_wait_ms: 10_000 })])
        .await;
    let app = App::start("new").await;
    let swap = async {
        eventually("both wait", async || edge.status().await.counts.held == 2).await;
        edge.control.publish(vec![to(HOST, &[(1, app.address)])]).await;
    };
    let (one, two, ()) = tokio::join!(get(edge.address, HOST, "/"), get(edge.address, HOST, "/"), swap);
    assert_eq!((one, two), ((200, "new".to_owned()), (200, "new".to_owned())));
}

#[tokio::test]
async fn a_hold_ends_with_a_page() {
    let edge = Edge::start().await;
    edge.control
        .publish(vec![route(HOST, RouteTarget::Hold { max_wait_ms: 200 })])
        .await;
    let start = Instant::now();
    let (status, body) = get(edge.address, HOST, "/").await;
    assert!(status == 503 && body.contains("new version"), "{status} {body}");
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(edge.status().await.counts.held_in_vain, 1);
}

fn seen(n: u128, started_at_ms: i64, health: Health) -> Observation {
    Observation {
        replica_id: replica(n),
        deployment_id: DeploymentId::from_uuid(Uuid::nil()),
        instance_id: instance(),
        handle: String::new(),
        started_at_ms: Some(started_at_ms),
        health,
        last_exit: None,
        crashes: 0,
        listens_on: vec![],
        root_status: None,
        log_drained: false,
        seen_at_ms: 0,
    }
}

#[tokio::test]
async fn a_sleeping_service_is_woken_and_answers() {
    let edge = Edge::start().await;
    let (wake, mut woken) = mpsc::channel(8);
    let socket = listen(&edge.dir.path().join("node.sock")).unwrap();
    tokio::spawn(ObservationServer::new(Board::default(), wake, Peers::same_user()).serve(socket));
    eventually("node is known", async || edge.status().await.node).await;
    edge.control.publish(vec![route(HOST, RouteTarget::Asleep)]).await;
    let app = App::start("awake").await;
    let node = async {
        assert_eq!(woken.recv().await, Some(instance()));
        edge.control.publish(vec![to(HOST, &[(1, app.address)])]).await;
    };
    let (answer, ()) = tokio::join!(get(edge.address, HOST, "/"), node);
    assert_eq!(answer, (200, "awake".to_owned()));
}

#[tokio::test]
async fn a_service_that_does_not_wake_up_says_so() {
    // Nobody is there to wake it.
    let edge = Edge::start_with(|options| options.patience.wake_ms = 200).await;
    edge.control.publish(vec![route(HOST, RouteTarget::Asleep)]).await;
    let (status, body) = get(edge.address, HOST, "/").await;
    assert!(
        status == 503 && body.contains("did not wake up"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn a_held_request_with_a_body_is_sent_whole() {
    let edge = Edge::start().await;
    edge.control
        .publish(vec![route(HOST, RouteTarget::Hold { max_wait_ms: 10_000 })])
        .await;
    let app = App::start("new").await;
    let body = "x".repeat(300_000);
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let swap = async {
        eventually("it waits", async || edge.status().await.counts.held == 1).await;
        edge.control.publish(vec![to(HOST, &[(1, app.address)])]).await;
    };
    let (answer, ()) = tokio::join!(crate::client::raw(edge.address, request.as_bytes()), swap);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&body));
}

#[tokio::test]
async fn health_moves_traffic_and_a_new_start_closes_the_pool() {
    let edge = Edge::start_with(|options| options.workers = 1).await;
    let board = Board::default();
    let (wake, _woken) = mpsc::channel(8);
    let socket = listen(&edge.dir.path().join("node.sock")).unwrap();
    tokio::spawn(ObservationServer::new(board.clone(), wake, Peers::same_user()).serve(socket));
    let (a, b) = (App::start("a").await, App::start("b").await);
    edge.control
        .publish(vec![to(HOST, &[(1, a.address), (2, b.address)])])
        .await;
    let sick = || Health::Unhealthy {
        why: "GET / answered 500".to_owned(),
    };

    board.set(seen(1, 1, sick()));
    let only_b = async || {
        for _ in 0..20 {
            if get(edge.address, HOST, "/").await.1 != "b" {
                return false;
            }
        }
        true
    };
    eventually("the sick one is passed over", only_b).await;
    board.set(seen(2, 1, sick()));
    let both = async || {
        let mut a = 0;
        for _ in 0..20 {
            let (status, body) = get(edge.address, HOST, "/").await;
            assert_eq!(status, 200);
            a += usize::from(body == "a");
        }
        (1..20).contains(&a)
    };
    eventually("all sick is as good as all well", both).await;

    board.set(seen(1, 1, Health::Healthy { since_ms: 1 }));
    eventually("only the well one", async || {
        get(edge.address, HOST, "/").await.1 == "a" && get(edge.address, HOST, "/").await.1 == "a"
    })
    .await;
    let before = a.connections.load(Ordering::SeqCst);
    board.set(seen(1, 99, Health::Healthy { since_ms: 99 }));
    eventually("a new connection for the new start", async || {
        assert_eq!(get(edge.address, HOST, "/").await.0, 200);
        a.connections.load(Ordering::SeqCst) > before
    })
    .await;
}
