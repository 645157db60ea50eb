//! What tests need: a private PostgreSQL, a fresh database per test, waiting for conditions, free ports, a settable
//! clock, and logs that fail the test on an unexpected warning.
//!
//! For `[dev-dependencies]` only: it panics where a test should fail.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "what goes wrong here is a failed test, and must say so at once"
)]

#[cfg(feature = "store")]
mod clock;
#[cfg(feature = "store")]
mod database;
pub mod logs;
mod port;
pub mod postgres;
mod wait;

#[cfg(feature = "store")]
pub use clock::SettableClock;
#[cfg(feature = "store")]
pub use database::{TestDb, database};
pub use port::{FreePort, free_port};
pub use wait::wait_for;
