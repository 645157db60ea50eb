//! The agent on each Docker host: names, firewall, probes, logs, stats and restarts of the private network.

pub mod firewall;
mod netlink;
