//! Deploy after deploy under load: not one request is lost.

use std::time::Duration;

use crate::app::App;
use crate::control::{draining, to};
use crate::edge::Edge;
use crate::load::{HOST, Load, unix_ms};

const DEPLOYS: u128 = 200;
const DRAIN_MS: i64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_deploys_lose_no_request() {
    let edge = Edge::start().await;
    let mut old = App::start("v1").await;
    edge.control.publish(vec![to(HOST, &[(1, old.address)])]).await;
    let load = Load::start(edge.address);

    for n in 2..=DEPLOYS {
        let new = App::start(&format!("v{n}")).await;
        let until_ms = unix_ms() + DRAIN_MS;
        let version = edge
            .control
            .publish(vec![to(HOST, &[(n, new.address)]), draining(n - 1, until_ms)])
            .await;
        // Control stops a replica when nothing is open, or some seconds after the end of the drain.
        let patience = until_ms + 5_000;
        while edge.control.open(n - 1, version) != Some(0) {
            assert!(
                unix_ms() < patience,
                "v{} has something open: {:?}",
                n - 1,
                edge.control.open(n - 1, version)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::mem::replace(&mut old, new).kill().await;
        edge.control
            .write(vec![], &[format!("draining/{}", crate::control::replica(n - 1))]);
    }
    let (done, goodbyes) = load.stop().await;
    assert!(done > 1_000, "{done} requests only");
    assert!(goodbyes > 50, "{goodbyes} goodbyes only");
    let counts = edge.status().await.counts;
    assert_eq!(
        (counts.cut, counts.broken, counts.unreachable),
        (0, 0, 0),
        "{counts:?}"
    );
}
