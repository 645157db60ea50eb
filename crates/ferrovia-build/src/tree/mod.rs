//! Source trees on disk: contents by digest, one store per project, and directories made from them.
//!
//! A content is staged, verified while it streams, made durable and only then named by its digest: what has a name is
//! whole, whatever died in between. Nothing is shared between projects: having a digest proves nothing across them.
//! Manifests themselves are rows of the database.

mod unpack;
mod upload;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ferrovia_core::detect::SourceView;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::id::ProjectId;
use ferrovia_core::tree::{EntryKind, Manifest, Sha256};
use tokio::task::spawn_blocking;

pub use unpack::unpack;
pub use upload::{MAX_STAGED, MAX_STAGED_BYTES, Upload};

/// Room that must stay free on the disk after a content was taken, in bytes.
pub const MIN_FREE_BYTES: u64 = 512 * 1024 * 1024;
/// Age under which clean-up leaves a content alone, since a manifest that names it may not be committed yet.
pub const MIN_GARBAGE_AGE: Duration = Duration::from_hours(2);

/// The beginning of the name of what is not whole yet.
const PARTIAL: &str = ".partial-";

/// What goes wrong with trees on disk.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The bytes that came are not those that were announced.
    #[error("the content does not have the digest `{0}`")]
    WrongDigest(Sha256),
    /// More or fewer bytes came than were announced.
    #[error("the content `{digest}` does not have {announced} bytes")]
    WrongSize {
        /// What was announced.
        digest: Sha256,
        /// Bytes that were announced.
        announced: u64,
    },
    /// Larger than a file of a tree may be.
    #[error("the content `{0}` is larger than a file may be")]
    TooLarge(Sha256),
    /// A manifest names a content that is not there.
    #[error("the content `{0}` is missing")]
    Missing(Sha256),
    /// The disk is full, or would be.
    #[error("there is no room for the source on the disk of the platform")]
    NoRoom,
    /// The stream that brings a content broke off.
    #[error("the content `{digest}` did not arrive")]
    Stream {
        /// Which.
        digest: Sha256,
        /// Why.
        source: io::Error,
    },
    /// The disk refuses.
    #[error("{what} failed")]
    Disk {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl TreeError {
    fn disk(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom,
            _ => Self::Disk { what, source },
        }
    }

    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::WrongDigest(_) | Self::WrongSize { .. } => Class::Invalid,
            Self::TooLarge(_) => Class::Limit,
            Self::Missing(_) => Class::Conflict,
            Self::Stream { .. } => Class::Transient,
            Self::NoRoom | Self::Disk { .. } => Class::Unavailable,
        }
    }

    /// What people are told.
    pub fn report(&self) -> Report {
        let (code, hint) = match self {
            Self::WrongDigest(_) | Self::WrongSize { .. } => (
                "source_changed",
                "a file changed while it was uploaded: run `ferrovia up` again",
            ),
            Self::TooLarge(_) => (
                "tree_invalid",
                "list what the build does not need in `.gitignore` or `.dockerignore`",
            ),
            Self::Missing(_) | Self::Stream { .. } => ("source_incomplete", "run `ferrovia up` again"),
            Self::NoRoom => (
                "disk_full",
                "free space in the data directory; `ferrovia doctor` says how much is left",
            ),
            Self::Disk { .. } => (
                "source_store_failed",
                "`log/control.log` in the platform's data directory says why; `ferroviad doctor` on the server's host \
                 looks at the disk",
            ),
        };
        Report::new(code, self.to_string()).with_hint(hint)
    }
}

/// The contents of all projects' trees, in a directory of the platform.
#[derive(Debug, Clone)]
pub struct TreeStore {
    root: PathBuf,
}

/// What a clean-up took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Contents.
    pub count: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

impl TreeStore {
    /// The store in a directory, which is made when it is first written to.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn project(&self, project: ProjectId) -> PathBuf {
        self.root.join(project.uuid().simple().to_string())
    }

    /// The contents of a tree that the project lacks, with their sizes, each once, in the order of the manifest. Those
    /// that are there are kept from clean-up for [`MIN_GARBAGE_AGE`].
    ///
    /// # Errors
    /// [`TreeError::Disk`].
    pub async fn missing(
        &self,
        project: ProjectId,
        manifest: &Manifest,
    ) -> Result<Vec<(Sha256, u64)>, TreeError> {
        let directory = self.project(project);
        let mut seen = HashSet::new();
        let wanted: Vec<_> = manifest
            .blobs()
            .filter(|(digest, _)| seen.insert(*digest))
            .collect();
        blocking(move || {
            let mut missing = Vec::new();
            for (digest, size) in wanted {
                if !touch(&blob_path(&directory, digest), size)
                    .map_err(TreeError::disk("looking for a content"))?
                {
                    missing.push((digest, size));
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Takes contents for a project.
    pub fn upload(&self, project: ProjectId) -> Upload {
        Upload::new(self.project(project))
    }

    /// Makes a directory, which must not be there yet, hold exactly the tree. What was made is taken away on failure.
    ///
    /// # Errors
    /// [`TreeError::Missing`] when the project lacks a content; [`TreeError::Disk`] and [`TreeError::NoRoom`].
    pub async fn unpack(
        &self,
        project: ProjectId,
        manifest: &Manifest,
        directory: &Path,
    ) -> Result<(), TreeError> {
        let (blobs, manifest, directory) = (self.project(project), manifest.clone(), directory.to_owned());
        blocking(move || unpack::unpack(&blobs, &manifest, &directory)).await
    }

    /// What detection needs of a tree, narrowed to a directory of it (empty: all of it).
    ///
    /// # Errors
    /// [`TreeError::Missing`] when the project lacks a content; [`TreeError::Disk`].
    pub async fn view(
        &self,
        project: ProjectId,
        manifest: &Manifest,
        root: &str,
    ) -> Result<SourceView, TreeError> {
        let (blobs, manifest, root) = (self.project(project), manifest.clone(), root.to_owned());
        blocking(move || {
            SourceView::load(&manifest, &root, |path, limit| {
                let Some(EntryKind::File { digest, .. }) = manifest.find(path).map(|entry| &entry.kind)
                else {
                    return Ok(Vec::new());
                };
                let mut head = Vec::new();
                let file = open(&blobs, *digest)?;
                file.take(limit as u64)
                    .read_to_end(&mut head)
                    .map_err(TreeError::disk("reading a content"))?;
                Ok(head)
            })
        })
        .await
    }

    /// The projects that have a directory here.
    ///
    /// # Errors
    /// [`TreeError::Disk`].
    pub async fn projects(&self) -> Result<Vec<ProjectId>, TreeError> {
        let root = self.root.clone();
        blocking(move || {
            let found = entries(&root).map_err(TreeError::disk("listing projects"))?;
            let names = found
                .iter()
                .filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names
                .filter_map(|name| uuid::Uuid::try_parse(&name).ok())
                .map(ProjectId::from_uuid)
                .collect())
        })
        .await
    }

    /// Takes away what no tree of the project needs: contents that are not in `keep`, and what uploads left unfinished,
    /// all older than [`MIN_GARBAGE_AGE`] at `now`.
    ///
    /// # Errors
    /// [`TreeError::Disk`].
    pub async fn collect_garbage(
        &self,
        project: ProjectId,
        keep: HashSet<Sha256>,
        now: SystemTime,
    ) -> Result<Collected, TreeError> {
        let directory = self.project(project);
        blocking(move || collect(&directory, &keep, now).map_err(TreeError::disk("clean-up of contents")))
            .await
    }

    /// Takes everything of a project away; one that has nothing is success.
    ///
    /// # Errors
    /// [`TreeError::Disk`].
    pub async fn remove_project(&self, project: ProjectId) -> Result<(), TreeError> {
        let directory = self.project(project);
        blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TreeError::disk("removal of a project's contents")(error))
            }
            _ => Ok(()),
        })
        .await
    }
}

/// Runs what blocks; a panic in it is passed on as a failure of the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TreeError> + Send + 'static,
) -> Result<T, TreeError> {
    let joined = spawn_blocking(work).await;
    joined.map_err(|error| TreeError::disk("a task on the disk")(io::Error::other(error)))?
}

/// Where a content lies: directories of 256, so that none grows too large.
fn blob_path(project: &Path, digest: Sha256) -> PathBuf {
    let hex = digest.hex();
    project.join(&hex[..2]).join(&hex[2..])
}

fn open(project: &Path, digest: Sha256) -> Result<File, TreeError> {
    File::open(blob_path(project, digest)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TreeError::Missing(digest),
        _ => TreeError::disk("opening a content")(error),
    })
}

/// Whether the content is there with this size; then its time is set to now.
fn touch(path: &Path, size: u64) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    file.set_modified(SystemTime::now())?;
    Ok(true)
}

fn collect(project: &Path, keep: &HashSet<Sha256>, now: SystemTime) -> io::Result<Collected> {
    let mut collected = Collected::default();
    for shard in entries(project)? {
        let Ok(name) = shard.file_name().into_string() else {
            continue;
        };
        if name.starts_with(PARTIAL) {
            remove_old(&shard, now, &mut collected)?;
            continue;
        }
        for blob in entries(&shard.path())? {
            let digest = blob
                .file_name()
                .into_string()
                .ok()
                .and_then(|rest| format!("sha256:{name}{rest}").parse().ok());
            if digest.is_none_or(|digest: Sha256| !keep.contains(&digest)) {
                remove_old(&blob, now, &mut collected)?;
            }
        }
    }
    Ok(collected)
}

/// What is in a directory; nothing when it is not there.
fn entries(directory: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_old(entry: &std::fs::DirEntry, now: SystemTime, collected: &mut Collected) -> io::Result<()> {
    let metadata = entry.metadata()?;
    let age = now.duration_since(metadata.modified()?).unwrap_or_default();
    if metadata.is_file() && age >= MIN_GARBAGE_AGE {
        std::fs::remove_file(entry.path())?;
        collected.count += 1;
        collected.bytes += metadata.len();
    }
    Ok(())
}
