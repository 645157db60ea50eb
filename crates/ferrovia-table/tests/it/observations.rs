//! Observations and wakes between a node and its subscribers.

use std::time::{Duration, Instant};

use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_core::observation::{Figures, Health, Observation};
use ferrovia_table::observe::{Board, ObservationServer, Observer};
use ferrovia_table::{Peers, listen};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::eventually;

fn seen(number: u128, crashes: u32) -> Observation {
    Observation {
        replica_id: ReplicaId::from_uuid(Uuid::from_u128(number)),
        deployment_id: DeploymentId::from_uuid(Uuid::nil()),
        instance_id: InstanceId::from_uuid(Uuid::nil()),
        handle: "c0ffee".to_owned(),
        started_at_ms: Some(1),
        health: Health::Healthy { since_ms: 2 },
        last_exit: None,
        crashes,
        log_drained: false,
        listens_on: Vec::new(),
        root_status: None,
        seen_at_ms: 3,
    }
}

#[tokio::test]
async fn subscribers_get_everything_then_what_changes_and_can_wake() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let board = Board::default();
    for n in 0..1_234 {
        board.set(seen(n, 0));
    }
    let (wake, mut woken) = mpsc::channel(8);
    let serve = |board: &Board| {
        let server = ObservationServer::new(board.clone(), wake.clone(), Peers::same_user());
        tokio::spawn(server.serve(listen(&socket).unwrap()))
    };
    let server = serve(&board);
    let (observer, handle) = Observer::new(socket.clone(), Peers::same_user());
    tokio::spawn(observer.run());
    let now = handle.observations();
    eventually("everything is there", || now.borrow().replicas.len() == 1_234).await;

    let before = now.borrow().clone();
    board.set(seen(7, 5));
    board.set(Observation {
        seen_at_ms: 99,
        ..seen(8, 0)
    });
    let later = Observation {
        seen_at_ms: 60_000,
        ..seen(11, 0)
    };
    board.set(later.clone());
    board.remove(seen(9, 0).replica_id);
    eventually("the changes are there", || now.borrow().replicas.len() == 1_233).await;
    assert_eq!(
        *now.borrow().replicas[&later.replica_id],
        later,
        "its time is passed on"
    );
    let differences = now.borrow().differences(&before);
    assert_eq!(differences, [seen(7, 0).replica_id, seen(9, 0).replica_id]);

    let instance = InstanceId::from_uuid(Uuid::from_u128(5));
    handle.wake(instance);
    assert_eq!(woken.recv().await, Some(instance));

    server.abort();
    let _ = server.await;
    eventually("it is known that node is away", || !now.borrow().connected).await;
    assert_eq!(now.borrow().replicas.len(), 1_233);
    board.remove(seen(10, 0).replica_id);
    let _server = serve(&board);
    eventually("it is back", || {
        now.borrow().connected && now.borrow().replicas.len() == 1_232
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_that_lags_far_behind_still_learns_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let board = Board::default();
    for n in 0..5_000 {
        board.set(seen(n, 0));
    }
    let (wake, _woken) = mpsc::channel(1);
    tokio::spawn(
        ObservationServer::new(board.clone(), wake, Peers::same_user()).serve(listen(&socket).unwrap()),
    );
    let (observer, handle) = Observer::new(socket, Peers::same_user());
    tokio::spawn(observer.run());
    let now = handle.observations();
    eventually("everything is there", || now.borrow().replicas.len() == 5_000).await;
    for n in 0..4_000 {
        board.remove(seen(n, 0).replica_id);
    }
    eventually("the gone are gone", || now.borrow().replicas.len() == 1_000).await;
}

#[tokio::test]
async fn what_happens_in_a_burst_travels_together() {
    const REPLICAS: u32 = 1_000;
    const GATHER: Duration = Duration::from_millis(20);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let board = Board::default();
    for number in 0..REPLICAS {
        board.set(seen(number.into(), 0));
    }
    let (wake, _woken) = mpsc::channel(1);
    let server = ObservationServer::new(board.clone(), wake, Peers::same_user());
    tokio::spawn(server.serve(listen(&socket).unwrap()));
    let (observer, handle) = Observer::new(socket, Peers::same_user());
    tokio::spawn(observer.run());
    let mut now = handle.observations();
    eventually("everything is there", || {
        now.borrow().replicas.len() == REPLICAS as usize
    })
    .await;
    now.mark_unchanged();
    let (began, mut news) = (Instant::now(), 0);
    while began.elapsed() < 10 * GATHER {
        news += 1;
        board.set(seen(1, news));
        now.changed().await.unwrap();
        assert_eq!(
            now.borrow_and_update().replicas[&seen(1, 0).replica_id].crashes,
            news
        );
    }
    assert!(
        news <= 12,
        "{news} times something was sent in {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn figures_are_read_while_somebody_wants_them() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let board = Board::default();
    let (wake, _woken) = mpsc::channel(8);
    let server = ObservationServer::new(board.clone(), wake, Peers::same_user());
    tokio::spawn(server.serve(listen(&socket).unwrap()));
    let (without, handle) = Observer::new(socket.clone(), Peers::same_user());
    tokio::spawn(without.run());
    board.set(seen(1, 0));
    let now = handle.observations();
    eventually("it is subscribed", || now.borrow().connected).await;
    let wanted = tokio::spawn({
        let board = board.clone();
        async move { board.figures_wanted().await }
    });
    let (mut with, _handle) = Observer::new(socket, Peers::same_user());
    let figures = with.with_figures();
    assert!(!wanted.is_finished(), "nobody wants any");
    let subscribed = tokio::spawn(with.run());
    wanted.await.unwrap();
    let all = |count| {
        let figures = |number| Figures {
            replica_id: ReplicaId::from_uuid(Uuid::from_u128(number)),
            started_at_ms: Some(1),
            cpu_nanos: 2,
            memory_bytes: 3,
            memory_limit_bytes: 4,
            received_bytes: 5,
            sent_bytes: 6,
            pids: 7,
            read_at_ms: 8,
        };
        (0..count).map(figures).collect()
    };
    for count in [1_234, 3, 0, 1] {
        board.set_figures(all(count));
        eventually("they are there", || figures.borrow().len() == count as usize).await;
    }
    subscribed.abort();
    let _ = subscribed.await;
    // The server notices at its next word at the latest.
    let mut number = 1;
    eventually("nobody wants them any more", || {
        number += 1;
        board.set(seen(number, 0));
        let mut wanted = std::pin::pin!(board.figures_wanted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        wanted.as_mut().poll(&mut context).is_pending()
    })
    .await;
}
