//! What does not change in the firewall while `node` runs: bridges, the edge's ports, closed and opened ranges.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferrovia_core::network::AddressPlan;
use ipnet::Ipv4Net;

/// Ranges that are closed on the way out, whatever a setting says: this host (RFC 1122), loopback, link-local
/// (RFC 3927: where clouds keep credentials), multicast and reserved.
const NEVER: [&str; 5] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// Ranges that are closed on the way out unless a setting opens them: private (RFC 1918), shared (RFC 6598),
/// benchmarks (RFC 2544).
const CLOSED: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "198.18.0.0/15",
];
/// Longest prefix of interface names: with the number or `build` it must stay under the kernel's 15 bytes.
const MAX_PREFIX_BYTES: usize = 9;

/// How the kernel tells which bridge a frame is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeMatch {
    /// By the bridge's name (`meta ibrname`): needs nothing to be kept.
    Name,
    /// By a set of port names that is kept up to date, and, for a port that is not yet in it, by the hardware and IP
    /// addresses of the platform's pools.
    Port,
}

/// The part of the firewall that is the same as long as `node` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Name of the tables: `ferrovia`, or `ferrovia_PREFIX` for another prefix of interface names.
    pub table: String,
    /// Names of all bridges that replicas may be on.
    pub bridges: Vec<String>,
    /// The host's addresses on them.
    pub gateways: Vec<Ipv4Addr>,
    /// Replicas.
    pub members: Ipv4Net,
    /// Stable addresses.
    pub services: Ipv4Net,
    /// The bridge of builds.
    pub build_interface: String,
    /// Its addresses.
    pub builds: Ipv4Net,
    /// The host's address on it.
    pub build_gateway: Ipv4Addr,
    /// Where the edge listens beyond loopback.
    pub edge: Vec<(Ipv4Net, u16)>,
    /// Ranges outside that a setting opened.
    pub opened: Vec<Ipv4Net>,
    /// How bridges are told.
    pub bridge_match: BridgeMatch,
    /// Whether the host speaks IPv6, which is then closed.
    pub ipv6: bool,
}

/// The address plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The prefix of interface names has characters or a length that interfaces cannot have.
    #[error(
        "`{0}` cannot begin interface names: use at most {MAX_PREFIX_BYTES} lower-case letters and digits"
    )]
    Prefix(String),
    /// Two ranges overlap, or one is too small.
    #[error("the address ranges {0} and {1} overlap")]
    Overlap(Ipv4Net, Ipv4Net),
    /// The members' range does not hold one bridge.
    #[error("the range {0} is too small: it must hold a /22")]
    Small(Ipv4Net),
}

impl Fixed {
    /// The fixed part for an address plan.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        plan: &AddressPlan,
        edge: &[SocketAddr],
        opened: &[Ipv4Net],
        bridge_match: BridgeMatch,
        ipv6: bool,
    ) -> Result<Self, PlanError> {
        let prefix = plan.interface_prefix.as_str();
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.chars().all(fits) {
            return Err(PlanError::Prefix(prefix.to_owned()));
        }
        let ranges = [plan.members, plan.services, plan.builds];
        for (place, a) in ranges.iter().enumerate() {
            for b in &ranges[place + 1..] {
                if a.contains(b) || b.contains(a) {
                    return Err(PlanError::Overlap(*a, *b));
                }
            }
        }
        let bridges: Vec<_> = (0..plan.bridge_count())
            .filter_map(|index| plan.bridge(index))
            .collect();
        if bridges.is_empty() {
            return Err(PlanError::Small(plan.members));
        }
        Ok(Self {
            table: match prefix {
                "fv" => "ferrovia".to_owned(),
                other => format!("ferrovia_{other}"),
            },
            gateways: bridges.iter().map(|bridge| bridge.gateway).collect(),
            bridges: bridges.into_iter().map(|bridge| bridge.interface).collect(),
            members: plan.members.trunc(),
            services: plan.services.trunc(),
            build_interface: plan.build_interface(),
            builds: plan.builds.trunc(),
            build_gateway: build_gateway(plan),
            edge: public(edge),
            opened: opened.iter().map(Ipv4Net::trunc).collect(),
            bridge_match,
            ipv6,
        })
    }

    /// Ranges that nothing opens, ours among them: what is allowed inside them was decided before.
    pub fn never(&self) -> Vec<Ipv4Net> {
        let mut ranges = parsed(&NEVER);
        ranges.extend([self.members, self.services, self.builds]);
        Ipv4Net::aggregate(&ranges)
    }

    /// Ranges that are closed unless opened.
    pub fn closed(&self) -> Vec<Ipv4Net> {
        Ipv4Net::aggregate(&parsed(&CLOSED))
    }

    /// The pool's hardware addresses, as mask and value: those of [`ferrovia_core::table::hardware_address`].
    pub fn hardware_pool(&self) -> (String, String) {
        let text = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        let [a, b, c, d] = self.members.netmask().octets();
        let [e, f, g, h] = self.members.network().octets();
        (text([0xff, 0xff, a, b, c, d]), text([0x02, 0xfe, e, f, g, h]))
    }
}

/// The host's address on the bridge of builds: the first of its range.
pub fn build_gateway(plan: &AddressPlan) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(plan.builds.network()) + 1)
}

/// What applications may reach of the edge: not what is on loopback, which they cannot, and everything local for a
/// listener on all addresses.
fn public(edge: &[SocketAddr]) -> Vec<(Ipv4Net, u16)> {
    let mut found: Vec<_> = edge
        .iter()
        .filter_map(|address| {
            let range = match address.ip() {
                IpAddr::V4(ip) if ip.is_loopback() => return None,
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Net::default(),
                IpAddr::V4(ip) => Ipv4Net::from(ip),
                // A listener on all IPv6 addresses takes IPv4 too, unless it was told not to.
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Net::default(),
                IpAddr::V6(_) => return None,
            };
            Some((range, address.port()))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn parsed(ranges: &[&str]) -> Vec<Ipv4Net> {
    ranges.iter().filter_map(|range| range.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(plan: &AddressPlan) -> Result<Fixed, PlanError> {
        Fixed::new(plan, &[], &[], BridgeMatch::Name, true)
    }

    #[test]
    fn plans_that_cannot_be_used_are_refused() {
        let plan = AddressPlan::default();
        assert!(fixed(&plan).is_ok());
        for prefix in ["", "a b", "x\"; flush", "waytoolong1"] {
            let plan = AddressPlan {
                interface_prefix: prefix.to_owned(),
                ..plan.clone()
            };
            assert!(matches!(fixed(&plan), Err(PlanError::Prefix(_))), "{prefix}");
        }
        let plan = AddressPlan {
            services: "10.210.4.0/24".parse().unwrap(),
            ..plan
        };
        assert!(matches!(fixed(&plan), Err(PlanError::Overlap(..))));
    }

    #[test]
    fn the_edge_is_open_where_it_listens_beyond_loopback() {
        let edge: Vec<SocketAddr> = [
            "127.0.0.1:8080",
            "0.0.0.0:80",
            "203.0.113.7:443",
            "[::]:444",
            "[::1]:445",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        let all = Ipv4Net::default();
        assert_eq!(
            public(&edge),
            [(all, 80), (all, 444), ("203.0.113.7/32".parse().unwrap(), 443)]
        );
    }

    #[test]
    fn every_constant_range_is_one_and_the_pool_of_hardware_addresses_follows_the_members() {
        assert_eq!(parsed(&NEVER).len() + parsed(&CLOSED).len(), 10);
        let (mask, value) = fixed(&AddressPlan::default()).unwrap().hardware_pool();
        assert_eq!(
            (mask.as_str(), value.as_str()),
            ("ff:ff:ff:ff:00:00", "02:fe:0a:d2:00:00")
        );
    }
}
