//! Tests of the engines through their trait. Modules that begin with `live_` need Docker, root and Debian's packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong here is a failed test"
)]

mod contract;
mod docker_lab;
mod fake_memory;
mod fake_process;
mod live_docker;
mod live_official;
mod live_profile;
mod live_speed;
mod registry;
mod scripted;
mod workload;
