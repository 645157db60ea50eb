//! Taking contents: staged, verified, made durable together, named.
//!
//! A small tree has hundreds of files, and an fsync of each would take longer than its build. So contents are staged
//! without, and before any of them gets its name the file system is synced once.

use std::io;
use std::path::{Path, PathBuf};

use ferrovia_core::tree::{Hasher, MAX_FILE_BYTES, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{MIN_FREE_BYTES, PARTIAL, TreeError, blob_path, blocking};

/// Most contents that wait for their name.
pub const MAX_STAGED: usize = 1_000;
/// Most bytes that wait for their name.
pub const MAX_STAGED_BYTES: u64 = 256 * 1024 * 1024;
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// Contents on their way into the store. What was not finished is taken away when this is dropped.
#[derive(Debug)]
pub struct Upload {
    project: PathBuf,
    staged: Vec<Staged>,
    staged_bytes: u64,
}

/// A content that is whole and has no name yet.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    digest: Sha256,
}

impl Upload {
    pub(super) fn new(project: PathBuf) -> Self {
        Self {
            project,
            staged: Vec::new(),
            staged_bytes: 0,
        }
    }

    /// Takes a content of exactly `size` bytes.
    ///
    /// # Errors
    /// [`TreeError::WrongDigest`], [`TreeError::WrongSize`], [`TreeError::TooLarge`], [`TreeError::Stream`],
    /// [`TreeError::NoRoom`] or [`TreeError::Disk`]; nothing of the content stays.
    pub async fn put(
        &mut self,
        digest: Sha256,
        size: u64,
        content: impl AsyncRead + Unpin,
    ) -> Result<(), TreeError> {
        if size > MAX_FILE_BYTES {
            return Err(TreeError::TooLarge(digest));
        }
        if self.staged.is_empty() {
            tokio::fs::create_dir_all(&self.project)
                .await
                .map_err(TreeError::disk("making a directory"))?;
        }
        self.check_room(size)?;
        let path = self.project.join(format!("{PARTIAL}{}", Uuid::now_v7().simple()));
        // Staged before it is written, so that it is taken away whatever happens.
        self.staged.push(Staged {
            path: path.clone(),
            digest,
        });
        if let Err(error) = write(&path, digest, size, content).await {
            self.staged.pop();
            remove(&path);
            return Err(error);
        }
        self.staged_bytes += size;
        if self.staged.len() >= MAX_STAGED || self.staged_bytes >= MAX_STAGED_BYTES {
            self.name_staged().await?;
        }
        Ok(())
    }

    /// Makes everything that was taken durable and names it. Without this call nothing is kept for sure.
    ///
    /// # Errors
    /// [`TreeError::Disk`] or [`TreeError::NoRoom`].
    pub async fn finish(mut self) -> Result<(), TreeError> {
        self.name_staged().await
    }

    fn check_room(&self, size: u64) -> Result<(), TreeError> {
        let stat = rustix::fs::statvfs(&self.project)
            .map_err(|error| TreeError::disk("asking for free space")(error.into()))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < size.saturating_add(MIN_FREE_BYTES) {
            return Err(TreeError::NoRoom);
        }
        Ok(())
    }

    async fn name_staged(&mut self) -> Result<(), TreeError> {
        let staged = std::mem::take(&mut self.staged);
        self.staged_bytes = 0;
        if staged.is_empty() {
            return Ok(());
        }
        let project = self.project.clone();
        blocking(move || {
            let named = name_all(&project, &staged);
            if named.is_err() {
                staged.iter().for_each(|staged| remove(&staged.path));
            }
            named.map_err(TreeError::disk("naming contents"))
        })
        .await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.staged.iter().for_each(|staged| remove(&staged.path));
    }
}

/// Takes a leftover away; if that fails, clean-up does it later.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

async fn write(
    path: &Path,
    digest: Sha256,
    size: u64,
    mut content: impl AsyncRead + Unpin,
) -> Result<(), TreeError> {
    let disk = TreeError::disk("writing a content");
    let mut file = File::create(path).await.map_err(&disk)?;
    let mut hasher = Hasher::new();
    let mut left = size;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = content
            .read(&mut buffer)
            .await
            .map_err(|source| TreeError::Stream { digest, source })?;
        if count == 0 {
            break;
        }
        if count as u64 > left {
            return Err(TreeError::WrongSize {
                digest,
                announced: size,
            });
        }
        left -= count as u64;
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).await.map_err(&disk)?;
    }
    if left > 0 {
        return Err(TreeError::WrongSize {
            digest,
            announced: size,
        });
    }
    if hasher.finish() != digest {
        return Err(TreeError::WrongDigest(digest));
    }
    file.flush().await.map_err(&disk)
}

/// Contents first, then names, then the directories that hold the names.
fn name_all(project: &Path, staged: &[Staged]) -> io::Result<()> {
    match staged {
        [only] => std::fs::File::open(&only.path)?.sync_all()?,
        _ => rustix::fs::syncfs(std::fs::File::open(project)?)?,
    }
    let mut directories = std::collections::BTreeSet::new();
    for Staged { path, digest } in staged {
        let target = blob_path(project, *digest);
        if let Some(directory) = target.parent() {
            if directories.insert(directory.to_owned()) {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::rename(path, &target)?;
        }
    }
    let above = [project.to_owned()]
        .into_iter()
        .chain(project.parent().map(Path::to_owned));
    for directory in directories.into_iter().chain(above) {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
