//! Projects: sets of services that belong together. Deleting is soft; the name is free again at once.

use ferrovia_core::id::{ProjectId, TeamId};
use ferrovia_core::name::Name;
use uuid::Uuid;

use crate::row::{name, stale_or_missing};
use crate::{Conn, Error, Tx};

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub team_id: TeamId,
    /// Its name, unique among the team's living projects.
    pub name: Name,
    /// The key that its secrets are sealed with.
    pub data_key_id: Uuid,
    /// Grows with every change.
    pub version: i64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// What a new project is made of.
#[derive(Debug, Clone)]
pub struct NewProject {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub team_id: TeamId,
    /// Its name.
    pub name: Name,
    /// The key that its secrets are sealed with; inserted before.
    pub data_key_id: Uuid,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    team_id: Uuid,
    name: String,
    data_key_id: Uuid,
    version: i64,
    created_ms: i64,
    deleted_ms: Option<i64>,
}

impl TryFrom<Row> for Project {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            team_id,
            name: text,
            data_key_id,
            version,
            created_ms,
            deleted_ms,
        } = row;
        Ok(Self {
            id: ProjectId::from_uuid(id),
            team_id: TeamId::from_uuid(team_id),
            name: name("project", &text)?,
            data_key_id,
            version,
            created_ms,
            deleted_ms,
        })
    }
}

/// Makes a project.
///
/// # Errors
/// [`Error::Taken`] when the team has a living project of this name.
pub async fn insert(tx: &mut Tx, new: &NewProject) -> Result<Project, Error> {
    let NewProject {
        id,
        team_id,
        name,
        data_key_id,
        created_ms,
    } = new;
    sqlx::query_as!(
        Row,
        "INSERT INTO project (id, team_id, name, data_key_id, created_ms) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, team_id, name, data_key_id, version, created_ms, deleted_ms",
        id.uuid(),
        team_id.uuid(),
        name.as_str(),
        data_key_id,
        created_ms
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| Error::from(error).taken_if("project_name", "project", name))?
    .try_into()
}

/// A project by its id, also a deleted one.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: ProjectId) -> Result<Project, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("project", id))
}

/// A project by its id, also a deleted one.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: ProjectId) -> Result<Option<Project>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, team_id, name, data_key_id, version, created_ms, deleted_ms FROM project WHERE id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// A living project by its name.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_name(conn: &mut Conn, team: TeamId, name: &Name) -> Result<Option<Project>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, team_id, name, data_key_id, version, created_ms, deleted_ms FROM project
         WHERE team_id = $1 AND name = $2 AND deleted_ms IS NULL",
        team.uuid(),
        name.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// Living projects of a team by name, at most `limit` of those after the name `after`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    team: TeamId,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<Project>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, team_id, name, data_key_id, version, created_ms, deleted_ms FROM project
         WHERE team_id = $1 AND deleted_ms IS NULL AND name COLLATE "C" > $2
         ORDER BY name COLLATE "C" LIMIT $3"#,
        team.uuid(),
        after.map_or("", Name::as_str),
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Project::try_from)
    .collect()
}

/// Marks a project of the given version as deleted, and gives its new version. Its instances end with it; the
/// caller makes them due.
///
/// # Errors
/// [`Error::NotFound`] when it is not there or deleted, [`Error::Stale`] when its version is another.
pub async fn delete(tx: &mut Tx, id: ProjectId, version: i64, now_ms: i64) -> Result<i64, Error> {
    let updated = sqlx::query_scalar!(
        "UPDATE project SET deleted_ms = $3, version = version + 1
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
                .is_some_and(|project| project.deleted_ms.is_none());
            Err(stale_or_missing("project", id, living))
        }
    }
}
