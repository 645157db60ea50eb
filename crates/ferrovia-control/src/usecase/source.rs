//! Uploaded source: what of a tree a project has, the contents of files, and the tree itself once it is whole.

use ferrovia_build::tree::{TreeError, Upload};
use ferrovia_core::id::ProjectId;
use ferrovia_core::permission::Action;
use ferrovia_core::tree::{Entry, EntryKind, MAX_ENTRIES, Manifest, Sha256};
use ferrovia_store::source_tree;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::context::OpContext;
use super::error::Error;
use super::{UseCases, code, find};

/// Longest head of a content in an upload, in bytes: a digest, a blank, a size, a line feed.
const MAX_HEAD_BYTES: u64 = 128;

/// What a project has of a tree.
#[derive(Debug, Clone)]
pub struct TreeStatus {
    /// The tree's digest.
    pub digest: String,
    /// Digests of the files that have to be sent; none: the tree can be deployed.
    pub missing: Vec<String>,
}

impl UseCases {
    /// Which files of a tree a project lacks. A tree that lacks none is kept and can be deployed.
    ///
    /// # Errors
    /// `tree_invalid` naming the path.
    pub async fn offer_tree(
        &self,
        ctx: &OpContext,
        project: &str,
        entries: Vec<Entry>,
    ) -> Result<TreeStatus, Error> {
        let project = self.source_project(ctx, project).await?;
        let manifest = Manifest::new(entries)
            .map_err(|error| Error::of(error.report(), error.class()).field("entries"))?;
        let digest = manifest.digest().to_string();
        let missing = self.trees.missing(project, &manifest).await.map_err(refused)?;
        if !missing.is_empty() {
            let missing = missing.iter().map(|(digest, _)| digest.to_string()).collect();
            return Ok(TreeStatus { digest, missing });
        }
        let size_bytes = manifest
            .entries()
            .iter()
            .map(|entry| match &entry.kind {
                EntryKind::File { size, .. } => *size,
                EntryKind::Symlink { .. } | EntryKind::Directory => 0,
            })
            .sum();
        let now_ms = self.clock.now_ms();
        // Naturally repeatable: the same tree is the same row.
        let kept = digest.clone();
        self.db
            .tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    Ok(source_tree::ensure(tx, project, &kept, &manifest, size_bytes, now_ms).await?)
                })
            })
            .await?;
        Ok(TreeStatus {
            digest,
            missing: Vec::new(),
        })
    }

    /// Takes contents of files: each a line `sha256:… SIZE` and as many bytes, one after the other to the end. Made
    /// durable together; gives how many it were.
    ///
    /// # Errors
    /// `upload_invalid`, `source_changed` for one that is not what it was said to be, `disk_full`; contents before the
    /// wrong one may have been kept.
    pub async fn receive_contents(
        &self,
        ctx: &OpContext,
        project: &str,
        mut from: impl AsyncBufRead + Unpin,
    ) -> Result<u64, Error> {
        let project = self.source_project(ctx, project).await?;
        let mut upload: Upload = self.trees.upload(project);
        let mut count = 0;
        while let Some((digest, size)) = head(&mut from).await? {
            if count >= MAX_ENTRIES as u64 {
                return Err(wrong("it has more contents than a tree may have"));
            }
            upload
                .put(digest, size, (&mut from).take(size))
                .await
                .map_err(refused)?;
            count += 1;
        }
        upload.finish().await.map_err(refused)?;
        Ok(count)
    }

    async fn source_project(&self, ctx: &OpContext, project: &str) -> Result<ProjectId, Error> {
        Ok(
            find::project(&mut *self.db.conn().await?, ctx, project, Action::Deploy)
                .await?
                .id,
        )
    }
}

/// The next content's digest and size; none at the end.
async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<(Sha256, u64)>, Error> {
    let mut line = Vec::new();
    let read = from.take(MAX_HEAD_BYTES).read_until(b'\n', &mut line).await;
    read.map_err(|_| wrong("it broke off"))?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_suffix('\n'));
    let parts = text.and_then(|text| text.split_once(' '));
    let parsed = parts.and_then(|(digest, size)| Some((digest.parse().ok()?, size.parse().ok()?)));
    parsed
        .map(Some)
        .ok_or_else(|| wrong("each content begins with a line of its digest and its size: `sha256:… 1234`"))
}

fn wrong(why: &str) -> Error {
    Error::new(&code::UPLOAD_INVALID, format!("the upload cannot be read: {why}")).field("body")
}

fn refused(error: TreeError) -> Error {
    if !matches!(
        error,
        TreeError::Stream { .. } | TreeError::WrongDigest(_) | TreeError::WrongSize { .. }
    ) {
        tracing::warn!(error = &error as &dyn std::error::Error, "source was not taken");
    }
    Error::of(error.report(), error.class())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(text: &str) -> Result<Option<(Sha256, u64)>, Error> {
        head(&mut text.as_bytes()).await
    }

    #[tokio::test]
    async fn heads() {
        let digest = Sha256::of(b"x");
        assert_eq!(
            parsed(&format!("{digest} 12\nabc")).await.unwrap(),
            Some((digest, 12))
        );
        assert_eq!(parsed("").await.unwrap(), None);
        let long = format!("{digest} {}\n", "1".repeat(200));
        for wrong in [
            "\n",
            "x 1\n",
            &format!("{digest} -1\n"),
            &format!("{digest} 1"),
            &digest.to_string(),
            &long,
        ] {
            assert!(parsed(wrong).await.is_err(), "{wrong}");
        }
    }
}
