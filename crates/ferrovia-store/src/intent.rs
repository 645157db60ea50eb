//! Intents: the only thing that says what should run of an instance.
//!
//! Every change grows the generation, so that a reconciler that decided from an older one is told so before it writes.

use ferrovia_core::id::{DeploymentId, InstanceId};
use ferrovia_core::intent::Intent;
use uuid::Uuid;

use crate::row::count;
use crate::{Conn, Error, Tx};

struct Row {
    target_deployment: Option<Uuid>,
    replicas: i32,
    restart_nonce: i64,
    asleep: bool,
    held: bool,
    generation: i64,
}

impl TryFrom<Row> for Intent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            target_deployment,
            replicas,
            restart_nonce,
            asleep,
            held,
            generation,
        } = row;
        Ok(Self {
            target: target_deployment.map(DeploymentId::from_uuid),
            replicas: count("intent", replicas)?,
            restart_nonce,
            asleep,
            held,
            generation,
        })
    }
}

/// The intent of an instance.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, instance: InstanceId) -> Result<Intent, Error> {
    sqlx::query_as!(
        Row,
        "SELECT target_deployment, replicas, restart_nonce, asleep, held, generation
         FROM intent WHERE instance_id = $1",
        instance.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(|| Error::not_found("instance", instance))?
    .try_into()
}

/// The intent of an instance, locked against changes until the transaction ends.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn lock(tx: &mut Tx, instance: InstanceId) -> Result<Intent, Error> {
    sqlx::query_as!(
        Row,
        "SELECT target_deployment, replicas, restart_nonce, asleep, held, generation
         FROM intent WHERE instance_id = $1 FOR UPDATE",
        instance.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or_else(|| Error::not_found("instance", instance))?
    .try_into()
}

/// Makes a deployment the target, or none: after `down`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_target(
    tx: &mut Tx,
    instance: InstanceId,
    target: Option<DeploymentId>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE intent SET target_deployment = $2, generation = generation + 1 WHERE instance_id = $1",
        instance.uuid(),
        target.map(DeploymentId::uuid)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Sets how many copies should run.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_replicas(tx: &mut Tx, instance: InstanceId, replicas: u32) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE intent SET replicas = $2, generation = generation + 1 WHERE instance_id = $1",
        instance.uuid(),
        i32::try_from(replicas).unwrap_or(i32::MAX)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Has every copy replaced by a new one.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn restart(tx: &mut Tx, instance: InstanceId) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE intent SET restart_nonce = restart_nonce + 1, generation = generation + 1 WHERE instance_id = $1",
        instance.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Sets whether reconcilers keep off.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_held(tx: &mut Tx, instance: InstanceId, held: bool) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE intent SET held = $2, generation = generation + 1 WHERE instance_id = $1",
        instance.uuid(),
        held
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
