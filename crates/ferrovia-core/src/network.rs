//! The address plan of the private network on one host: bridges for replicas, one range for stable addresses.
//!
//! Each bridge has a block of [`BRIDGE_ADDRESSES`] addresses of the members' pool, so that the bridge of an address
//! follows from the address. The kernel takes 1,024 ports on a bridge; [`BRIDGE_MEMBERS`] leaves room.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Addresses in a bridge's block: a /22.
pub const BRIDGE_ADDRESSES: u32 = 1024;
/// Prefix length of a bridge's block.
pub const BRIDGE_PREFIX: u8 = 22;
/// Most replicas on one bridge.
pub const BRIDGE_MEMBERS: u32 = 900;

/// Which addresses the platform gives out. A setting, checked against the host's routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPlan {
    /// Replicas; split into bridges.
    pub members: Ipv4Net,
    /// Stable addresses of instances; never on a wire.
    pub services: Ipv4Net,
    /// Steps of builds; a bridge of its own.
    pub builds: Ipv4Net,
    /// Prefix of the interfaces' names: `fv` makes `fv0`, `fv1` and `fvbuild`.
    pub interface_prefix: String,
}

impl Default for AddressPlan {
    fn default() -> Self {
        let net = |b: u8, prefix| Ipv4Net::new_assert(Ipv4Addr::new(10, b, 0, 0), prefix);
        Self {
            members: net(210, 16),
            services: net(211, 16),
            builds: net(212, 24),
            interface_prefix: "fv".into(),
        }
    }
}

/// A bridge that replicas are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its place in the pool, from 0.
    pub index: u32,
    /// Name of its interface, also the name of the engine's network.
    pub interface: String,
    /// Its block of addresses.
    pub block: Ipv4Net,
    /// The host's own address on it, where names are answered.
    pub gateway: Ipv4Addr,
}

impl AddressPlan {
    /// How many bridges the pool holds.
    pub fn bridge_count(&self) -> u32 {
        1_u32
            .checked_shl(u32::from(BRIDGE_PREFIX.saturating_sub(self.members.prefix_len())))
            .unwrap_or(0)
    }

    /// The bridge at a place; `None` past the pool's end.
    pub fn bridge(&self, index: u32) -> Option<Bridge> {
        if index >= self.bridge_count() {
            return None;
        }
        let base = u32::from(self.members.network()) + index * BRIDGE_ADDRESSES;
        Some(Bridge {
            index,
            interface: format!("{}{index}", self.interface_prefix),
            block: Ipv4Net::new(Ipv4Addr::from(base), BRIDGE_PREFIX).ok()?,
            gateway: Ipv4Addr::from(base + 1),
        })
    }

    /// The bridge that an address is on; `None` when it is no replica's address.
    pub fn bridge_of(&self, address: Ipv4Addr) -> Option<Bridge> {
        if !self.members.contains(&address) {
            return None;
        }
        self.bridge((u32::from(address) - u32::from(self.members.network())) / BRIDGE_ADDRESSES)
    }

    /// The addresses of a bridge that replicas may have: not the network's, the gateway's and the broadcast's.
    pub fn member_addresses(&self, bridge: &Bridge) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let base = u32::from(bridge.block.network());
        (2..BRIDGE_ADDRESSES - 1).map(move |offset| Ipv4Addr::from(base + offset))
    }

    /// The name of the bridge for builds.
    pub fn build_interface(&self) -> String {
        format!("{}build", self.interface_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_follows_from_the_address() {
        let plan = AddressPlan::default();
        assert_eq!(plan.bridge_count(), 64);
        let second = plan.bridge(1).unwrap();
        assert_eq!(second.gateway, Ipv4Addr::new(10, 210, 4, 1));
        for address in plan.member_addresses(&second) {
            assert_eq!(plan.bridge_of(address).unwrap(), second);
        }
        assert_eq!(plan.bridge_of(Ipv4Addr::new(10, 211, 0, 1)), None);
        assert_eq!(plan.bridge(64), None);
    }
}
