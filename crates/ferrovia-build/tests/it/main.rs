//! Integration tests of ferrovia-build: one binary, a module per part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod fetch;
mod images;
mod live_build;
mod live_network;
mod live_platform;
mod live_registry;
mod registry;
mod served;
mod site;
mod trees;
