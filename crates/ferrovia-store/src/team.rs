//! Teams. One for now, made with the installation.

use ferrovia_core::id::TeamId;

use crate::{Conn, Error, Tx};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Its name, unique on the installation.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
}

/// Makes a team.
///
/// # Errors
/// [`Error::Taken`] when the name is.
pub async fn insert(tx: &mut Tx, team: &Team) -> Result<(), Error> {
    let Team { id, name, created_ms } = team;
    sqlx::query!(
        "INSERT INTO team (id, name, created_ms) VALUES ($1, $2, $3)",
        id.uuid(),
        name,
        created_ms
    )
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::from(error).taken_if("team_name_key", "team", name))?;
    Ok(())
}

/// The team that was made first: the only one, for now.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_first(conn: &mut Conn) -> Result<Option<Team>, Error> {
    let row = sqlx::query!("SELECT id, name, created_ms FROM team ORDER BY created_ms, id LIMIT 1")
        .fetch_optional(&mut *conn)
        .await?;
    Ok(row.map(|row| Team {
        id: TeamId::from_uuid(row.id),
        name: row.name,
        created_ms: row.created_ms,
    }))
}
