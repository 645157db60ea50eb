//! What goes for good: the secrets of what was deleted, and source trees that nothing needs.
//!
//! Deleting is soft everywhere else. Here it becomes final, by rows that lose their contents and not by rows that
//! vanish: host names, numbers and the audit refer to them.

use crate::{Error, Tx};

/// Takes the secrets away of everything that was deleted before a time: variables, snapshots of deployments and
/// builds, and the data keys of projects. Gives how many rows lost something.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn shred(tx: &mut Tx, deleted_before_ms: i64) -> Result<u64, Error> {
    let variables = sqlx::query!(
        "DELETE FROM variable USING environment, project
         WHERE environment.id = variable.environment_id AND project.id = environment.project_id AND (
             project.deleted_ms < $1 OR environment.deleted_ms < $1
             OR variable.instance_id IN (
                 SELECT instance.id FROM instance JOIN service ON service.id = instance.service_id
                 WHERE instance.deleted_ms < $1 OR service.deleted_ms < $1))",
        deleted_before_ms
    )
    .execute(&mut **tx)
    .await?;
    let deployments = sqlx::query!(
        "UPDATE deployment SET sealed_variables = ''
         FROM instance_life
         WHERE instance_life.instance_id = deployment.instance_id AND instance_life.deleted_ms < $1
           AND octet_length(deployment.sealed_variables) > 0",
        deleted_before_ms
    )
    .execute(&mut **tx)
    .await?;
    let builds = sqlx::query!(
        "UPDATE build SET sealed_variables = ''
         FROM service, project
         WHERE service.id = build.service_id AND project.id = build.project_id
           AND (service.deleted_ms < $1 OR project.deleted_ms < $1)
           AND octet_length(build.sealed_variables) > 0",
        deleted_before_ms
    )
    .execute(&mut **tx)
    .await?;
    // Without its key nothing opens any more that a backup or the WAL may still hold.
    let keys = sqlx::query!(
        "UPDATE data_key SET sealed = '' FROM project
         WHERE project.data_key_id = data_key.id AND project.deleted_ms < $1 AND octet_length(data_key.sealed) > 0",
        deleted_before_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok([variables, deployments, builds, keys]
        .iter()
        .map(sqlx::postgres::PgQueryResult::rows_affected)
        .sum())
}

/// Forgets source trees that were not used since a time and that no build needs which has not ended, or which is of
/// the target of an instance that lives or was deleted since `deleted_since_ms` (it may be built again). Their blobs are
/// the tree store's to sweep. Gives how many.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn drop_trees(tx: &mut Tx, unused_since_ms: i64, deleted_since_ms: i64) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "DELETE FROM source_tree WHERE used_ms < $1 AND NOT EXISTS (
             SELECT FROM build WHERE build.project_id = source_tree.project_id AND build.tree_digest = source_tree.digest
             AND (build.outcome IN ('queued', 'building') OR EXISTS (
                 SELECT FROM deployment
                 JOIN intent ON intent.instance_id = deployment.instance_id AND intent.target_deployment = deployment.id
                 JOIN instance_life ON instance_life.instance_id = deployment.instance_id
                 WHERE deployment.build_id = build.id
                   AND (instance_life.deleted_ms IS NULL OR instance_life.deleted_ms >= $2))))",
        unused_since_ms,
        deleted_since_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(gone.rows_affected())
}
