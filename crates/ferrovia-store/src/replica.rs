//! Replicas: a row from the allocation of an address until the address may be used again.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ferrovia_core::cutover::{Phase, Replica};
use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_core::network::{AddressPlan, BRIDGE_MEMBERS};
use uuid::Uuid;

use crate::row::{address, count};
use crate::{Conn, Error, Tx};

/// What a new replica is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewReplica {
    /// Its id.
    pub id: ReplicaId,
    /// Its deployment.
    pub deployment_id: DeploymentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its place among the deployment's copies.
    pub ordinal: u32,
    /// The intent's restart nonce.
    pub restart_nonce: i64,
    /// The bridge of its environment.
    pub bridge: u32,
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
}

struct Row {
    id: Uuid,
    deployment_id: Uuid,
    ordinal: i32,
    address: String,
    restart_nonce: i64,
    phase: String,
    phase_revision: i64,
    phase_ms: i64,
    started_at_ms: Option<i64>,
    tries: i32,
    next_try_ms: Option<i64>,
}

impl TryFrom<Row> for Replica {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            deployment_id,
            ordinal,
            address: text,
            restart_nonce,
            phase,
            phase_revision,
            phase_ms,
            started_at_ms,
            tries,
            next_try_ms,
        } = row;
        Ok(Self {
            id: ReplicaId::from_uuid(id),
            deployment_id: DeploymentId::from_uuid(deployment_id),
            ordinal: count("replica", ordinal)?,
            address: address("replica", &text)?,
            restart_nonce,
            phase: Phase::from_word(&phase)
                .ok_or_else(|| Error::corrupt("replica", format!("`{phase}` is no phase")))?,
            phase_revision: u64::try_from(phase_revision).unwrap_or(0),
            phase_ms,
            started_at_ms,
            tries: count("replica", tries)?,
            next_try_ms,
        })
    }
}

/// The replicas of an instance.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_instance(conn: &mut Conn, instance: InstanceId) -> Result<Vec<Replica>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, deployment_id, ordinal, host(address) AS "address!", restart_nonce, phase, phase_revision,
                  phase_ms, started_at_ms, tries, next_try_ms
           FROM replica WHERE instance_id = $1 ORDER BY id"#,
        instance.uuid()
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Replica::try_from)
    .collect()
}

/// Every replica with its instance and its phase, for the comparison with the engine.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn all(conn: &mut Conn) -> Result<Vec<(ReplicaId, InstanceId, Phase)>, Error> {
    let rows = sqlx::query!("SELECT id, instance_id, phase FROM replica")
        .fetch_all(&mut *conn)
        .await?;
    rows.into_iter()
        .map(|row| {
            let phase = Phase::from_word(&row.phase)
                .ok_or_else(|| Error::corrupt("replica", format!("`{}` is no phase", row.phase)))?;
            Ok((
                ReplicaId::from_uuid(row.id),
                InstanceId::from_uuid(row.instance_id),
                phase,
            ))
        })
        .collect()
}

/// Makes a replica in phase `admitting`, with an address of its environment's bridge that no row has.
///
/// # Errors
/// [`Error::Exhausted`] when the bridge is full, [`Error::Contention`] when others took every address that was tried.
pub async fn insert(tx: &mut Tx, new: &NewReplica, plan: &AddressPlan) -> Result<Ipv4Addr, Error> {
    let NewReplica {
        id,
        deployment_id,
        instance_id,
        ordinal,
        restart_nonce,
        bridge,
        now_ms,
    } = *new;
    let exhausted = || Error::Exhausted {
        what: "address on the environment's bridge",
    };
    let bridge = plan.bridge(bridge).ok_or_else(exhausted)?;
    let used: HashSet<Ipv4Addr> = sqlx::query_scalar!(
        r#"SELECT host(address) AS "address!" FROM replica WHERE address << $1::text::inet"#,
        bridge.block.to_string()
    )
    .fetch_all(&mut **tx)
    .await?
    .iter()
    .map(|text| address("replica", text))
    .collect::<Result<_, _>>()?;
    if used.len() >= BRIDGE_MEMBERS as usize {
        return Err(exhausted());
    }
    // From a place that follows from the id: an address rests long before it is used again, and two transactions
    // rarely want the same.
    let mut free: Vec<Ipv4Addr> = plan
        .member_addresses(&bridge)
        .filter(|address| !used.contains(address))
        .collect();
    let start = id.uuid().as_u128() as usize % free.len().max(1);
    free.rotate_left(start);
    for address in free {
        let inserted = sqlx::query!(
            "INSERT INTO replica (id, deployment_id, instance_id, ordinal, address, restart_nonce, phase,
                                  phase_revision, phase_ms)
             VALUES ($1, $2, $3, $4, $5::text::inet, $6, 'admitting', 0, $7)
             ON CONFLICT (address) DO NOTHING",
            id.uuid(),
            deployment_id.uuid(),
            instance_id.uuid(),
            i32::try_from(ordinal).unwrap_or(i32::MAX),
            address.to_string(),
            restart_nonce,
            now_ms
        )
        .execute(&mut **tx)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(address);
        }
    }
    Err(exhausted())
}

/// Moves a replica into a phase.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn set_phase(
    tx: &mut Tx,
    id: ReplicaId,
    phase: Phase,
    started_at_ms: Option<i64>,
    now_ms: i64,
) -> Result<(), Error> {
    let moved = sqlx::query!(
        "UPDATE replica SET phase = $2, phase_ms = $3, started_at_ms = coalesce($4, started_at_ms) WHERE id = $1",
        id.uuid(),
        phase.as_str(),
        now_ms,
        started_at_ms
    )
    .execute(&mut **tx)
    .await?;
    if moved.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::not_found("replica", id))
    }
}

/// Notes the revision of the tables in which the phases of these replicas took effect.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_phase_revision(tx: &mut Tx, ids: &[ReplicaId], revision: u64) -> Result<(), Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        "UPDATE replica SET phase_revision = $2 WHERE id = ANY($1)",
        &ids,
        i64::try_from(revision).unwrap_or(i64::MAX)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes how often the platform started a replica again, and when it will next.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_tries(
    tx: &mut Tx,
    id: ReplicaId,
    tries: u32,
    next_try_ms: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE replica SET tries = $2, next_try_ms = $3 WHERE id = $1",
        id.uuid(),
        i32::try_from(tries).unwrap_or(i32::MAX),
        next_try_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a replica's row away: its address may be used again.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn delete(tx: &mut Tx, id: ReplicaId) -> Result<(), Error> {
    sqlx::query!("DELETE FROM replica WHERE id = $1", id.uuid())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
