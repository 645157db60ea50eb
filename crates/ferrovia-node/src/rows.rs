//! The node's table as its parts use it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::table::{Member, MemberPhase, NodeRow, Table, Version};

/// A version of the table.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Which version.
    pub version: Version,
    /// All rows.
    pub all: Vec<NodeRow>,
    members: HashMap<ReplicaId, Member>,
    names: HashMap<InstanceId, String>,
}

impl Rows {
    /// The rows of a table.
    pub fn new(table: &Table<NodeRow>) -> Self {
        let mut rows = Self {
            version: table.version,
            all: table.rows.values().cloned().collect(),
            ..Self::default()
        };
        for row in &rows.all {
            match row {
                NodeRow::Member(member) => {
                    rows.members.insert(member.replica_id, member.clone());
                }
                NodeRow::Service(service) => {
                    let name = format!("{}.ferrovia.internal", service.name);
                    rows.names.insert(service.instance_id, name);
                }
            }
        }
        rows
    }

    /// What the table says of a replica.
    pub fn member(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.get(&replica)
    }

    /// Whether what the table says of a replica, or its service's name, is not what it was.
    pub fn differs(&self, before: &Self, replica: ReplicaId) -> bool {
        self.said_of(replica) != before.said_of(replica)
    }

    fn said_of(&self, replica: ReplicaId) -> Option<(&Member, Option<&String>)> {
        let member = self.member(replica)?;
        Some((member, self.names.get(&member.instance_id)))
    }

    /// The private name of an instance's service; its replica's address when it has none.
    pub fn host(&self, member: &Member) -> String {
        let name = self.names.get(&member.instance_id);
        name.cloned().unwrap_or_else(|| member.address.to_string())
    }

    /// Addresses of replicas on their way out.
    pub fn draining(&self) -> HashMap<Ipv4Addr, ReplicaId> {
        let draining = self
            .members
            .values()
            .filter(|member| member.phase == MemberPhase::Draining);
        draining
            .map(|member| (member.address, member.replica_id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_core::id::{DeploymentId, EnvironmentId};
    use ferrovia_core::settings::RestartPolicy;
    use ferrovia_core::table::{Probe, Row, ServiceAddress};
    use uuid::Uuid;

    use super::*;

    fn member(number: u8, phase: MemberPhase) -> NodeRow {
        let id = Uuid::from_u128(number.into());
        NodeRow::Member(Member {
            address: Ipv4Addr::new(10, 0, 0, number),
            replica_id: ReplicaId::from_uuid(id),
            deployment_id: DeploymentId::from_uuid(id),
            instance_id: InstanceId::from_uuid(id),
            environment_id: EnvironmentId::from_uuid(id),
            mark: 1,
            probe: Probe::Tcp { port: 80 },
            restart: RestartPolicy::default(),
            phase,
        })
    }

    fn service(number: u8) -> NodeRow {
        let id = Uuid::from_u128(number.into());
        NodeRow::Service(ServiceAddress {
            instance_id: InstanceId::from_uuid(id),
            environment_id: EnvironmentId::from_uuid(id),
            mark: 1,
            name: "a".parse().unwrap(),
            address: Ipv4Addr::new(10, 1, 0, number),
            backends: vec![],
            asleep: false,
        })
    }

    fn rows(rows: &[NodeRow]) -> Rows {
        Rows::new(&Table {
            version: Version::default(),
            rows: rows.iter().map(|row| (row.key(), row.clone())).collect(),
        })
    }

    #[test]
    fn only_replicas_with_other_rows_differ() {
        use MemberPhase::{Draining, Serving};
        let before = rows(&[
            member(1, Serving),
            member(2, Serving),
            member(3, Serving),
            member(4, Serving),
        ]);
        let now = rows(&[
            member(1, Serving),
            member(2, Draining),
            member(4, Serving),
            service(4),
            member(5, Serving),
        ]);
        let differing: Vec<u128> = (1..=6)
            .filter(|number| now.differs(&before, ReplicaId::from_uuid(Uuid::from_u128(*number))))
            .collect();
        assert_eq!(differing, [2, 3, 4, 5], "another phase, gone, a name, new");
    }
}
