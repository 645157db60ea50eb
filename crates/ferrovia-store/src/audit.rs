//! Who did what: one row per action, written in the action's own transaction.

use ferrovia_core::id::TeamId;
use uuid::Uuid;

use crate::{Conn, Error, Tx};

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id (version 7: the order of ids is the order of time).
    pub id: Uuid,
    /// Whose objects it was on.
    pub team_id: TeamId,
    /// Who: `token NAME`, `root`.
    pub actor: String,
    /// What: `deployment.create`.
    pub action: String,
    /// On what: `PROJECT/ENVIRONMENT/SERVICE`, or an id.
    pub target: String,
    /// The request, as it stands in logs and answers.
    pub request_id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Writes an action down.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn insert(tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
    let Entry {
        id,
        team_id,
        actor,
        action,
        target,
        request_id,
        at_ms,
    } = entry;
    sqlx::query!(
        "INSERT INTO audit (id, team_id, actor, action, target, request_id, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        id,
        team_id.uuid(),
        actor,
        action,
        target,
        request_id,
        at_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The actions on a team's objects, newest first, at most `limit` of those before `before`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    team: TeamId,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Entry>, Error> {
    let rows = sqlx::query!(
        "SELECT id, team_id, actor, action, target, request_id, at_ms FROM audit
         WHERE team_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        team.uuid(),
        before,
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?;
    let entry = rows.into_iter().map(|row| Entry {
        id: row.id,
        team_id: TeamId::from_uuid(row.team_id),
        actor: row.actor,
        action: row.action,
        target: row.target,
        request_id: row.request_id,
        at_ms: row.at_ms,
    });
    Ok(entry.collect())
}
