//! Where images are: a directory tree, usable without HTTP.
//!
//! ```text
//! blobs/sha256/ab/abcd…            content, once, manifests too
//! repositories/NAME/_blobs/abcd…   this repository may see the blob (empty)
//! repositories/NAME/_manifests/…   this repository has the manifest (its media type)
//! repositories/NAME/_tags/TAG      a tag (the digest)
//! uploads/…                        what is on its way; nothing in it survives a restart
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::fs::{self, File};
use tokio::sync::RwLock;
use uuid::Uuid;

use super::manifest::MAX_MANIFEST_BYTES;
use super::{Error, Manifest, MediaType, Reference, Repository, Tag, Upload};
use crate::digest::Digest;
use crate::durable;

/// How long an upload may lie untouched when others want its place, in seconds.
const UPLOAD_IDLE_S: u64 = 600;

/// Bounds of the registry.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest blob.
    pub max_blob_bytes: u64,
    /// Free space that uploads leave on the disk.
    pub min_free_bytes: u64,
    /// Most uploads open at a time.
    pub max_uploads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_blob_bytes: 16 * 1024 * 1024 * 1024,
            min_free_bytes: 256 * 1024 * 1024,
            max_uploads: 64,
        }
    }
}

/// A manifest as it lies in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// What kind it is.
    pub media_type: MediaType,
    /// Its bytes, as they were pushed.
    pub bytes: Vec<u8>,
}

/// The images on disk.
pub struct Store {
    pub(super) root: PathBuf,
    limits: Limits,
    uploads: Mutex<HashMap<Uuid, Upload>>,
    /// Shared by whatever makes content reachable, exclusive for the garbage collection.
    pub(super) gate: RwLock<()>,
}

impl Store {
    /// Opens the registry under `root`, and makes it when there is none.
    pub async fn open(root: impl Into<PathBuf>, limits: Limits) -> Result<Arc<Self>, Error> {
        let root = root.into();
        let uploads = root.join("uploads");
        match fs::remove_dir_all(&uploads).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("sweep old uploads")(error));
            }
            _ => {}
        }
        for directory in [&uploads, &root.join("blobs/sha256"), &root.join("repositories")] {
            fs::create_dir_all(directory)
                .await
                .map_err(Error::io("make its directories"))?;
        }
        Ok(Arc::new(Self {
            root,
            limits,
            uploads: Mutex::default(),
            gate: RwLock::default(),
        }))
    }

    pub(super) fn blob_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    pub(super) fn repository_path(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    fn link_path(&self, repository: &Repository, kind: &str, digest: Digest) -> PathBuf {
        self.repository_path(repository).join(kind).join(digest.hex())
    }

    /// The size of a blob in bytes; `None` when the repository does not hold it.
    pub async fn find_blob(&self, repository: &Repository, digest: Digest) -> Result<Option<u64>, Error> {
        if !exists(&self.link_path(repository, "_blobs", digest)).await? {
            return Ok(None);
        }
        match fs::metadata(self.blob_path(digest)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at a blob")(error)),
        }
    }

    /// As [`Self::find_blob`], and keeps the blob from the garbage collection for its grace period: the one who asks
    /// is about to push a manifest that refers to it.
    pub async fn keep_blob(&self, repository: &Repository, digest: Digest) -> Result<Option<u64>, Error> {
        let _gate = self.gate.read().await;
        let size = self.find_blob(repository, digest).await?;
        if size.is_some() {
            touch(self.link_path(repository, "_blobs", digest)).await?;
        }
        Ok(size)
    }

    /// A blob's content and its size in bytes.
    pub async fn open_blob(&self, repository: &Repository, digest: Digest) -> Result<(File, u64), Error> {
        let size = self
            .find_blob(repository, digest)
            .await?
            .ok_or(Error::BlobUnknown(digest))?;
        let file = File::open(self.blob_path(digest))
            .await
            .map_err(Error::io("read a blob"))?;
        Ok((file, size))
    }

    /// Lets `to` see a blob of `from`; false when that has none.
    pub async fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        digest: Digest,
    ) -> Result<bool, Error> {
        let _gate = self.gate.read().await;
        if self.find_blob(from, digest).await?.is_none() {
            return Ok(false);
        }
        touch(self.blob_path(digest)).await?;
        self.link(to, "_blobs", digest, b"").await?;
        Ok(true)
    }

    /// Begins to receive a blob of at most `size_bytes` when that is known.
    pub async fn begin_upload(
        &self,
        repository: &Repository,
        size_bytes: Option<u64>,
    ) -> Result<Upload, Error> {
        let limit_bytes = self.limits.max_blob_bytes;
        let wanted = size_bytes.unwrap_or(0);
        if wanted > limit_bytes {
            return Err(Error::TooLarge { limit_bytes });
        }
        let stat =
            rustix::fs::statvfs(&self.root).map_err(|errno| Error::io("ask for free space")(errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free.saturating_sub(wanted) < self.limits.min_free_bytes {
            return Err(Error::NoSpace);
        }
        let path = self
            .root
            .join("uploads")
            .join(Uuid::now_v7().simple().to_string());
        Upload::create(path, repository.clone(), limit_bytes).await
    }

    /// Puts an upload aside until its next chunk comes.
    pub(super) fn park(&self, upload: Upload) -> Result<(), Error> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.limits.max_uploads;
        if uploads.len() >= limit {
            uploads.retain(|_, other| other.touched.elapsed() < Duration::from_secs(UPLOAD_IDLE_S));
        }
        if uploads.len() >= limit {
            return Err(Error::TooManyUploads { limit });
        }
        uploads.insert(upload.id, upload);
        Ok(())
    }

    /// Takes a parked upload of this repository back.
    pub(super) fn resume(&self, repository: &Repository, id: Uuid) -> Result<Upload, Error> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        match uploads.get(&id) {
            Some(upload) if upload.repository == *repository => {
                uploads.remove(&id).ok_or(Error::UploadUnknown)
            }
            _ => Err(Error::UploadUnknown),
        }
    }

    /// Names a received blob, if it is what `expected` says.
    pub async fn finish_upload(&self, mut upload: Upload, expected: Digest) -> Result<(), Error> {
        let actual = upload.seal().await?;
        if actual != expected {
            return Err(Error::DigestMismatch { expected, actual });
        }
        let _gate = self.gate.read().await;
        let path = self.blob_path(actual);
        let directory = path.parent().unwrap_or(&self.root);
        let named = Error::io("name a blob");
        durable::ensure_directory(directory)
            .await
            .map_err(Error::io("make its directories"))?;
        upload.land(&path).await?;
        durable::sync_directory(directory).await.map_err(named)?;
        self.link(&upload.repository, "_blobs", actual, b"").await
    }

    /// Takes a manifest in, once everything that it refers to is there.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        media_type: MediaType,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            let limit_bytes = MAX_MANIFEST_BYTES;
            return Err(Error::TooLarge { limit_bytes });
        }
        let manifest = Manifest::parse(media_type, bytes)?;
        let actual = Digest::of(bytes);
        if let Reference::Digest(expected) = *reference
            && expected != actual
        {
            return Err(Error::DigestMismatch { expected, actual });
        }
        let _gate = self.gate.read().await;
        for blob in manifest.blobs() {
            match self.find_blob(repository, blob.digest).await? {
                None => return Err(Error::ManifestBlobUnknown(blob.digest)),
                Some(size) if size != blob.size => {
                    let text = format!("`{}` has {size} bytes, not {}", blob.digest, blob.size);
                    return Err(Error::ManifestInvalid(text));
                }
                Some(_) => {}
            }
        }
        for child in manifest.manifests() {
            if !exists(&self.link_path(repository, "_manifests", child.digest)).await? {
                return Err(Error::ManifestBlobUnknown(child.digest));
            }
        }
        let path = self.blob_path(actual);
        durable::ensure_directory(path.parent().unwrap_or(&self.root))
            .await
            .map_err(Error::io("make its directories"))?;
        durable::write(&path, bytes)
            .await
            .map_err(Error::io("write a manifest"))?;
        self.link(repository, "_manifests", actual, media_type.as_str().as_bytes())
            .await?;
        if let Reference::Tag(tag) = reference {
            self.set_tag(repository, tag, actual).await?;
        }
        Ok(actual)
    }

    /// A manifest; `None` when the repository does not hold it.
    pub async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => match self.find_tag(repository, tag).await? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let Some(media_type) = read(&self.link_path(repository, "_manifests", digest)).await? else {
            return Ok(None);
        };
        let Some(media_type) = std::str::from_utf8(&media_type)
            .ok()
            .and_then(MediaType::from_header)
        else {
            return Ok(None);
        };
        let stored = read(&self.blob_path(digest)).await?.map(|bytes| StoredManifest {
            digest,
            media_type,
            bytes,
        });
        Ok(stored)
    }

    /// Whether an image is here whole: its manifest and every blob, with the size that the manifest says.
    pub async fn holds_image(&self, repository: &Repository, digest: Digest) -> Result<bool, Error> {
        let Some(stored) = self.find_manifest(repository, &Reference::Digest(digest)).await? else {
            return Ok(false);
        };
        let manifest = Manifest::parse(stored.media_type, &stored.bytes)?;
        for blob in manifest.blobs() {
            if self.find_blob(repository, blob.digest).await? != Some(blob.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a manifest and the tags that lead to it out of a repository; its blobs go with the next collection.
    /// One that is gone is success: false.
    pub async fn delete_manifest(&self, repository: &Repository, digest: Digest) -> Result<bool, Error> {
        let _gate = self.gate.write().await;
        let link = self.link_path(repository, "_manifests", digest);
        let there = exists(&link).await?;
        for tag in self.tags(repository).await? {
            if self.find_tag(repository, &tag).await? == Some(digest) {
                self.delete_tag(repository, &tag).await?;
            }
        }
        durable::remove(&link)
            .await
            .map_err(Error::io("delete a manifest"))?;
        Ok(there)
    }

    /// Takes a tag away; one that is gone is success.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), Error> {
        durable::remove(&self.repository_path(repository).join("_tags").join(tag.as_str()))
            .await
            .map_err(Error::io("delete a tag"))
    }

    /// The tags of a repository, in order.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, Error> {
        let names = list(&self.repository_path(repository).join("_tags")).await?;
        let mut tags: Vec<Tag> = names.iter().filter_map(|name| name.parse().ok()).collect();
        tags.sort();
        Ok(tags)
    }

    async fn find_tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, Error> {
        let path = self.repository_path(repository).join("_tags").join(tag.as_str());
        let text = read(&path).await?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }

    async fn set_tag(&self, repository: &Repository, tag: &Tag, digest: Digest) -> Result<(), Error> {
        let directory = self.repository_path(repository).join("_tags");
        durable::ensure_directory(&directory)
            .await
            .map_err(Error::io("make its directories"))?;
        durable::write(&directory.join(tag.as_str()), digest.to_string().as_bytes())
            .await
            .map_err(Error::io("write a tag"))
    }

    async fn link(
        &self,
        repository: &Repository,
        kind: &str,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let path = self.link_path(repository, kind, digest);
        durable::ensure_directory(path.parent().unwrap_or(&self.root))
            .await
            .map_err(Error::io("make its directories"))?;
        durable::write(&path, bytes)
            .await
            .map_err(Error::io("link a blob"))
    }
}

async fn exists(path: &Path) -> Result<bool, Error> {
    fs::try_exists(path).await.map_err(Error::io("look for a file"))
}

pub(super) async fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read a file")(error)),
    }
}

/// The names in a directory; none when there is no directory. Unfinished writes are left out.
pub(super) async fn list(directory: &Path) -> Result<Vec<String>, Error> {
    let mut entries = match fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list a directory")(error)),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries
        .next_entry()
        .await
        .map_err(Error::io("list a directory"))?
    {
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}

async fn touch(path: PathBuf) -> Result<(), Error> {
    let touched = tokio::task::spawn_blocking(move || {
        std::fs::File::options()
            .write(true)
            .open(path)?
            .set_modified(SystemTime::now())
    });
    touched
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(Error::io("keep a blob"))
}
