//! Workloads for the tests: ids that are new each time, names that say which test.

use std::net::Ipv4Addr;

use ferrovia_core::id::Id;
use ferrovia_core::secret::Secret;
use ferrovia_core::settings::Resources;
use ferrovia_core::workload::{ImageReference, Owner, ReplicaSlot, Workload};
use ferrovia_engine::RegistryLogin;
use uuid::Uuid;

/// A new identifier.
pub fn id<K>() -> Id<K> {
    Id::from_uuid(Uuid::now_v7())
}

/// The owner of a deployment of a new instance.
pub fn owner(service: &str, number: u32) -> Owner {
    let name = |text: &str| text.parse().expect("a name");
    Owner {
        project_id: id(),
        project: name("fvtest"),
        environment_id: id(),
        environment: name("production"),
        service_id: id(),
        service: name(service),
        instance_id: id(),
        deployment_id: id(),
        number,
    }
}

/// A workload without replicas.
pub fn workload(owner: Owner, image: ImageReference) -> Workload {
    Workload {
        spec_hash: format!("hash-{}", owner.deployment_id.short()),
        owner,
        image,
        command: None,
        variables: Vec::new(),
        resources: Resources::default(),
        mounts: Vec::new(),
        stop_grace_ms: 2_000,
        replicas: Vec::new(),
    }
}

/// A slot with a new id.
pub fn slot(ordinal: u32, address: Ipv4Addr) -> ReplicaSlot {
    ReplicaSlot {
        id: id(),
        ordinal,
        address: Some(address),
        restart_nonce: 0,
    }
}

/// Variables from texts.
pub fn variables(pairs: &[(&str, &str)]) -> Vec<(String, Secret)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
        .collect()
}

/// How the test registry is signed in to. The password's base64 has the characters that differ between alphabets.
pub fn login() -> RegistryLogin {
    RegistryLogin {
        user: "fvtest".into(),
        password: Secret::new("s3cret>?~~?>"),
    }
}
