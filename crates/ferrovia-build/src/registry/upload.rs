//! A blob on its way in: written to a file of its own, digested as it comes, named only when whole and verified.

use std::path::PathBuf;
use std::time::Instant;

use tokio::fs::{self, File};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{Error, Repository};
use crate::digest::{Digest, Hasher};

/// How much is held in memory while a blob is copied, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// A blob that is being received. Dropping it takes its file away.
pub struct Upload {
    pub(super) id: Uuid,
    pub(super) repository: Repository,
    pub(super) path: PathBuf,
    pub(super) touched: Instant,
    file: File,
    hasher: Hasher,
    written_bytes: u64,
    limit_bytes: u64,
    landed: bool,
}

impl Upload {
    pub(super) async fn create(
        path: PathBuf,
        repository: Repository,
        limit_bytes: u64,
    ) -> Result<Self, Error> {
        let file = File::create(&path).await.map_err(Error::io("begin an upload"))?;
        Ok(Self {
            id: Uuid::now_v7(),
            repository,
            path,
            touched: Instant::now(),
            file,
            hasher: Hasher::default(),
            written_bytes: 0,
            limit_bytes,
            landed: false,
        })
    }

    /// How much came so far, in bytes.
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Takes the next bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let limit_bytes = self.limit_bytes;
        self.written_bytes += bytes.len() as u64;
        if self.written_bytes > limit_bytes {
            return Err(Error::TooLarge { limit_bytes });
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .await
            .map_err(Error::io("write an upload"))
    }

    /// Takes what `source` gives until its end.
    pub async fn write_from(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = source
                .read(&mut buffer)
                .await
                .map_err(Error::io("read what is uploaded"))?;
            if count == 0 {
                return Ok(());
            }
            self.write(&buffer[..count]).await?;
        }
    }

    /// The digest of what came so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Hands what was written to the system, so that a full disk shows now and not with the next chunk.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.touched = Instant::now();
        self.file.flush().await.map_err(Error::io("write an upload"))
    }

    /// Makes the content durable and gives its digest.
    pub(super) async fn seal(&mut self) -> Result<Digest, Error> {
        self.flush().await?;
        self.file
            .sync_all()
            .await
            .map_err(Error::io("write an upload to the disk"))?;
        Ok(self.digest())
    }

    /// Gives the file its final name.
    pub(super) async fn land(&mut self, path: &std::path::Path) -> Result<(), Error> {
        fs::rename(&self.path, path)
            .await
            .map_err(Error::io("name a blob"))?;
        self.landed = true;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.landed {
            // Leftovers are swept when the store opens.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
