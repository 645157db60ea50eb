//! Where the logs of an installation are, below its directory of logs.

use std::path::{Path, PathBuf};

use ferrovia_core::id::{BuildId, InstanceId};

/// The log of an instance's replicas, of all its deployments: `node` writes it.
pub fn of_instance(logs: &Path, instance: InstanceId) -> PathBuf {
    logs.join("instances").join(instance.to_string())
}

/// The log of a build: control writes it.
pub fn of_build(logs: &Path, build: BuildId) -> PathBuf {
    logs.join("builds").join(build.to_string())
}
