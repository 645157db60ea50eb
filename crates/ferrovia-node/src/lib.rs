//! The agent on each Docker host: names, firewall, probes, logs, stats and restarts of the private network.

mod clock;
pub mod dns;
pub mod firewall;
pub mod logs;
mod netlink;
pub mod probe;
