//! What changes in the firewall while the platform runs: addresses, services, ports of bridges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ferrovia_core::table::NodeRow;

/// The changing part of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Addresses of replicas and the mark of their environment.
    pub members: BTreeMap<Ipv4Addr, u32>,
    /// Stable addresses of services and where new connections go. One without backends is not here: a connection to
    /// it gets no answer, so that its first packet is sent again until there is a backend.
    pub services: BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
    /// Ports of our bridges, where the kernel cannot match a bridge's name.
    pub ports: BTreeSet<String>,
}

impl Wanted {
    /// What the rows of the table ask for, with these ports.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a NodeRow>, ports: BTreeSet<String>) -> Self {
        let mut wanted = Self {
            ports,
            ..Self::default()
        };
        for row in rows {
            match row {
                // Mark 0 is what packets without an environment have.
                NodeRow::Member(member) if member.mark != 0 => {
                    wanted.members.insert(member.address, member.mark);
                }
                NodeRow::Member(_) => {}
                NodeRow::Service(service) => {
                    let mut backends = service.backends.clone();
                    backends.sort_unstable();
                    backends.dedup();
                    if !backends.is_empty() {
                        wanted.services.insert(service.address, backends);
                    }
                }
            }
        }
        wanted
    }
}
