//! The API against a real PostgreSQL: what is answered, what is changed, what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests"
)]

mod access;
mod api;
mod bounds;
mod cutoff;
mod deployments;
mod documents;
mod error_codes;
mod live_schemathesis;
mod matrix;
mod objects;
mod processes;
mod repeats;
mod source;
mod streams;
mod variables;
