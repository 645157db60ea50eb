//! Copying an image into the platform's registry: a few blobs at a time, each tried a few times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::client::{Client, Resolved, unreachable};
use super::{FetchError, ImageName};
use crate::narrator::Narrator;
use crate::registry::{Descriptor, Reference, Repository, Store};

/// Blobs that are fetched at a time.
const PARALLEL: usize = 3;
/// How often a blob is tried.
const TRIES: u32 = 4;
/// Wait before the second try, in milliseconds; doubled each time.
const RETRY_MS: u64 = 500;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Bytes that came from outside; the others were here.
    pub fetched_bytes: u64,
}

impl Client {
    /// Copies an image that was resolved.
    pub async fn copy(
        &self,
        image: &ImageName,
        resolved: &Resolved,
        store: &Store,
        repository: &Repository,
        narrator: &Narrator<'_>,
    ) -> Result<Copied, FetchError> {
        let blobs: Vec<&Descriptor> = resolved.manifest.blobs().collect();
        let (count, done, fetched) = (blobs.len(), AtomicU64::new(0), AtomicU64::new(0));
        let copies = blobs.into_iter().map(|blob| {
            let (done, fetched) = (&done, &fetched);
            async move {
                let here = store.keep_blob(repository, blob.digest).await? == Some(blob.size);
                if !here {
                    self.fetch(image, blob, store, repository).await?;
                    fetched.fetch_add(blob.size, Ordering::Relaxed);
                }
                let place = done.fetch_add(1, Ordering::Relaxed) + 1;
                let what = if here { "was here" } else { "fetched" };
                narrator.say(&format!("layer {place} of {count} {what}, {} bytes", blob.size));
                Ok::<(), FetchError>(())
            }
        });
        let copies: Vec<_> = copies.collect();
        futures_util::stream::iter(copies)
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        let reference = Reference::Digest(resolved.digest);
        store
            .put_manifest(repository, &reference, resolved.media_type, &resolved.bytes)
            .await?;
        Ok(Copied {
            fetched_bytes: fetched.into_inner(),
        })
    }

    async fn fetch(
        &self,
        image: &ImageName,
        blob: &Descriptor,
        store: &Store,
        repository: &Repository,
    ) -> Result<(), FetchError> {
        let mut wait = Duration::from_millis(RETRY_MS);
        for attempt in 1.. {
            match self.fetch_once(image, blob, store, repository).await {
                Err(error) if error.may_pass() && attempt < TRIES => {
                    tracing::debug!(%image, digest = %blob.digest, attempt, %error, "a layer is fetched again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    async fn fetch_once(
        &self,
        image: &ImageName,
        blob: &Descriptor,
        store: &Store,
        repository: &Repository,
    ) -> Result<(), FetchError> {
        let response = self.blob(image, blob).await?;
        let mut upload = store.begin_upload(repository, Some(blob.size)).await?;
        let mut stream = response.bytes_stream();
        // Every read has a time limit of its own, set on the client.
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(unreachable)?;
            if upload.written_bytes() + chunk.len() as u64 > blob.size {
                return Err(FetchError::Wrong(format!(
                    "a layer is larger than its {} bytes",
                    blob.size
                )));
            }
            upload.write(&chunk).await?;
        }
        if upload.written_bytes() < blob.size {
            return Err(FetchError::Unreachable("a layer came only in part".into()));
        }
        match store.finish_upload(upload, blob.digest).await {
            Err(crate::registry::Error::DigestMismatch { .. }) => {
                Err(FetchError::Wrong("a layer has another digest".into()))
            }
            other => Ok(other?),
        }
    }
}
