//! Logs on disk: those of builds and instances that are gone, and the oldest builds' when all together are too much.
//! The log of a living instance keeps its own budget as it is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ferrovia_core::id::{BuildId, InstanceId};
use ferrovia_log::place;
use ferrovia_store::{build, instance};
use uuid::Uuid;

use super::GRACE_MS;
use crate::control::Shared;
use crate::error::Error;

/// Size of all builds' logs together, in bytes on disk.
const BUILDS_BUDGET_BYTES: u64 = 1024 * 1024 * 1024;

/// A log's directory.
struct Directory {
    id: Uuid,
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
}

/// One round.
pub(super) async fn clean<E, B>(shared: &Arc<Shared<E, B>>) -> Result<(), Error> {
    clean_builds(shared).await?;
    clean_instances(shared).await
}

async fn clean_builds<E, B>(shared: &Shared<E, B>) -> Result<(), Error> {
    let parent = parent_of(place::of_build(&shared.logs, BuildId::from_uuid(Uuid::nil())));
    let mut directories = list(parent).await?;
    // The newest first: what is beyond the budget is the oldest.
    directories.sort_by_key(|directory| std::cmp::Reverse(directory.written));
    let mut bytes = 0_u64;
    for directory in directories {
        let found = build::find(&mut *shared.db.conn().await?, BuildId::from_uuid(directory.id)).await?;
        bytes = bytes.saturating_add(directory.bytes);
        let keep = found.is_some_and(|found| !found.outcome.is_final() || bytes <= BUILDS_BUDGET_BYTES);
        if !keep {
            remove(directory.path).await?;
        }
    }
    Ok(())
}

async fn clean_instances<E, B>(shared: &Shared<E, B>) -> Result<(), Error> {
    let parent = parent_of(place::of_instance(
        &shared.logs,
        InstanceId::from_uuid(Uuid::nil()),
    ));
    let final_before_ms = shared.clock.now_ms().saturating_sub(GRACE_MS);
    for directory in list(parent).await? {
        let id = InstanceId::from_uuid(directory.id);
        let deleted_ms = instance::deleted_since(&mut *shared.db.conn().await?, id).await?;
        // An instance without a row is one that a restored database does not know yet: its log may be all that is left.
        if deleted_ms.is_some_and(|deleted_ms| deleted_ms < final_before_ms) {
            remove(directory.path).await?;
        }
    }
    Ok(())
}

fn parent_of(path: PathBuf) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or(path)
}

/// The logs in a directory; what is not named by an id is nobody's and stays.
async fn list(parent: PathBuf) -> Result<Vec<Directory>, Error> {
    blocking(move || {
        let disk = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::Disk { path, source }
        };
        let entries = match std::fs::read_dir(&parent) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(disk(&parent))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(disk(&parent))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Ok(id) = name.parse() else {
                continue;
            };
            let (mut bytes, mut written) = (0, SystemTime::UNIX_EPOCH);
            for file in std::fs::read_dir(&path).map_err(disk(&path))?.flatten() {
                if let Ok(data) = file.metadata() {
                    bytes += data.len();
                    written = written.max(data.modified().unwrap_or(SystemTime::UNIX_EPOCH));
                }
            }
            found.push(Directory {
                id,
                path,
                bytes,
                written,
            });
        }
        Ok(found)
    })
    .await
}

async fn remove(path: PathBuf) -> Result<(), Error> {
    blocking(move || match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| Error::Disk { path, source }),
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
