//! From a deployment's rows to what the engine is asked to run.

use std::collections::BTreeMap;

use ferrovia_core::cutover::Replica;
use ferrovia_core::injected::{PublicAddress, injected};
use ferrovia_core::secret::Secret;
use ferrovia_core::workload::{Owner, ReplicaSlot, Workload};
use ferrovia_store::cutover::{DeploymentFacts, Situation};
use ferrovia_store::deployment;
use ferrovia_store::seal::DataKey;

use crate::control::Site;
use crate::error::Error;

/// The workload of a deployment with these copies.
pub(super) fn workload(
    site: &Site,
    situation: &Situation,
    facts: &DeploymentFacts,
    key: &DataKey,
    replicas: &[&Replica],
) -> Result<Workload, Error> {
    let attempt = &facts.attempt;
    let image = facts.image.clone().ok_or(Error::Stale)?;
    let owner = Owner {
        project_id: situation.project_id,
        project: situation.project.clone(),
        environment_id: situation.place.environment_id,
        environment: situation.environment.clone(),
        service_id: situation.service_id,
        service: situation.place.service.clone(),
        instance_id: situation.place.instance_id,
        deployment_id: attempt.id,
        number: attempt.number,
    };
    let public = attempt
        .port
        .and(situation.host.as_ref())
        .map(|host| PublicAddress {
            host: host.clone(),
            scheme: site.scheme,
            port: site.port,
        });
    let mut variables: BTreeMap<String, Secret> = injected(
        &owner,
        attempt.port,
        public.as_ref(),
        &facts.source,
        attempt.settings.railway_variables,
    )
    .into_iter()
    .map(|(name, value)| (name, Secret::new(value)))
    .collect();
    variables.extend(
        key.open_pairs(&facts.sealed_variables, &deployment::place(attempt.id))
            .map_err(ferrovia_store::Error::from)?,
    );
    let mut workload = Workload {
        owner,
        image,
        command: attempt
            .settings
            .start_command
            .as_ref()
            .map(|command| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.clone()]),
        variables: variables.into_iter().collect(),
        resources: attempt.settings.resources.clone(),
        mounts: Vec::new(),
        stop_grace_ms: attempt.settings.stop_grace_ms,
        spec_hash: String::new(),
        replicas: replicas.iter().map(|replica| slot(replica)).collect(),
    };
    workload.spec_hash = spec_hash(&workload, key)?;
    Ok(workload)
}

fn slot(replica: &Replica) -> ReplicaSlot {
    ReplicaSlot {
        id: replica.id,
        ordinal: replica.ordinal,
        address: Some(replica.address),
        restart_nonce: replica.restart_nonce,
    }
}

/// An HMAC, since it stands in the container's labels and goes over values. The number of replicas is not in it, so
/// that scaling recreates nothing.
fn spec_hash(workload: &Workload, key: &DataKey) -> Result<String, Error> {
    let plain = serde_json::to_vec(&(
        workload.owner.deployment_id,
        workload.image.to_string(),
        &workload.command,
        &workload.resources,
        &workload.mounts,
        workload.stop_grace_ms,
    ))
    .map_err(|error| ferrovia_store::Error::corrupt("deployment", error))?;
    let values = workload
        .variables
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), value.expose().as_bytes()]);
    Ok(key.mac("workload", std::iter::once(plain.as_slice()).chain(values)))
}
