//! A real edge between real clients and real servers, well and badly behaved, under a control in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail by panicking"
)]

mod app;
mod bodies;
mod client;
mod control;
mod deploys;
mod drain;
mod edge;
mod faults;
mod holds;
mod limits;
mod load;
mod routing;
mod smuggling;
mod tunnels;

use std::time::Duration;

/// Waits until `what` holds; fails after fifteen seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
