//! The node against the real kernel and the real Docker Engine. Everything here begins with `fn` or `fm`, has
//! addresses of its own, and is taken away before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod command;
mod control;
mod live_dockerd;
mod live_idle;
mod live_logs;
mod live_names;
mod live_network;
mod live_private;
mod live_replicas;
mod node;
mod outside;
mod place;
mod rig;
