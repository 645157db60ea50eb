//! Rows to fill tables with.

use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::table::{Draining, EdgeRow};
use uuid::Uuid;

/// The row number `number`, with a value to tell changes by.
pub fn row(number: u128, until_ms: i64) -> EdgeRow {
    EdgeRow::Draining(Draining {
        replica_id: ReplicaId::from_uuid(Uuid::from_u128(number)),
        instance_id: InstanceId::from_uuid(Uuid::nil()),
        until_ms,
    })
}
