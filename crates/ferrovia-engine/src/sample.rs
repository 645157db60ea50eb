//! Workloads for this crate's unit tests.

use std::net::Ipv4Addr;

use ferrovia_core::id::{EnvironmentId, Id, InstanceId, ProjectId, ServiceId};
use ferrovia_core::name::Name;
use ferrovia_core::settings::Resources;
use ferrovia_core::workload::{ImageReference, Owner, ReplicaSlot, Workload};
use uuid::Uuid;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// An owner whose ids follow from its names.
pub fn owner(project: &str, environment: &str, service: &str, number: u32) -> Owner {
    let id = |text: String| {
        let mut bytes = [0_u8; 16];
        for (i, byte) in text.bytes().enumerate() {
            bytes[15 - i % 16] = bytes[15 - i % 16].wrapping_mul(31).wrapping_add(byte);
        }
        Uuid::from_bytes(bytes)
    };
    Owner {
        project_id: ProjectId::from_uuid(id(project.into())),
        project: name(project),
        environment_id: EnvironmentId::from_uuid(id(format!("{project}/{environment}"))),
        environment: name(environment),
        service_id: ServiceId::from_uuid(id(format!("{project}:{service}"))),
        service: name(service),
        instance_id: InstanceId::from_uuid(id(format!("{project}/{environment}/{service}"))),
        deployment_id: Id::from_uuid(id(format!("{project}/{environment}/{service}/{number}"))),
        number,
    }
}

/// A slot with an address in the default plan.
pub fn slot(ordinal: u32, host: u8) -> ReplicaSlot {
    ReplicaSlot {
        id: Id::from_uuid(Uuid::from_u128(u128::from(ordinal) << 32 | u128::from(host))),
        ordinal,
        address: Some(Ipv4Addr::new(10, 210, 0, host)),
        restart_nonce: 0,
    }
}

/// The reference of an image that nobody has.
pub fn image() -> ImageReference {
    ImageReference {
        repository: "127.0.0.1:7071/apps/shop/web".into(),
        digest: format!("sha256:{}", "a".repeat(64)),
    }
}

/// A workload with as many replicas.
pub fn workload(number: u32, replicas: u8) -> Workload {
    Workload {
        owner: owner("shop", "production", "web", number),
        image: image(),
        command: None,
        variables: Vec::new(),
        resources: Resources::default(),
        mounts: Vec::new(),
        stop_grace_ms: 10_000,
        spec_hash: format!("hash-{number}"),
        replicas: (1..=replicas)
            .map(|n| slot(u32::from(n), number as u8 * 16 + n))
            .collect(),
    }
}
