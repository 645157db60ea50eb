//! Live tests of the whole platform. They share the machine's Docker Engine and run one after another
//! (`--test-threads=1`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod live_deploys;
mod live_examples;
mod live_faults;
mod live_guide;
mod live_isolation;
mod live_server;
mod live_values;
