//! Which name means what to whom. Pure: the table in, a verdict out.
//!
//! The environment is known by the source's address, which the firewall vouches for. A source is answered names of
//! its own environment only, so that nothing tells one environment which services another has.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ferrovia_core::id::EnvironmentId;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::table::NodeRow;
use ipnet::Ipv4Net;

/// The zones that are ours: names in them never leave the host. `railway.internal` is what applications written for
/// Railway ask for.
const ZONES: [&str; 2] = ["ferrovia.internal", "railway.internal"];
const REVERSE_ZONE: &str = ".in-addr.arpa";

/// What is known of names.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    environments: HashMap<Ipv4Addr, EnvironmentId>,
    services: HashMap<EnvironmentId, HashMap<String, Ipv4Addr>>,
    /// Addresses that nobody outside knows a name of.
    pools: Vec<Ipv4Net>,
    builds: Option<Ipv4Net>,
}

/// What a question is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The name is a service with this address.
    Service(Ipv4Addr),
    /// The name is ours and has nothing more to say.
    Empty,
    /// There is no such name.
    Unknown,
    /// The name is somebody else's: the host's resolvers know.
    Forward,
    /// Who asks is not known.
    Refuse,
}

impl Zone {
    /// What the rows say.
    pub fn new<'a>(plan: &AddressPlan, rows: impl IntoIterator<Item = &'a NodeRow>) -> Self {
        let mut zone = Self {
            pools: vec![plan.members, plan.services, plan.builds],
            builds: Some(plan.builds),
            ..Self::default()
        };
        for row in rows {
            match row {
                NodeRow::Member(member) => {
                    zone.environments.insert(member.address, member.environment_id);
                }
                NodeRow::Service(service) => {
                    let names = zone.services.entry(service.environment_id).or_default();
                    names.insert(service.name.to_string(), service.address);
                }
            }
        }
        zone
    }

    /// The verdict on a name in lower case without the last dot.
    pub fn decide(&self, source: Ipv4Addr, name: &str) -> Verdict {
        let names = match self.environments.get(&source) {
            Some(environment) => self.services.get(environment),
            None if self.builds.is_some_and(|builds| builds.contains(&source)) => None,
            None => return Verdict::Refuse,
        };
        if ZONES.contains(&name) {
            return Verdict::Empty;
        }
        let label = ZONES
            .iter()
            .find_map(|zone| name.strip_suffix(zone)?.strip_suffix('.'))
            .or_else(|| (!name.contains('.') && !name.is_empty()).then_some(name));
        match label {
            Some(label) => match names.and_then(|names| names.get(label)) {
                Some(address) => Verdict::Service(*address),
                None => Verdict::Unknown,
            },
            None if self.is_ours_reversed(name) => Verdict::Unknown,
            None => Verdict::Forward,
        }
    }

    /// Whether a name asks for the name of one of our addresses.
    fn is_ours_reversed(&self, name: &str) -> bool {
        let Some(digits) = name.strip_suffix(REVERSE_ZONE) else {
            return false;
        };
        let forward: Vec<&str> = digits.rsplit('.').collect();
        let address: Result<Ipv4Addr, _> = forward.join(".").parse();
        address.is_ok_and(|address| self.pools.iter().any(|pool| pool.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
    use ferrovia_core::settings::RestartPolicy;
    use ferrovia_core::table::{Member, MemberPhase, Probe, ServiceAddress};
    use uuid::Uuid;

    use super::*;

    fn rows(environment: u128, member: [u8; 4], service: &str, address: [u8; 4]) -> [NodeRow; 2] {
        let id = Uuid::from_u128(environment);
        [
            NodeRow::Member(Member {
                address: member.into(),
                replica_id: ReplicaId::from_uuid(id),
                deployment_id: DeploymentId::from_uuid(id),
                instance_id: InstanceId::from_uuid(id),
                environment_id: EnvironmentId::from_uuid(id),
                mark: 1,
                probe: Probe::Alive { after_ms: 1 },
                restart: RestartPolicy::Always,
                phase: MemberPhase::Serving,
            }),
            NodeRow::Service(ServiceAddress {
                instance_id: InstanceId::from_uuid(id),
                environment_id: EnvironmentId::from_uuid(id),
                mark: 1,
                name: service.parse().unwrap(),
                address: address.into(),
                backends: vec![],
                asleep: false,
            }),
        ]
    }

    #[test]
    fn names_are_told_inside_their_environment_only() {
        let mut all = rows(1, [10, 210, 0, 5], "db", [10, 211, 0, 1]).to_vec();
        all.extend(rows(2, [10, 210, 0, 6], "cache", [10, 211, 0, 2]));
        let zone = Zone::new(&AddressPlan::default(), &all);
        let (first, second) = (Ipv4Addr::new(10, 210, 0, 5), Ipv4Addr::new(10, 210, 0, 6));
        let db = Verdict::Service(Ipv4Addr::new(10, 211, 0, 1));
        for name in ["db", "db.ferrovia.internal", "db.railway.internal"] {
            assert_eq!(zone.decide(first, name), db);
            assert_eq!(zone.decide(second, name), Verdict::Unknown);
        }
        for name in ["x.db.ferrovia.internal", "nothing", "5.0.210.10.in-addr.arpa"] {
            assert_eq!(zone.decide(first, name), Verdict::Unknown, "{name}");
        }
        for name in [
            "example.com",
            "",
            "8.8.8.8.in-addr.arpa",
            "db.ferrovia.internal.com",
            "10.in-addr.arpa",
        ] {
            assert_eq!(zone.decide(first, name), Verdict::Forward, "{name}");
        }
        assert_eq!(zone.decide(first, "ferrovia.internal"), Verdict::Empty);
        let build = Ipv4Addr::new(10, 212, 0, 9);
        assert_eq!(zone.decide(build, "db"), Verdict::Unknown);
        assert_eq!(zone.decide(build, "example.com"), Verdict::Forward);
        assert_eq!(
            zone.decide(Ipv4Addr::new(10, 210, 0, 7), "example.com"),
            Verdict::Refuse
        );
    }
}
