//! Files that survive `kill -9` and power loss at any line: write, fsync, rename, fsync of the directory.

use std::io;
use std::path::Path;

use tokio::fs;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// Puts `bytes` under `path`, whole or not at all. The directory must be there.
pub async fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file needs a directory"))?;
    let partial = directory.join(format!(".partial-{}", Uuid::now_v7().simple()));
    let written = async {
        let mut file = fs::File::create(&partial).await?;
        file.write_all(bytes).await?;
        file.flush().await?;
        file.sync_all().await?;
        drop(file);
        fs::rename(&partial, path).await
    }
    .await;
    if let Err(error) = written {
        // What failed is told; the leftover is swept later if even this fails.
        let _ = fs::remove_file(&partial).await;
        return Err(error);
    }
    sync_directory(directory).await
}

/// Makes renames and removals in a directory durable.
pub async fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory).await?.sync_all().await
}

/// Makes a directory and those above it exist.
pub async fn ensure_directory(directory: &Path) -> io::Result<()> {
    if fs::metadata(directory).await.is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    fs::create_dir_all(directory).await?;
    match directory.parent() {
        Some(parent) => sync_directory(parent).await,
        None => Ok(()),
    }
}

/// Takes a file away; one that is gone is success.
pub async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
