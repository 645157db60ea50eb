//! Tests of the store on a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests"
)]

mod connections;
mod deployments;
mod embedded;
mod error_codes;
mod fixture;
mod live_disk_full;
mod objects;
mod queue;
mod queue_crowd;
mod retention;
mod secrets;
mod tables;
mod transactions;
