//! The node against the real kernel and the real Docker Engine. Everything here begins with `fn` or `fvnode`, has
//! addresses of its own, and is taken away before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod live_network;
mod rig;
