//! A fake replica: what it was made from, and what it does now.

use ferrovia_core::settings::Resources;
use ferrovia_core::workload::{
    EngineRestart, Exit, ImageReference, Observed, Owner, ReplicaSlot, ReplicaStatus,
};

use super::behaviour::Behaviour;

/// One replica.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub handle: String,
    pub name: String,
    pub owner: Owner,
    pub slot: ReplicaSlot,
    pub spec_hash: String,
    pub image: ImageReference,
    /// As the process sees them.
    pub variables: Vec<(String, String)>,
    pub behaviour: Behaviour,
    pub resources: Resources,
    pub restart: EngineRestart,
    pub run: Run,
    pub started_at_ms: Option<i64>,
    pub engine_restarts: u32,
    pub last_exit: Option<Exit>,
    pub restart_wait_ms: u64,
    pub stopped_by_hand: bool,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Run {
    Created,
    Running,
    /// Ended; the engine starts it again then.
    Waiting {
        until_ms: i64,
    },
    Ended(Exit),
}

impl Replica {
    /// As the trait tells it.
    pub(super) fn observed(&self) -> Observed {
        Observed {
            handle: self.handle.clone(),
            name: self.name.clone(),
            replica_id: self.slot.id,
            deployment_id: self.owner.deployment_id,
            instance_id: self.owner.instance_id,
            environment_id: self.owner.environment_id,
            ordinal: self.slot.ordinal,
            spec_hash: self.spec_hash.clone(),
            status: match &self.run {
                Run::Created => ReplicaStatus::Created,
                Run::Running => ReplicaStatus::Running,
                Run::Waiting { .. } => ReplicaStatus::Restarting,
                Run::Ended(exit) => ReplicaStatus::Exited(exit.clone()),
            },
            address: self.slot.address,
            started_at_ms: self.started_at_ms,
            last_exit: match &self.run {
                Run::Ended(exit) => Some(exit.clone()),
                _ => self.last_exit.clone(),
            },
            engine_restarts: self.engine_restarts,
            restart: self.restart,
        }
    }
}
