//! Services: the deployable things of a project. What is per environment is in [`crate::instance`].

use ferrovia_core::id::{ProjectId, ServiceId};
use ferrovia_core::name::Name;
use uuid::Uuid;

use crate::row::{name, stale_or_missing};
use crate::{Conn, Error, Tx};

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name, unique among the project's living services.
    pub name: Name,
    /// Grows with every change.
    pub version: i64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// What a new service is made of.
#[derive(Debug, Clone)]
pub struct NewService {
    /// Its id.
    pub id: ServiceId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name.
    pub name: Name,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    version: i64,
    created_ms: i64,
    deleted_ms: Option<i64>,
}

impl TryFrom<Row> for Service {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            project_id,
            name: text,
            version,
            created_ms,
            deleted_ms,
        } = row;
        Ok(Self {
            id: ServiceId::from_uuid(id),
            project_id: ProjectId::from_uuid(project_id),
            name: name("service", &text)?,
            version,
            created_ms,
            deleted_ms,
        })
    }
}

/// Makes a service.
///
/// # Errors
/// [`Error::Taken`] when the project has a living service of this name.
pub async fn insert(tx: &mut Tx, new: &NewService) -> Result<Service, Error> {
    let NewService {
        id,
        project_id,
        name,
        created_ms,
    } = new;
    sqlx::query_as!(
        Row,
        "INSERT INTO service (id, project_id, name, created_ms) VALUES ($1, $2, $3, $4)
         RETURNING id, project_id, name, version, created_ms, deleted_ms",
        id.uuid(),
        project_id.uuid(),
        name.as_str(),
        created_ms
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| Error::from(error).taken_if("service_name", "service", name))?
    .try_into()
}

/// A service by its id, also a deleted one.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: ServiceId) -> Result<Service, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("service", id))
}

/// A service by its id, also a deleted one.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: ServiceId) -> Result<Option<Service>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, version, created_ms, deleted_ms FROM service WHERE id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Service::try_from)
    .transpose()
}

/// A living service by its name.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_name(
    conn: &mut Conn,
    project: ProjectId,
    name: &Name,
) -> Result<Option<Service>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, name, version, created_ms, deleted_ms FROM service
         WHERE project_id = $1 AND name = $2 AND deleted_ms IS NULL",
        project.uuid(),
        name.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Service::try_from)
    .transpose()
}

/// Living services of a project by name, at most `limit` of those after the name `after`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    project: ProjectId,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<Service>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, project_id, name, version, created_ms, deleted_ms FROM service
         WHERE project_id = $1 AND deleted_ms IS NULL AND name COLLATE "C" > $2
         ORDER BY name COLLATE "C" LIMIT $3"#,
        project.uuid(),
        after.map_or("", Name::as_str),
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Service::try_from)
    .collect()
}

/// Marks a service of the given version as deleted, and gives its new version. Its instances end with it;
/// the caller makes them due.
///
/// # Errors
/// [`Error::NotFound`] when it is not there or deleted, [`Error::Stale`] when its version is another.
pub async fn delete(tx: &mut Tx, id: ServiceId, version: i64, now_ms: i64) -> Result<i64, Error> {
    let updated = sqlx::query_scalar!(
        "UPDATE service SET deleted_ms = $3, version = version + 1
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
                .is_some_and(|service| service.deleted_ms.is_none());
            Err(stale_or_missing("service", id, living))
        }
    }
}
