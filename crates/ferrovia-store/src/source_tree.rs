//! Source trees that a project has whole: the manifest here, the contents of files in the blob store.

use ferrovia_core::id::ProjectId;
use ferrovia_core::tree::Manifest;
use serde_json::Value;

use crate::row::{from_json, to_json};
use crate::{Conn, Error, Tx};

/// Keeps a tree, or notes that it was wanted again.
///
/// # Errors
/// [`Error::Reference`] when the project is not there.
pub async fn ensure(
    tx: &mut Tx,
    project: ProjectId,
    digest: &str,
    manifest: &Manifest,
    size_bytes: u64,
    now_ms: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO source_tree AS old (project_id, digest, manifest, size_bytes, created_ms, used_ms)
         VALUES ($1, $2, $3, $4, $5, $5)
         ON CONFLICT (project_id, digest) DO UPDATE SET used_ms = greatest(old.used_ms, excluded.used_ms)",
        project.uuid(),
        digest,
        to_json("source_tree", manifest)?,
        i64::try_from(size_bytes).unwrap_or(i64::MAX),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that a tree is used now, which keeps it from being cleaned up. Whether the project has it.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn touch(tx: &mut Tx, project: ProjectId, digest: &str, now_ms: i64) -> Result<bool, Error> {
    let touched = sqlx::query!(
        "UPDATE source_tree SET used_ms = greatest(used_ms, $3) WHERE project_id = $1 AND digest = $2",
        project.uuid(),
        digest,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(touched.rows_affected() == 1)
}

/// The manifest of a tree that a project has.
///
/// # Errors
/// [`Error::Corrupt`] when it is no manifest.
pub async fn find(conn: &mut Conn, project: ProjectId, digest: &str) -> Result<Option<Manifest>, Error> {
    let manifest: Option<Value> = sqlx::query_scalar!(
        "SELECT manifest FROM source_tree WHERE project_id = $1 AND digest = $2",
        project.uuid(),
        digest
    )
    .fetch_optional(&mut *conn)
    .await?;
    manifest
        .map(|manifest| from_json("source_tree", manifest))
        .transpose()
}

/// The digests of all trees that a project has.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list_digests(conn: &mut Conn, project: ProjectId) -> Result<Vec<String>, Error> {
    let digests = sqlx::query_scalar!(
        "SELECT digest FROM source_tree WHERE project_id = $1 ORDER BY digest",
        project.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(digests)
}
