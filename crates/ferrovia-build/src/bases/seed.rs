//! A directory of made bases that several installations of one machine share: tests, and a builder's farm.
//!
//! Keyed by recipe, so that it never gives another image than the one that would be made. One maker at a time, by a
//! lock on a file, whatever process it is in.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::registry::{Error, Manifest, Reference, Repository, Store, StoredManifest};

/// Where one base lies in the directory.
pub(super) struct Seed {
    directory: PathBuf,
}

/// The right to make a base; it ends when dropped.
pub(super) struct Turn(
    #[expect(dead_code, reason = "the lock is held as long as the file is open")] std::fs::File,
);

impl Seed {
    pub(super) fn new(root: &Path, name: &str, recipe: Digest) -> Self {
        Self {
            directory: root.join("bases").join(format!("{name}-{}", &recipe.hex()[..16])),
        }
    }

    /// Waits for the right to make this base.
    pub(super) async fn turn(&self) -> io::Result<Turn> {
        let lock = self.beside("lock");
        let taken = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(lock.parent().unwrap_or(Path::new("/")))?;
            let file = std::fs::File::create(lock)?;
            file.lock()?;
            Ok(Turn(file))
        });
        taken.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// A path beside the directory. Not by its extension: names hold versions, which have dots.
    fn beside(&self, end: &str) -> PathBuf {
        let mut path = self.directory.clone().into_os_string();
        path.push(".");
        path.push(end);
        path.into()
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Takes the base into the registry; `None` when it is not here.
    pub(super) async fn import(
        &self,
        store: &Store,
        repository: &Repository,
        tags: &[Reference],
    ) -> Result<Option<Digest>, Error> {
        let read = tokio::fs::read(self.directory.join("manifest.json")).await;
        let Ok(bytes) = read else { return Ok(None) };
        let Ok(stored) = serde_json::from_slice::<Wire>(&bytes) else {
            return Ok(None);
        };
        let manifest = Manifest::parse(stored.media_type, stored.manifest.as_bytes())?;
        for blob in manifest.blobs() {
            let mut upload = store.begin_upload(repository, Some(blob.size)).await?;
            let mut content = tokio::fs::File::open(self.blob(blob.digest))
                .await
                .map_err(failed)?;
            upload.write_from(&mut content).await?;
            store.finish_upload(upload, blob.digest).await?;
        }
        let mut digest = None;
        for tag in tags {
            let put = store.put_manifest(repository, tag, stored.media_type, stored.manifest.as_bytes());
            digest = Some(put.await?);
        }
        Ok(digest)
    }

    /// Keeps a base of the registry here.
    pub(super) async fn export(
        &self,
        store: &Store,
        repository: &Repository,
        stored: &StoredManifest,
    ) -> Result<(), Error> {
        let partial = self.beside(&format!("partial-{}", uuid::Uuid::now_v7().simple()));
        tokio::fs::create_dir_all(&partial).await.map_err(failed)?;
        for blob in Manifest::parse(stored.media_type, &stored.bytes)?.blobs() {
            let (mut file, _) = store.open_blob(repository, blob.digest).await?;
            let mut out = tokio::fs::File::create(partial.join(blob.digest.hex()))
                .await
                .map_err(failed)?;
            tokio::io::copy(&mut file, &mut out).await.map_err(failed)?;
            out.sync_all().await.map_err(failed)?;
        }
        let wire = Wire {
            media_type: stored.media_type,
            manifest: String::from_utf8_lossy(&stored.bytes).into_owned(),
        };
        let text = serde_json::to_vec(&wire).unwrap_or_default();
        tokio::fs::write(partial.join("manifest.json"), text)
            .await
            .map_err(failed)?;
        match tokio::fs::rename(&partial, &self.directory).await {
            Ok(()) => Ok(()),
            // Somebody else's is as good.
            Err(_) => tokio::fs::remove_dir_all(&partial).await.map_err(failed),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Wire {
    media_type: crate::registry::MediaType,
    manifest: String,
}

fn failed(source: io::Error) -> Error {
    Error::Io {
        what: "use the directory of made bases",
        source,
    }
}
