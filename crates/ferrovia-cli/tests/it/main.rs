//! The command line against the real API on a real PostgreSQL. What reconcilers would do to a deployment, the tests do
//! themselves, so that each outcome can be had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests"
)]

mod commands;
mod contact;
mod contract;
mod deploys;
mod server;
