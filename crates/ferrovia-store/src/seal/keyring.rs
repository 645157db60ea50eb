//! Data keys, made and opened with the master keys and kept in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope::{KEY_BYTES, key_id};
use super::{DataKey, Error, MasterKeys, Place};
use crate::{Conn, Db, Tx};

/// Most data keys kept in memory.
const MAX_KEPT: usize = 10_000;

/// Gives data keys by their ids. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keyring {
    master: Arc<MasterKeys>,
    kept: Arc<Mutex<HashMap<Uuid, Arc<DataKey>>>>,
}

impl Keyring {
    /// A keyring with the master keys of a data directory. The file is made when there is none; not when the database
    /// already holds something that was sealed: then it was lost, and a new one would open nothing.
    ///
    /// # Errors
    /// [`crate::Error::Seal`] when the file cannot be used or is not the one that the database was sealed with.
    pub async fn open(db: &Db, data_dir: &Path) -> Result<Self, crate::Error> {
        let ids = sqlx::query_scalar!("SELECT DISTINCT master_key_id FROM data_key")
            .fetch_all(&mut *db.conn().await?)
            .await?;
        let master = match MasterKeys::find(data_dir)? {
            Some(master) => master,
            None if ids.is_empty() => MasterKeys::ensure(data_dir)?,
            None => {
                return Err(Error::Missing {
                    path: MasterKeys::path(data_dir),
                }
                .into());
            }
        };
        for id in ids {
            let known = id.parse().is_ok_and(|id| master.get(id).is_ok());
            if !known {
                return Err(Error::UnknownKey { id }.into());
            }
        }
        Ok(Self::new(master))
    }

    /// A keyring with these master keys.
    pub fn new(master: MasterKeys) -> Self {
        Self {
            master: Arc::new(master),
            kept: Arc::default(),
        }
    }

    /// Makes a data key and writes it to the database, sealed.
    ///
    /// # Errors
    /// [`crate::Error::Seal`], [`crate::Error::Unavailable`].
    pub async fn create(&self, tx: &mut Tx, id: Uuid, now_ms: i64) -> Result<Arc<DataKey>, crate::Error> {
        let mut raw = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut raw[..]).map_err(|_| Error::Failed)?;
        let master = self.master.current().ok_or(Error::Failed)?;
        let sealed = master.seal_bytes(&raw[..], &place(id))?;
        sqlx::query!(
            "INSERT INTO data_key (id, master_key_id, sealed, created_ms) VALUES ($1, $2, $3, $4)",
            id,
            master.id().to_string(),
            sealed,
            now_ms
        )
        .execute(&mut **tx)
        .await?;
        // Not kept: the transaction may be undone.
        Ok(Arc::new(DataKey::new(id, &raw)?))
    }

    /// A data key by its id.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::Seal`].
    pub async fn get(&self, conn: &mut Conn, id: Uuid) -> Result<Arc<DataKey>, crate::Error> {
        if let Some(key) = self.kept().get(&id) {
            return Ok(key.clone());
        }
        let sealed = sqlx::query_scalar!("SELECT sealed FROM data_key WHERE id = $1", id)
            .fetch_optional(&mut *conn)
            .await?
            .ok_or_else(|| crate::Error::not_found("data key", id))?;
        let key = Arc::new(DataKey::new(id, &*self.unseal(id, &sealed)?)?);
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(id, key.clone());
        Ok(key)
    }

    /// Seals again, with the first master key, up to `limit` data keys that are sealed with another; gives how many it
    /// were. Once it gives 0, the other master keys may leave the file.
    ///
    /// # Errors
    /// [`crate::Error::Seal`], [`crate::Error::Unavailable`].
    pub async fn seal_again(&self, tx: &mut Tx, limit: u32) -> Result<u32, crate::Error> {
        let master = self.master.current().ok_or(Error::Failed)?;
        let master_id = master.id().to_string();
        let rows = sqlx::query!(
            "SELECT id, sealed FROM data_key WHERE master_key_id <> $1 AND octet_length(sealed) > 0
             ORDER BY id LIMIT $2 FOR UPDATE",
            master_id,
            i64::from(limit)
        )
        .fetch_all(&mut **tx)
        .await?;
        let mut count = 0;
        for row in rows {
            let raw = self.unseal(row.id, &row.sealed)?;
            let sealed = master.seal_bytes(&raw[..], &place(row.id))?;
            sqlx::query!(
                "UPDATE data_key SET master_key_id = $2, sealed = $3 WHERE id = $1",
                row.id,
                master_id,
                sealed
            )
            .execute(&mut **tx)
            .await?;
            count += 1;
        }
        Ok(count)
    }

    fn unseal(&self, id: Uuid, sealed: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
        let place = place(id);
        let opened = self
            .master
            .get(key_id(sealed, &place)?)?
            .open_bytes(sealed, &place)?;
        let mut raw = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(Error::Tampered { table: "data_key" });
        }
        raw.copy_from_slice(&opened);
        Ok(raw)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<DataKey>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(id: Uuid) -> Place {
    Place::new("data_key", [id.as_bytes().as_slice()])
}
