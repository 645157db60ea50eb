//! The platform's builder: everything of this crate behind [`Builder`].
//!
//! | source | planned by | made by |
//! |---|---|---|
//! | a tree with its own Dockerfile | reading it: stages, images, arguments | BuildKit, the Dockerfile as it is but for `syntax` lines |
//! | another tree | `ferrovia_core::detect` | BuildKit, from the plan rendered as a Dockerfile |
//! | an image elsewhere | resolving its tag to a digest | copying it into the platform's registry |
//!
//! [`Builder::plan`] pins everything that the image depends on and hashes it into the key, under which control looks for
//! an equal image. [`Builder::build`] takes the plan as it was kept: a build that is begun again after a crash does the
//! same. Dropping its future ends the step that runs, and takes the unpacked tree and the secrets away.
//!
//! Every image lies at `apps/PROJECT/SERVICE` in the platform's registry, and a build may start only from images of its
//! own project, from bases, and from what other registries give out.
//!
//! Deliberately absent: the queue, tries and time limits over all of it (control's), and clean-up of images by rows
//! (control's too; [`PlatformBuilder::sweep_bases`] and [`Store::collect_garbage`] are what it needs).

mod dockerfile;
mod image;
mod key;
mod leftovers;
mod pins;
mod plan;
mod result;
mod source;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_core::bases::Origin;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::id::ProjectId;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::tree::Manifest;
use ferrovia_core::workload::ImageReference;

pub use self::leftovers::Leftovers;
pub use self::plan::{BuildPlan, Start};
use crate::bases::{self, Bases, architecture, registry_failed};
use crate::buildkit::canary;
use crate::buildkit::cgroup::BuildLimits;
use crate::buildkit::daemon::{self, Buildkit};
use crate::fetch::{Client, Hosts};
use crate::launch::Launcher;
use crate::narrator::Narrator;
use crate::registry::{self, Access, Repository, Store};
use crate::tree::TreeStore;
use crate::{BuildError, BuildLog, BuildRequest, BuildSource, Builder, BuiltImage, PlannedBuild};

/// Where the manifests of trees are kept: in the database, which this crate does not know.
#[async_trait]
pub trait Manifests: Send + Sync {
    /// The manifest of a tree that a project has whole; `None` when it has none of this digest.
    async fn find(&self, project: ProjectId, digest: &str) -> Result<Option<Manifest>, BuildError>;
}

/// What the builder stands on.
#[derive(Clone)]
pub struct Parts {
    /// The platform's registry.
    pub store: Arc<Store>,
    /// Logins of the platform's registry.
    pub access: Access,
    /// Contents of source trees.
    pub trees: TreeStore,
    /// Manifests of source trees.
    pub manifests: Arc<dyn Manifests>,
    /// Starts BuildKit and its clients.
    pub launcher: Arc<dyn Launcher>,
    /// Serves the registry to them.
    pub serve: registry::Serve,
}

/// How the builder is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is kept: BuildKit's cache, which bases were made, the key of variables. Only root may read it.
    pub data_directory: PathBuf,
    /// What is not: sockets, secrets of running builds. A short path, in memory where there is one.
    pub run_directory: PathBuf,
    /// Where the platform's registry listens; names of images contain it.
    pub registry: SocketAddr,
    /// Registries that the settings name: mirrors, pull credentials, plain HTTP.
    pub hosts: Hosts,
    /// A certificate authority that is trusted beside the system's: a PEM file.
    pub extra_ca_file: Option<PathBuf>,
    /// Names the control group of builds: letters, digits and `-`, one an installation.
    pub group: String,
    /// Bounds of all builds together.
    pub limits: BuildLimits,
    /// Addresses and names of the network of builds.
    pub addresses: AddressPlan,
    /// Who answers names in builds; none: the gateway of their network, where `node` does.
    pub dns: Vec<Ipv4Addr>,
    /// Directories where `buildkitd` and `buildctl` are looked for before the `PATH`.
    pub tool_directories: Vec<PathBuf>,
    /// Where the CNI plugins are: `/usr/lib/cni` on Debian.
    pub cni_directory: PathBuf,
    /// What BuildKit's cache may take of the disk, in bytes.
    pub cache_bytes: u64,
    /// Most steps of builds that run at a time.
    pub parallel_steps: u32,
    /// How long the steps of a build may take.
    pub timeout: Duration,
    /// Where bases come from; none: official ones if a registry answers.
    pub origin: Option<Origin>,
    /// A directory of made bases that is shared with other installations of this machine.
    pub seed_directory: Option<PathBuf>,
}

/// The platform's builder.
pub struct PlatformBuilder {
    parts: Parts,
    options: Options,
    client: Client,
    kit: Arc<Buildkit>,
    bases: Arc<Bases>,
    key: key::VariablesKey,
    pins: pins::Pins,
}

impl PlatformBuilder {
    /// A builder that has built nothing yet; nothing is started. Takes away what a killed control left of its builds, so
    /// that only one may live on a data directory.
    ///
    /// # Errors
    /// `build_limits_unavailable` on a host without control groups, `extra_ca_unreadable`, and `build_data_unusable`
    /// when the data directory cannot be written.
    pub fn new(parts: Parts, options: Options) -> Result<Arc<Self>, BuildError> {
        let unusable = |error: std::io::Error| unusable(&options.data_directory, &error);
        crate::buildkit::secrets::sweep(&work_directory(&options.data_directory)).map_err(unusable)?;
        let key = key::VariablesKey::ensure(&options.data_directory).map_err(unusable)?;
        let extra = options.extra_ca_file.as_deref();
        let client = Client::new(options.hosts.clone(), architecture(), extra)
            .map_err(|error| unreadable_authority(extra, &error))?;
        let kit = Buildkit::new(
            daemon::Options {
                tool_directories: options.tool_directories.clone(),
                data_directory: daemon_directory(&options.data_directory),
                run_directory: options.run_directory.clone(),
                group: options.group.clone(),
                limits: options.limits,
                addresses: options.addresses.clone(),
                dns: options.dns.clone(),
                cni_directory: options.cni_directory.clone(),
                cache_bytes: options.cache_bytes,
                parallel_steps: options.parallel_steps,
                registry: options.registry,
                upstreams: options.hosts.upstreams(),
                extra_ca_file: options.extra_ca_file.clone(),
            },
            Arc::clone(&parts.launcher),
            registry::router(Arc::clone(&parts.store), parts.access.clone()),
            Arc::clone(&parts.serve),
        )?;
        let bases = Bases::new(
            bases::Options {
                data_directory: bases_directory(&options.data_directory),
                registry: options.registry,
                extra_ca_file: options.extra_ca_file.clone(),
                seed_directory: options.seed_directory.clone(),
                origin: options.origin,
            },
            Arc::clone(&parts.store),
            parts.access.clone(),
            Arc::clone(&kit),
            client.clone(),
        );
        Ok(Arc::new(Self {
            parts,
            options,
            client,
            kit,
            bases,
            key,
            pins: pins::Pins::default(),
        }))
    }

    /// BuildKit: to end it when control ends, and for `doctor`.
    pub const fn kit(&self) -> &Arc<Buildkit> {
        &self.kit
    }

    /// The bases.
    pub const fn bases(&self) -> &Arc<Bases> {
        &self.bases
    }

    /// Makes ready what every first build needs, saying what it does: the base that all others stand on, and once the
    /// proof that the limits of builds hold. Optional: a build does the same when it is the first. Nothing is started
    /// where all of this was done before.
    pub async fn prepare(&self, log: &(dyn BuildLog + '_)) -> Result<(), BuildError> {
        let proven = canary::last(&daemon_directory(&self.options.data_directory));
        if proven.is_some_and(|report| report.trouble.is_none()) && self.bases.has(bases::FOUNDATION).await {
            return Ok(());
        }
        let narrator = Narrator::new(log);
        let (canary, _grant) = self.bases.canary(&narrator).await?;
        narrator
            .step("limits")
            .say("proving that the limits of builds hold");
        self.kit.acquire(canary).await?;
        narrator.step("limits").say("they hold");
        Ok(())
    }

    /// Takes bases out of the registry that were replaced by newer ones; how many. Not while something is built.
    pub async fn sweep_bases(&self) -> Result<usize, BuildError> {
        if self.kit.is_used().await {
            return Ok(0);
        }
        self.bases.sweep().await
    }

    fn repository(request: &BuildRequest) -> Result<Repository, BuildError> {
        let project = request.project_id.uuid().simple();
        let service = request.service_id.uuid().simple();
        format!("apps/{project}/{service}")
            .parse()
            .map_err(registry_failed)
    }

    fn reference(&self, repository: &Repository, digest: crate::digest::Digest) -> ImageReference {
        ImageReference {
            repository: format!("{}/{repository}", self.options.registry),
            digest: digest.to_string(),
        }
    }

    /// Where an image lies in the platform's registry; `None` when its name is not one that it gives.
    fn place(&self, image: &ImageReference) -> Option<(Repository, crate::digest::Digest)> {
        let own = format!("{}/", self.options.registry);
        let repository = image.repository.strip_prefix(&own)?.parse().ok()?;
        Some((repository, image.digest.parse().ok()?))
    }
}

#[async_trait]
impl Builder for PlatformBuilder {
    async fn plan(&self, request: &BuildRequest) -> Result<PlannedBuild, BuildError> {
        match &request.source {
            BuildSource::Tree { digest } => self.plan_tree(request, digest).await,
            BuildSource::Image { reference } => self.plan_image(request, reference).await,
        }
    }

    async fn build(
        &self,
        request: &BuildRequest,
        planned: &PlannedBuild,
        log: &(dyn BuildLog + '_),
    ) -> Result<BuiltImage, BuildError> {
        let narrator = Narrator::new(log);
        let plan: BuildPlan = serde_json::from_value(planned.plan.clone()).map_err(|error| BuildError {
            report: Report::new(
                "build_failed",
                format!("the build's plan cannot be read ({error})"),
            )
            .with_hint("deploy again: the plan is made anew"),
            class: Class::Bug,
        })?;
        let digest = match (&request.source, &plan) {
            (BuildSource::Tree { digest }, BuildPlan::Tree(tree)) => {
                self.build_tree(request, digest, tree, &narrator).await?
            }
            (BuildSource::Image { .. }, BuildPlan::Image(image)) => {
                self.copy_image(request, image, &narrator).await?
            }
            _ => {
                return Err(BuildError {
                    report: Report::new("build_failed", "the build's plan is one of another source"),
                    class: Class::Bug,
                });
            }
        };
        self.result(request, digest).await
    }

    async fn has_image(&self, image: &ImageReference) -> Result<bool, BuildError> {
        let Some((repository, digest)) = self.place(image) else {
            return Ok(false);
        };
        let held = self.parts.store.holds_image(&repository, digest).await;
        held.map_err(registry_failed)
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), BuildError> {
        let Some((repository, digest)) = self.place(image) else {
            return Ok(());
        };
        let removed = self.parts.store.delete_manifest(&repository, digest).await;
        removed.map(drop).map_err(registry_failed)
    }
}

/// Where bases keep what they know, below the builder's data directory: for [`bases::standing`].
pub fn bases_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("bases")
}

/// Where BuildKit keeps what it knows, below the builder's data directory: for [`canary::last`].
pub fn daemon_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("daemon")
}

fn work_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("work")
}

fn unusable(directory: &Path, error: &std::io::Error) -> BuildError {
    BuildError {
        report: Report::new(
            "build_data_unusable",
            format!(
                "the data directory of builds, `{}`, cannot be used ({error})",
                directory.display()
            ),
        )
        .with_hint("it must belong to root, on a disk that is not full"),
        class: Class::Unavailable,
    }
}

fn unreadable_authority(file: Option<&Path>, error: &dyn std::fmt::Display) -> BuildError {
    let file = file.unwrap_or(Path::new("")).display();
    BuildError {
        report: Report::new(
            "extra_ca_unreadable",
            format!("the extra certificate authority `{file}` cannot be used ({error})"),
        )
        .with_hint("correct the setting `build.extra_ca_file`"),
        class: Class::Unavailable,
    }
}
