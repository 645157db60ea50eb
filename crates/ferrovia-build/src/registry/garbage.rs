//! Garbage collection: what no manifest of a repository refers to goes, after a grace period.
//!
//! Mark and sweep with pushes held for its duration: it only reads manifests and unlinks files. The grace period
//! protects what was pushed, mounted or asked for shortly before its manifest comes.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::fs;

use super::store::{list, read};
use super::{Error, Manifest, MediaType, Repository, Store};
use crate::digest::Digest;
use crate::durable;

/// What a collection took away and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Blobs taken away.
    pub removed_blobs: usize,
    /// Their sizes together, in bytes.
    pub removed_bytes: u64,
    /// What the registry holds now, in bytes.
    pub kept_bytes: u64,
}

impl Store {
    /// Every manifest of every repository, with the time of its last push.
    pub async fn manifests(&self) -> Result<Vec<(Repository, Digest, SystemTime)>, Error> {
        let mut found = Vec::new();
        for repository in self.repositories().await? {
            let directory = self.repository_path(&repository).join("_manifests");
            for hex in list(&directory).await? {
                if let (Ok(digest), Some(age)) =
                    (Digest::from_hex(&hex), modified(&directory.join(&hex)).await?)
                {
                    found.push((repository.clone(), digest, age));
                }
            }
        }
        Ok(found)
    }

    /// Takes away what nothing refers to and nobody touched for `grace`.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<Swept, Error> {
        let _gate = self.gate.write().await;
        let now = SystemTime::now();
        let is_old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age >= grace);
        let mut linked = HashSet::new();
        for repository in self.repositories().await? {
            let directory = self.repository_path(&repository);
            let mut referred = HashSet::new();
            for hex in list(&directory.join("_manifests")).await? {
                let Ok(digest) = Digest::from_hex(&hex) else {
                    continue;
                };
                linked.insert(digest);
                self.mark(&directory, digest, &mut referred).await?;
            }
            let links = directory.join("_blobs");
            for hex in list(&links).await? {
                let (Ok(digest), link) = (Digest::from_hex(&hex), links.join(&hex)) else {
                    continue;
                };
                let old = modified(&link).await?.is_some_and(is_old);
                if !old || referred.contains(&digest) {
                    linked.insert(digest);
                } else {
                    durable::remove(&link).await.map_err(Error::io("unlink a blob"))?;
                }
            }
            prune(&directory).await;
        }
        self.sweep(&linked, is_old).await
    }

    async fn mark(
        &self,
        repository: &Path,
        digest: Digest,
        referred: &mut HashSet<Digest>,
    ) -> Result<(), Error> {
        let kind = read(&repository.join("_manifests").join(digest.hex())).await?;
        let kind = kind.and_then(|bytes| MediaType::from_header(&String::from_utf8_lossy(&bytes)));
        let bytes = read(&self.blob_path(digest)).await?;
        let (Some(kind), Some(bytes)) = (kind, bytes) else {
            return Ok(());
        };
        referred.extend(Manifest::parse(kind, &bytes)?.blobs().map(|blob| blob.digest));
        Ok(())
    }

    async fn sweep(
        &self,
        linked: &HashSet<Digest>,
        is_old: impl Fn(SystemTime) -> bool,
    ) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let all = self.root.join("blobs/sha256");
        for prefix in list(&all).await? {
            let directory = all.join(prefix);
            for hex in list(&directory).await? {
                let path = directory.join(&hex);
                let Ok(metadata) = fs::metadata(&path).await else {
                    continue;
                };
                let reachable = Digest::from_hex(&hex).is_ok_and(|digest| linked.contains(&digest));
                if reachable || !metadata.modified().is_ok_and(&is_old) {
                    swept.kept_bytes += metadata.len();
                    continue;
                }
                durable::remove(&path).await.map_err(Error::io("delete a blob"))?;
                swept.removed_blobs += 1;
                swept.removed_bytes += metadata.len();
            }
        }
        Ok(swept)
    }

    /// Names of all repositories: directories that hold one of the store's own.
    async fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let root = self.root.join("repositories");
        let mut found = Vec::new();
        let mut waiting: Vec<PathBuf> = vec![root.clone()];
        while let Some(directory) = waiting.pop() {
            let names = list(&directory).await?;
            if names.iter().any(|name| name.starts_with('_'))
                && let Ok(relative) = directory.strip_prefix(&root)
                && let Some(Ok(repository)) = relative.to_str().map(str::parse)
            {
                found.push(repository);
            }
            let below = names.iter().filter(|name| !name.starts_with('_'));
            waiting.extend(below.map(|name| directory.join(name)));
        }
        found.sort();
        Ok(found)
    }
}

async fn modified(path: &Path) -> Result<Option<SystemTime>, Error> {
    match fs::metadata(path).await.and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at a file")(error)),
    }
}

/// Removes what is empty of a repository; directories that hold something refuse, which is what is wanted.
async fn prune(repository: &Path) {
    for own in ["_blobs", "_manifests", "_tags"] {
        let _ = fs::remove_dir(repository.join(own)).await;
    }
    let _ = fs::remove_dir(repository).await;
}
