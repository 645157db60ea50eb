//! The installation: one row that says which one this is.

use uuid::Uuid;

use crate::{Conn, Error, Tx};

/// Which installation this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation {
    /// Its id.
    pub id: Uuid,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
}

/// The installation, made with `id` if it is not there yet.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn ensure(tx: &mut Tx, id: Uuid, now_ms: i64) -> Result<Installation, Error> {
    sqlx::query!(
        "INSERT INTO installation (id, created_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        id,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    find(tx)
        .await?
        .ok_or_else(|| Error::not_found("installation", id))
}

/// The installation, if it was made.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn) -> Result<Option<Installation>, Error> {
    let row = sqlx::query!("SELECT id, created_ms FROM installation")
        .fetch_optional(&mut *conn)
        .await?;
    Ok(row.map(|row| Installation {
        id: row.id,
        created_ms: row.created_ms,
    }))
}
