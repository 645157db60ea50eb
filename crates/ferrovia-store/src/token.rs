//! API tokens: made once, shown once, kept as digests.
//!
//! A token has 256 bits of randomness, so its digest is a plain SHA-256: a slow hash would add nothing.

use aws_lc_rs::{digest, rand};
use ferrovia_core::id::{ProjectId, TeamId, TokenId};
use ferrovia_core::permission::Scope;
use ferrovia_core::secret::Secret;
use uuid::Uuid;

use crate::{Conn, Error, Tx};

/// What a token begins with, so that people and scanners know one when they see it.
pub const PREFIX: &str = "fvt_";
/// Random bytes in a token.
const RANDOM_BYTES: usize = 32;
/// The time of last use is written at most this often, in milliseconds.
const USE_INTERVAL_MS: i64 = 60_000;

/// A token without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub team_id: TeamId,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last used, to the minute, in milliseconds since 1970.
    pub last_used_ms: Option<i64>,
    /// When it was revoked, in milliseconds since 1970.
    pub revoked_ms: Option<i64>,
}

/// What a new token is made of.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub team_id: TeamId,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    team_id: Uuid,
    name: String,
    scope: String,
    project_id: Option<Uuid>,
    created_ms: i64,
    last_used_ms: Option<i64>,
    revoked_ms: Option<i64>,
}

impl TryFrom<Row> for Token {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            team_id,
            name,
            scope,
            project_id,
            created_ms,
            last_used_ms,
            revoked_ms,
        } = row;
        let scope = match (scope.as_str(), project_id) {
            ("owner", None) => Scope::Owner,
            ("deploy", Some(project)) => Scope::Deploy {
                project_id: ProjectId::from_uuid(project),
            },
            (other, _) => return Err(Error::corrupt("token", format!("the scope `{other}` is unknown"))),
        };
        Ok(Self {
            id: TokenId::from_uuid(id),
            team_id: TeamId::from_uuid(team_id),
            name,
            scope,
            created_ms,
            last_used_ms,
            revoked_ms,
        })
    }
}

/// A new token's text. It cannot be had again.
///
/// # Errors
/// [`Error::Seal`] when the system gives no random bytes.
pub fn generate() -> Result<Secret, Error> {
    let mut random = [0; RANDOM_BYTES];
    rand::fill(&mut random).map_err(|_| crate::seal::Error::Failed)?;
    Ok(Secret::new(format!("{PREFIX}{}", hex::encode(random))))
}

/// Makes a token of this text.
///
/// # Errors
/// [`Error::Reference`] when the project of its scope is not there.
pub async fn insert(tx: &mut Tx, new: &NewToken, text: &Secret) -> Result<Token, Error> {
    let NewToken {
        id,
        team_id,
        name,
        scope,
        created_ms,
    } = new;
    let (scope, project) = match scope {
        Scope::Owner => ("owner", None),
        Scope::Deploy { project_id } => ("deploy", Some(project_id.uuid())),
    };
    sqlx::query_as!(
        Row,
        "INSERT INTO token (id, team_id, name, digest, scope, project_id, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         RETURNING id, team_id, name, scope, project_id, created_ms, last_used_ms, revoked_ms",
        id.uuid(),
        team_id.uuid(),
        name,
        digest_of(text),
        scope,
        project,
        created_ms
    )
    .fetch_one(&mut **tx)
    .await?
    .try_into()
}

/// The token of this text, unless it was revoked.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_valid(conn: &mut Conn, text: &Secret) -> Result<Option<Token>, Error> {
    // Looked up by digest: how long that takes tells nothing of other tokens.
    sqlx::query_as!(
        Row,
        "SELECT id, team_id, name, scope, project_id, created_ms, last_used_ms, revoked_ms FROM token
         WHERE digest = $1 AND revoked_ms IS NULL",
        digest_of(text)
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Token::try_from)
    .transpose()
}

/// Whether [`touch`] would write: so that most requests need no transaction for it.
pub fn is_touch_due(token: &Token, now_ms: i64) -> bool {
    token
        .last_used_ms
        .is_none_or(|last_ms| now_ms.saturating_sub(last_ms) >= USE_INTERVAL_MS)
}

/// Remembers that a token was used.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn touch(tx: &mut Tx, id: TokenId, now_ms: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE token SET last_used_ms = $2 WHERE id = $1 AND (last_used_ms IS NULL OR last_used_ms < $2)",
        id.uuid(),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The tokens of a team that were not revoked, in the order in which they were made, at most `limit` of those after
/// `after`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    team: TeamId,
    after: Option<TokenId>,
    limit: u32,
) -> Result<Vec<Token>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, team_id, name, scope, project_id, created_ms, last_used_ms, revoked_ms FROM token
         WHERE team_id = $1 AND revoked_ms IS NULL AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
        team.uuid(),
        after.map(TokenId::uuid),
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Token::try_from)
    .collect()
}

/// Revokes a token of a team.
///
/// # Errors
/// [`Error::NotFound`] when the team has no such token, or it was revoked before.
pub async fn revoke(tx: &mut Tx, team: TeamId, id: TokenId, now_ms: i64) -> Result<(), Error> {
    let revoked = sqlx::query!(
        "UPDATE token SET revoked_ms = $3 WHERE id = $1 AND team_id = $2 AND revoked_ms IS NULL",
        id.uuid(),
        team.uuid(),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    if revoked.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::not_found("token", id))
    }
}

fn digest_of(text: &Secret) -> Vec<u8> {
    digest::digest(&digest::SHA256, text.expose().as_bytes())
        .as_ref()
        .to_vec()
}
