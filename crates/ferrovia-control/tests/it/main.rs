//! Tests of control on a real PostgreSQL, the fake engine, and a small edge and node that read the real tables.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests"
)]

mod builds;
mod cleanup;
mod deploys;
mod disk;
mod error_codes;
mod faults;
mod harness;
mod reasons;
mod tables;
