//! Labels on containers and networks: whose they are. Everything the platform knows of a container that Docker does
//! not say by itself stands here, so that it is found again with an empty memory.

use std::collections::BTreeMap;
use std::str::FromStr;

use ferrovia_core::workload::{ReplicaSlot, Workload};

use crate::Scope;

/// The installation that made it; without this label nothing is touched.
pub(super) const INSTALLATION: &str = "ferrovia.installation";
pub(super) const ENVIRONMENT_ID: &str = "ferrovia.environment_id";
pub(super) const INSTANCE_ID: &str = "ferrovia.instance_id";
pub(super) const DEPLOYMENT_ID: &str = "ferrovia.deployment_id";
pub(super) const REPLICA_ID: &str = "ferrovia.replica_id";
pub(super) const ORDINAL: &str = "ferrovia.ordinal";
pub(super) const SPEC_HASH: &str = "ferrovia.spec_hash";

/// Labels of something.
pub(super) type Labels = BTreeMap<String, String>;

/// The labels of a replica.
pub(super) fn of_replica(installation: &str, workload: &Workload, slot: &ReplicaSlot) -> Labels {
    let owner = &workload.owner;
    let labels = [
        (INSTALLATION, installation.to_owned()),
        ("ferrovia.project", owner.project.to_string()),
        ("ferrovia.project_id", owner.project_id.to_string()),
        ("ferrovia.environment", owner.environment.to_string()),
        (ENVIRONMENT_ID, owner.environment_id.to_string()),
        ("ferrovia.service", owner.service.to_string()),
        ("ferrovia.service_id", owner.service_id.to_string()),
        (INSTANCE_ID, owner.instance_id.to_string()),
        (DEPLOYMENT_ID, owner.deployment_id.to_string()),
        ("ferrovia.number", owner.number.to_string()),
        (REPLICA_ID, slot.id.to_string()),
        (ORDINAL, slot.ordinal.to_string()),
        (SPEC_HASH, workload.spec_hash.clone()),
        ("ferrovia.restart_nonce", slot.restart_nonce.to_string()),
    ];
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Docker's filter for the replicas of an installation in a scope.
pub(super) fn filter(installation: &str, scope: Scope) -> Vec<String> {
    let mut labels = vec![format!("{INSTALLATION}={installation}")];
    labels.push(match scope {
        Scope::All => REPLICA_ID.to_owned(),
        Scope::Environment(id) => format!("{ENVIRONMENT_ID}={id}"),
        Scope::Instance(id) => format!("{INSTANCE_ID}={id}"),
        Scope::Deployment(id) => format!("{DEPLOYMENT_ID}={id}"),
    });
    labels
}

/// A label's value as what it should be.
pub(super) fn get<T: FromStr>(labels: &Labels, key: &str) -> Option<T> {
    labels.get(key)?.parse().ok()
}
