//! Instances: services in environments, with their settings and their stable private address.
//!
//! The address is the instance's for as long as its row is there: names lead to it, and a client may hold it. It is
//! given under an advisory lock, since two transactions that look for the first free one would find the same.
//!
//! An instance ends with its environment, its service or its project: those are what is deleted.

use std::net::Ipv4Addr;

use ferrovia_core::id::{EnvironmentId, InstanceId, ServiceId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::settings::Settings;
use serde_json::Value;
use uuid::Uuid;

use crate::row::{address, count, from_json, stale_or_missing, to_json};
use crate::{Conn, Error, Tx};

/// Number of the advisory lock under which addresses are given: "fvaddrs" in ASCII.
const ADDRESS_LOCK: i64 = 0x66_7661_6464_7273;

/// A service in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its service.
    pub service_id: ServiceId,
    /// Its environment.
    pub environment_id: EnvironmentId,
    /// What is set for it; deployments are made with a copy.
    pub settings: Settings,
    /// Its stable private address.
    pub virtual_address: Ipv4Addr,
    /// Number of its next deployment, from 1.
    pub next_deployment_number: u32,
    /// Grows with every change.
    pub version: i64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// What a new instance is made of.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its service.
    pub service_id: ServiceId,
    /// Its environment.
    pub environment_id: EnvironmentId,
    /// What is set for it.
    pub settings: Settings,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    service_id: Uuid,
    environment_id: Uuid,
    settings: Value,
    virtual_address: String,
    next_deployment_number: i32,
    version: i64,
    created_ms: i64,
    deleted_ms: Option<i64>,
}

impl TryFrom<Row> for Instance {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            service_id,
            environment_id,
            settings,
            virtual_address,
            next_deployment_number,
            version,
            created_ms,
            deleted_ms,
        } = row;
        Ok(Self {
            id: InstanceId::from_uuid(id),
            service_id: ServiceId::from_uuid(service_id),
            environment_id: EnvironmentId::from_uuid(environment_id),
            settings: from_json("instance", settings)?,
            virtual_address: address("instance", &virtual_address)?,
            next_deployment_number: count("instance", next_deployment_number)?,
            version,
            created_ms,
            deleted_ms,
        })
    }
}

/// Makes an instance, with the first free address of the plan's range for services and with an intent that wants
/// nothing yet.
///
/// # Errors
/// [`Error::Taken`] when the service is in the environment already, [`Error::Exhausted`] when the range is used up.
pub async fn insert(tx: &mut Tx, new: &NewInstance, plan: &AddressPlan) -> Result<Instance, Error> {
    let NewInstance {
        id,
        service_id,
        environment_id,
        settings,
        created_ms,
    } = new;
    let virtual_address = free_address(tx, plan).await?;
    let instance = sqlx::query_as!(
        Row,
        r#"INSERT INTO instance (id, service_id, environment_id, settings, virtual_address, created_ms)
           VALUES ($1, $2, $3, $4, $5::text::inet, $6)
           RETURNING id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                     next_deployment_number, version, created_ms, deleted_ms"#,
        id.uuid(),
        service_id.uuid(),
        environment_id.uuid(),
        to_json("instance", settings)?,
        virtual_address.to_string(),
        created_ms
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| Error::from(error).taken_if("instance_place", "instance", service_id))?;
    sqlx::query!("INSERT INTO intent (instance_id) VALUES ($1)", id.uuid())
        .execute(&mut **tx)
        .await?;
    instance.try_into()
}

async fn free_address(tx: &mut Tx, plan: &AddressPlan) -> Result<Ipv4Addr, Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", ADDRESS_LOCK)
        .fetch_one(&mut **tx)
        .await?;
    // Not the range's own address and not its broadcast address.
    let first = u32::from(plan.services.network()) + 1;
    let last = u32::from(plan.services.broadcast()) - 1;
    // The first one if it is free, else the first gap after one that is used.
    let free = sqlx::query_scalar!(
        r#"WITH used AS (
               SELECT virtual_address - '0.0.0.0'::inet AS n FROM instance
               WHERE virtual_address - '0.0.0.0'::inet BETWEEN $1 AND $2)
           SELECT min(n) FROM (
               SELECT $1::bigint AS n WHERE NOT EXISTS (SELECT FROM used WHERE used.n = $1)
               UNION ALL
               SELECT used.n + 1 FROM used
               WHERE used.n < $2 AND NOT EXISTS (SELECT FROM used AS next WHERE next.n = used.n + 1)
           ) AS free"#,
        i64::from(first),
        i64::from(last)
    )
    .fetch_one(&mut **tx)
    .await?;
    let free = free.and_then(|n| u32::try_from(n).ok()).ok_or(Error::Exhausted {
        what: "private address",
    })?;
    Ok(Ipv4Addr::from(free))
}

/// An instance by its id, also a deleted one.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: InstanceId) -> Result<Instance, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("instance", id))
}

/// An instance by its id, also a deleted one.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: InstanceId) -> Result<Option<Instance>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                  next_deployment_number, version, created_ms, deleted_ms
           FROM instance WHERE id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Instance::try_from)
    .transpose()
}

/// An instance by its id, locked against changes until the transaction ends.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn lock(tx: &mut Tx, id: InstanceId) -> Result<Instance, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                  next_deployment_number, version, created_ms, deleted_ms
           FROM instance WHERE id = $1 FOR UPDATE"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or_else(|| Error::not_found("instance", id))?
    .try_into()
}

/// The living instance of a service in an environment.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_place(
    conn: &mut Conn,
    service: ServiceId,
    environment: EnvironmentId,
) -> Result<Option<Instance>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                  next_deployment_number, version, created_ms, deleted_ms
           FROM instance WHERE service_id = $1 AND environment_id = $2 AND deleted_ms IS NULL"#,
        service.uuid(),
        environment.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Instance::try_from)
    .transpose()
}

/// Every living instance of an environment, in the order in which they were made.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_environment(conn: &mut Conn, environment: EnvironmentId) -> Result<Vec<Instance>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                  next_deployment_number, version, created_ms, deleted_ms
           FROM instance WHERE environment_id = $1 AND deleted_ms IS NULL ORDER BY created_ms, id"#,
        environment.uuid()
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Instance::try_from)
    .collect()
}

/// Every living instance of a service, in the order in which they were made.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_service(conn: &mut Conn, service: ServiceId) -> Result<Vec<Instance>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, service_id, environment_id, settings, host(virtual_address) AS "virtual_address!",
                  next_deployment_number, version, created_ms, deleted_ms
           FROM instance WHERE service_id = $1 AND deleted_ms IS NULL ORDER BY created_ms, id"#,
        service.uuid()
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Instance::try_from)
    .collect()
}

/// Changes the settings of an instance of the given version, and gives its new version.
///
/// # Errors
/// [`Error::NotFound`] when it is not there or deleted, [`Error::Stale`] when its version is another.
pub async fn update_settings(
    tx: &mut Tx,
    id: InstanceId,
    version: i64,
    settings: &Settings,
) -> Result<i64, Error> {
    let updated = sqlx::query_scalar!(
        "UPDATE instance SET settings = $3, version = version + 1
         WHERE id = $1 AND version = $2 AND deleted_ms IS NULL RETURNING version",
        id.uuid(),
        version,
        to_json("instance", settings)?
    )
    .fetch_optional(&mut **tx)
    .await?;
    changed(tx, id, updated).await
}

/// Gives the instance's next deployment number, from 1.
///
/// # Errors
/// [`Error::NotFound`] when it is not there or deleted.
pub async fn take_deployment_number(tx: &mut Tx, id: InstanceId) -> Result<u32, Error> {
    let number = sqlx::query_scalar!(
        r#"UPDATE instance SET next_deployment_number = next_deployment_number + 1
           WHERE id = $1 AND deleted_ms IS NULL RETURNING next_deployment_number - 1 AS "number!""#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or_else(|| Error::not_found("instance", id))?;
    count("instance", number)
}

async fn changed(tx: &mut Tx, id: InstanceId, updated: Option<i64>) -> Result<i64, Error> {
    match updated {
        Some(version) => Ok(version),
        None => {
            let living = find(tx, id)
                .await?
                .is_some_and(|instance| instance.deleted_ms.is_none());
            Err(stale_or_missing("instance", id, living))
        }
    }
}

/// When an instance, its environment, its service or its project was deleted, the first of these; in milliseconds
/// since 1970.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn deleted_since(conn: &mut Conn, id: InstanceId) -> Result<Option<i64>, Error> {
    let found = sqlx::query_scalar!(
        "SELECT deleted_ms FROM instance_life WHERE instance_id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(found.flatten())
}
