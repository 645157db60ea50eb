//! What builds hold of the host beside their data, and how it goes when the whole platform ends.
//!
//! A control that ends in order takes BuildKit with it; one that was killed leaves the daemon, steps, secrets and the
//! network, for the next one to find. When there is no next one, somebody else must take them away, without a registry
//! and without knowing what ran. The run directory says that there may be something: it is made before anything else
//! and taken away last, so that an end that was cut off is done again, and an installation that never built touches
//! nothing, not even what another one on this host calls the same.
//!
//! Caches, bases and images stay: they are data.

use std::path::{Path, PathBuf};

use ferrovia_core::error::{Class, Report};
use ferrovia_core::network::AddressPlan;

use crate::BuildError;
use crate::buildkit::cgroup::{BuildGroup, Hierarchy};
use crate::buildkit::daemon::secret_directory;
use crate::buildkit::network::BuildNetwork;
use crate::buildkit::secrets::sweep;

/// What builds of one installation hold, whether they run or not.
#[derive(Debug, Clone)]
pub struct Leftovers {
    run_directory: PathBuf,
    work_directory: PathBuf,
    group: Option<BuildGroup>,
    network: BuildNetwork,
}

impl Leftovers {
    /// Of the builder with these options (as in [`super::Options`]). Touches nothing.
    pub fn new(data_directory: &Path, run_directory: &Path, group: &str, addresses: &AddressPlan) -> Self {
        Self {
            run_directory: run_directory.to_owned(),
            work_directory: super::work_directory(data_directory),
            // Without control groups nothing was ever built.
            group: Hierarchy::of_host().map(|hierarchy| BuildGroup::new(hierarchy, group)),
            network: BuildNetwork::new(addresses),
        }
    }

    /// Whether there may be any.
    pub fn exist(&self) -> bool {
        self.run_directory.exists()
    }

    /// Ends every process of builds and takes secrets, unpacked sources, control group, network, bridge and its rules
    /// away. Only for when no control lives. Safe to repeat; what failed does not keep the rest.
    ///
    /// # Errors
    /// Everything that failed; then a later call tries it again.
    pub async fn remove(&self) -> Result<(), Vec<BuildError>> {
        if !self.exist() {
            return Ok(());
        }
        let mut failures = Vec::new();
        // Secrets first: whatever else fails, they are gone.
        for directory in [secret_directory(&self.run_directory), self.work_directory.clone()] {
            failures.extend(sweep(&directory).err().map(|error| stays(&directory, &error)));
        }
        if let Some(group) = &self.group {
            failures.extend(group.remove().await.err());
        }
        failures.extend(self.network.remove().await.err().into_iter().flatten());
        if failures.is_empty() {
            let swept = sweep(&self.run_directory);
            failures.extend(swept.err().map(|error| stays(&self.run_directory, &error)));
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }
}

fn stays(directory: &Path, error: &std::io::Error) -> BuildError {
    let directory = directory.display();
    BuildError {
        report: Report::new(
            "build_data_unusable",
            format!("`{directory}`, with what builds left, cannot be taken away ({error})"),
        )
        .with_hint("it must belong to root, on a disk that can be written to"),
        class: Class::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_installation_that_never_built_touches_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let work = super::super::work_directory(directory.path());
        std::fs::create_dir_all(&work).unwrap();
        let run = directory.path().join("run");
        let leftovers = Leftovers::new(directory.path(), &run, "ferrovia-none", &AddressPlan::default());
        assert!(!leftovers.exist());
        leftovers.remove().await.unwrap();
        assert!(work.exists());
    }

    #[tokio::test]
    async fn secrets_and_sources_go_although_something_else_fails() {
        let directory = tempfile::tempdir().unwrap();
        let (data, run) = (directory.path().join("data"), directory.path().join("run"));
        let secrets = secret_directory(&run);
        std::fs::create_dir_all(secrets.join("b1")).unwrap();
        std::fs::write(secrets.join("b1/0"), "hunter2").unwrap();
        let work = super::super::work_directory(&data);
        std::fs::create_dir_all(work.join("unpacked")).unwrap();
        // No table can have this name.
        let addresses = AddressPlan {
            interface_prefix: "not a name".to_owned(),
            ..AddressPlan::default()
        };
        let leftovers = Leftovers::new(&data, &run, "ferrovia-none", &addresses);
        let failures = leftovers.remove().await.unwrap_err();
        assert_eq!(failures[0].report.code, "build_network_unavailable");
        assert!(!secrets.exists() && !work.exists());
        assert!(leftovers.exist(), "a later call must try again");
    }
}
