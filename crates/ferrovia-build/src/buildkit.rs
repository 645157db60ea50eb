//! BuildKit: a daemon of our own, held in a control group and a network of its own, driven by `buildctl`.
//!
//! Not the BuildKit inside Docker: that one runs steps without limits, in Docker's networks, in whatever version Docker
//! brought. Ours is started with the first build and ended a minute after the last, so that it costs nothing between.
//!
//! - **Limits** ([`cgroup`]): the daemon and every step live under one control group. At each start a canary step must be
//!   killed at its limit ([`canary`]), else nothing is built.
//! - **Network** ([`network`]): daemon and steps live behind one bridge that the platform's firewall guards. The daemon
//!   itself is in there too, since `ADD http://…` and `FROM HOST/…` make *it* connect wherever a Dockerfile says.
//! - **Builds** ([`solve`]): one `buildctl` each, whose progress becomes log lines and whose failure becomes a report.
//!
//! Deliberately absent: rootless operation, other workers, remote caches, attestations (an image is one plain manifest,
//! which Docker 20.10 can pull), and frontends from images.

pub mod canary;
pub mod cgroup;
pub mod config;
pub mod daemon;
pub mod failure;
pub mod network;
pub mod progress;
pub mod secrets;
pub mod solve;
pub mod tools;
