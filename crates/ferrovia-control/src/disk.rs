//! What the builder keeps on disk, tied to the rows: manifests of trees for it, and what goes when no row names it.
//!
//! Rows go first, by clean-up of their own; these sweeps follow them. Each looks at what is on disk, asks whether a row
//! names it, and takes away what is also old: who has just written something may not have committed its row yet.
//! BuildKit's cache needs no sweep: the daemon keeps it within its bounds whenever it runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ferrovia_build::bases::PREFIX as BASES;
use ferrovia_build::platform::{Manifests, PlatformBuilder};
use ferrovia_build::registry::Store;
use ferrovia_build::tree::TreeStore;
use ferrovia_build::{BuildError, Builder};
use ferrovia_core::error::{Class, Report};
use ferrovia_core::id::ProjectId;
use ferrovia_core::tree::Manifest;
use ferrovia_core::workload::ImageReference;
use ferrovia_store::{Db, Error as StoreError, image, source_tree};

use crate::Sweep;

/// Age under which an image without a row is left alone: its build may be about to write the row.
const IMAGE_AGE: Duration = Duration::from_hours(24);
/// Age under which a blob without a manifest is left alone: its manifest may be on its way.
const BLOB_AGE: Duration = Duration::from_hours(2);

/// Manifests of trees, from their rows.
#[derive(Debug, Clone)]
pub struct StoredManifests(pub Db);

#[async_trait]
impl Manifests for StoredManifests {
    async fn find(&self, project: ProjectId, digest: &str) -> Result<Option<Manifest>, BuildError> {
        let found = async {
            let mut conn = self.0.conn().await?;
            source_tree::find(&mut conn, project, digest).await
        };
        found.await.map_err(|error: StoreError| BuildError {
            class: Class::Transient,
            report: Report::new("database_unavailable", error.to_string())
                .with_hint("the build is tried again; see `ferroviad doctor`"),
        })
    }
}

/// Contents of source trees that no tree needs.
#[derive(Debug, Clone)]
pub struct TreeSweep {
    /// Where trees have their rows.
    pub db: Db,
    /// Their contents.
    pub trees: TreeStore,
}

#[async_trait]
impl Sweep for TreeSweep {
    fn name(&self) -> &'static str {
        "source trees"
    }

    async fn sweep(&self) -> Result<String, String> {
        let (mut count, mut bytes) = (0, 0);
        for project in self.trees.projects().await.map_err(|error| error.to_string())? {
            let keep = self.needed(project).await.map_err(|error| error.to_string())?;
            let collected = self.trees.collect_garbage(project, keep, SystemTime::now()).await;
            let collected = collected.map_err(|error| error.to_string())?;
            count += collected.count;
            bytes += collected.bytes;
        }
        Ok(format!("{count} contents of files went, {bytes} bytes"))
    }
}

impl TreeSweep {
    async fn needed(&self, project: ProjectId) -> Result<HashSet<ferrovia_core::tree::Sha256>, StoreError> {
        let mut conn = self.db.conn().await?;
        let mut needed = HashSet::new();
        for digest in source_tree::list_digests(&mut conn, project).await? {
            if let Some(manifest) = source_tree::find(&mut conn, project, &digest).await? {
                needed.extend(manifest.blobs().map(|(digest, _)| digest));
            }
        }
        Ok(needed)
    }
}

/// What no row and no record names in the platform's registry: images whose build died before it wrote its row, bases
/// that were replaced, and blobs without an image.
#[derive(Clone)]
pub struct RegistrySweep {
    /// Where images have their rows.
    pub db: Db,
    /// The registry.
    pub store: Arc<Store>,
    /// Knows the bases.
    pub builder: Arc<PlatformBuilder>,
    /// Host and port of the registry, with which names of images begin.
    pub registry_host: String,
}

#[async_trait]
impl Sweep for RegistrySweep {
    fn name(&self) -> &'static str {
        "registry"
    }

    async fn sweep(&self) -> Result<String, String> {
        let orphans = self.orphans().await?;
        let bases = self
            .builder
            .sweep_bases()
            .await
            .map_err(|error| error.to_string())?;
        let swept = self.store.collect_garbage(BLOB_AGE).await;
        let swept = swept.map_err(|error| error.to_string())?;
        Ok(format!(
            "{orphans} images without a row, {bases} old bases and {} blobs went, {} bytes; {} bytes stay",
            swept.removed_blobs, swept.removed_bytes, swept.kept_bytes
        ))
    }
}

impl RegistrySweep {
    async fn orphans(&self) -> Result<usize, String> {
        let mut count = 0;
        for (repository, digest, pushed) in self.store.manifests().await.map_err(|error| error.to_string())? {
            let old = pushed.elapsed().is_ok_and(|age| age > IMAGE_AGE);
            if repository.as_str().starts_with(BASES) || !old {
                continue;
            }
            let reference = ImageReference {
                repository: format!("{}/{repository}", self.registry_host),
                digest: digest.to_string(),
            };
            if !self
                .has_row(&reference)
                .await
                .map_err(|error| error.to_string())?
            {
                let removed = self.builder.remove_image(&reference).await;
                removed.map_err(|error| error.to_string())?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn has_row(&self, reference: &ImageReference) -> Result<bool, StoreError> {
        let mut conn = self.db.conn().await?;
        Ok(image::find(&mut conn, reference).await?.is_some())
    }
}
