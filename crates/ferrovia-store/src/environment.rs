//! Environments: full copies of a project's services, closed to each other.

use ferrovia_core::id::{EnvironmentId, ProjectId};
use ferrovia_core::name::Name;
use uuid::Uuid;

use crate::row::{count, name, stale_or_missing};
use crate::{Conn, Error, Tx};

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name, unique among the project's living environments.
    pub name: Name,
    /// Its number in the firewall, from 1; never given again.
    pub mark: u32,
    /// Place of the bridge that its replicas are on, from 0.
    pub bridge: u32,
    /// Grows with every change.
    pub version: i64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// What a new environment is made of.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    /// Its id.
    pub id: EnvironmentId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name.
    pub name: Name,
    /// Place of the bridge that its replicas will be on; [`members_by_bridge`] says which has room.
    pub bridge: u32,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

/// How much lives on a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeUse {
    /// Its place, from 0.
    pub bridge: u32,
    /// Living environments on it.
    pub environments: u32,
    /// Replicas on it.
    pub replicas: u32,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    mark: i32,
    bridge: i32,
    version: i64,
    created_ms: i64,
    deleted_ms: Option<i64>,
}

impl TryFrom<Row> for Environment {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            project_id,
            name: text,
            mark,
            bridge,
            version,
            created_ms,
            deleted_ms,
        } = row;
        Ok(Self {
            id: EnvironmentId::from_uuid(id),
            project_id: ProjectId::from_uuid(project_id),
            name: name("environment", &text)?,
            mark: count("environment", mark)?,
            bridge: count("environment", bridge)?,
            version,
            created_ms,
            deleted_ms,
        })
    }
}

/// Makes an environment; its mark is given by the database.
///
/// # Errors
/// [`Error::Taken`] when the project has a living environment of this name.
pub async fn insert(tx: &mut Tx, new: &NewEnvironment) -> Result<Environment, Error> {
    let NewEnvironment {
        id,
        project_id,
        name,
        bridge,
        created_ms,
    } = new;
    sqlx::query_as!(
        Row,
        "INSERT INTO environment (id, project_id, name, bridge, created_ms) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, project_id, name, mark, bridge, version, created_ms, deleted_ms",
        id.uuid(),
        project_id.uuid(),
        name.as_str(),
        i32::try_from(*bridge).unwrap_or(i32::MAX),
        created_ms
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| Error::from(error).taken_if("environment_name", "environment", name))?
    .try_into()
}

/// An environment by its id, also a deleted one.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: EnvironmentId) -> Result<Environment, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("environment", id))
}

/// An environment by its id, also a deleted one.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: EnvironmentId) -> Result<Option<Environment>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, mark, bridge, version, created_ms, deleted_ms
         FROM environment WHERE id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Environment::try_from)
    .transpose()
}

/// A living environment by its name.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_name(
    conn: &mut Conn,
    project: ProjectId,
    name: &Name,
) -> Result<Option<Environment>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, mark, bridge, version, created_ms, deleted_ms FROM environment
         WHERE project_id = $1 AND name = $2 AND deleted_ms IS NULL",
        project.uuid(),
        name.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Environment::try_from)
    .transpose()
}

/// Living environments of a project by name, at most `limit` of those after the name `after`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    project: ProjectId,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<Environment>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, project_id, name, mark, bridge, version, created_ms, deleted_ms FROM environment
         WHERE project_id = $1 AND deleted_ms IS NULL AND name COLLATE "C" > $2
         ORDER BY name COLLATE "C" LIMIT $3"#,
        project.uuid(),
        after.map_or("", Name::as_str),
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Environment::try_from)
    .collect()
}

/// How much lives on each bridge that has anything, by place: to choose one with headroom.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn members_by_bridge(conn: &mut Conn) -> Result<Vec<BridgeUse>, Error> {
    let rows = sqlx::query!(
        r#"SELECT environment.bridge,
                  count(DISTINCT environment.id) FILTER (WHERE environment.deleted_ms IS NULL)::int AS "environments!",
                  count(replica.id)::int AS "replicas!"
           FROM environment
           LEFT JOIN instance ON instance.environment_id = environment.id
           LEFT JOIN replica ON replica.instance_id = instance.id
           GROUP BY environment.bridge ORDER BY environment.bridge"#
    )
    .fetch_all(&mut *conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BridgeUse {
                bridge: count("environment", row.bridge)?,
                environments: count("environment", row.environments)?,
                replicas: count("replica", row.replicas)?,
            })
        })
        .collect()
}

/// Marks an environment of the given version as deleted, and gives its new version. Its instances end with
/// it; the caller makes them due.
///
/// # Errors
/// [`Error::NotFound`] when it is not there or deleted, [`Error::Stale`] when its version is another.
pub async fn delete(tx: &mut Tx, id: EnvironmentId, version: i64, now_ms: i64) -> Result<i64, Error> {
    let updated = sqlx::query_scalar!(
        "UPDATE environment SET deleted_ms = $3, version = version + 1
         WHERE id = $1 AND version = $2 AND deleted_ms IS NULL RETURNING version",
        id.uuid(),
        version,
        now_ms
    )
    .fetch_optional(&mut **tx)
    .await?;
    match updated {
        Some(version) => Ok(version),
        None => {
            let living = find(tx, id)
                .await?
                .is_some_and(|environment| environment.deleted_ms.is_none());
            Err(stale_or_missing("environment", id, living))
        }
    }
}
