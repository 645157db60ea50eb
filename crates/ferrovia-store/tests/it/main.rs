//! Tests of the store on a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests"
)]

mod deployments;
mod fixture;
mod objects;
mod queue;
mod queue_crowd;
mod secrets;
mod tables;
mod transactions;
