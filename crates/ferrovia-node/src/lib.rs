//! The agent on each Docker host: names, firewall, probes, logs, figures and restarts of replicas.
//!
//! It reads the node's table from control, serves its observations to control and edge, and needs neither of them:
//! from the last good table it goes on for as long as it must, after a reboot too. It decides nothing that control
//! decides, but for one thing: what serves and crashes too often is stopped.
//!
//! Deliberately absent: waking what sleeps. Requests to wake are taken and dropped until there is sleep.

mod clock;
mod conntrack;
pub mod dns;
mod drain;
mod figures;
pub mod firewall;
pub mod logs;
mod netlink;
mod node;
pub mod probe;
pub mod replicas;
mod rows;

pub use node::{Error, Network, Options, run};
pub use rows::Rows;
