//! From source to image: trees, plans, BuildKit and the registry.
//!
//! # How it is put together
//!
//! Control opens the registry, serves it on loopback, and makes the builder; the builder starts BuildKit by itself with
//! the first build. What it keeps lies in one directory, what it may lose in another.
//!
//! ```ignore
//! let store = registry::Store::open(paths.registry(), registry::Limits::default()).await?;
//! let access = registry::Access::default();
//! let engine_grant = access.grant("engine", registry::Scope::PullAll); // lives as long as control
//! let listener = tokio::net::TcpListener::bind(options.registry).await?;
//! tokio::spawn(serve(listener, registry::router(store.clone(), access.clone()))); // within bounds on connections
//! let builder = platform::PlatformBuilder::new(
//!     platform::Parts { store, access, trees, manifests, launcher, serve }, // manifests: rows of `source_tree`
//!     platform::Options { data_directory: paths.buildkit(), run_directory, registry, ..options },
//! )?;
//! builder.kit().ensure_bridge().await?;       // before `node` answers names on it
//! builder.prepare(&log).await?;               // optional: the first base and the limits, with progress
//! // … Control::new(control::Parts { builder: builder.clone(), .. }, ..); manifests and sweeps: `ferrovia_control::disk`
//! builder.kit().stop().await?;                // when control ends
//! platform::Leftovers::new(…).remove().await;  // when the platform ends, whether control could do that or not
//! ```

pub mod bases;
pub mod buildkit;
pub mod certificates;
pub mod digest;
pub mod durable;
pub mod fetch;
pub mod launch;
pub mod narrator;
pub mod platform;
pub mod registry;
pub mod render;
pub mod simulated;
pub mod tree;

use async_trait::async_trait;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::id::{BuildId, ProjectId, ServiceId};
use ferrovia_core::secret::Secret;
use ferrovia_core::settings::BuildSettings;
use ferrovia_core::workload::ImageReference;
use serde::{Deserialize, Serialize};

/// Makes images. Control is generic over it.
#[async_trait]
pub trait Builder: Send + Sync {
    /// What would be built and under which key, without building: quick, so that an equal image is found at once.
    async fn plan(&self, request: &BuildRequest) -> Result<PlannedBuild, BuildError>;

    /// Builds, pushes to the platform's registry, and streams lines to `log`. Dropping the future cancels the build
    /// and leaves nothing running. Safe to call again after a crash.
    async fn build(
        &self,
        request: &BuildRequest,
        planned: &PlannedBuild,
        log: &(dyn BuildLog + '_),
    ) -> Result<BuiltImage, BuildError>;

    /// Whether the registry holds the image whole.
    async fn has_image(&self, image: &ImageReference) -> Result<bool, BuildError>;

    /// Takes a condemned image out of the registry; one that is gone is success.
    async fn remove_image(&self, image: &ImageReference) -> Result<(), BuildError>;
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The build.
    pub build_id: BuildId,
    /// Nothing is shared between projects.
    pub project_id: ProjectId,
    /// Whose caches to use.
    pub service_id: ServiceId,
    /// Where the image comes from.
    pub source: BuildSource,
    /// How it is built.
    pub settings: BuildSettings,
    /// Variables that the build sees as secret mounts (and, if named in `settings.arguments`, as arguments).
    pub variables: Vec<(String, Secret)>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum BuildSource {
    /// An uploaded tree, by digest (`sha256:…`).
    Tree {
        /// The tree's digest.
        digest: String,
    },
    /// An image elsewhere: `nginx:1.27`, `ghcr.io/owner/name@sha256:…`.
    Image {
        /// The reference as it was given.
        reference: String,
    },
}

/// A plan and the key under which its image is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedBuild {
    /// `dockerfile`, `auto` or `image`.
    pub builder: String,
    /// The plan as JSON, kept with the build and shown to people.
    pub plan: serde_json::Value,
    /// Project, tree, plan, bases, architecture, HMAC of variables and builder version, in one digest.
    pub image_key: String,
    /// What should be told although the build goes on.
    pub warnings: Vec<Report>,
}

/// An image in the platform's registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// Where it is.
    pub image: ImageReference,
    /// Sum of its layers, compressed, in bytes.
    pub size_bytes: u64,
    /// Its OCI configuration (`config` of the image configuration).
    pub config: serde_json::Value,
}

/// Takes the lines of a build.
pub trait BuildLog: Send + Sync {
    /// One line, with the step that it belongs to and the milliseconds since the build began.
    fn line(&self, step: Option<&str>, at_ms: u64, text: &str);
}

/// A build that did not give an image.
#[derive(Debug, thiserror::Error)]
#[error("{}", report.message)]
pub struct BuildError {
    /// What people are told.
    pub report: Report,
    /// Whether trying again may help.
    pub class: Class,
}
