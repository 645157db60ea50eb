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
