//! What the live tests stand on: a whole platform of their own on this machine, applications to deploy, and load that
//! notices every lost request.
//!
//! Everything here starts the real binaries, the real Docker Engine and the real BuildKit. What is missing is a
//! failure, never a skipped test.

pub mod app;
pub mod dockerd;
pub mod http;
pub mod installation;
pub mod load;
pub mod platform;
pub mod private;
pub mod rules;
pub mod wait;

/// What goes wrong in a test's own machinery.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
