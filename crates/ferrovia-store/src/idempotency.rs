//! What was answered to a request with an idempotency key, so that a repeat gets the same answer and does nothing.
//!
//! [`begin`], the action and [`finish`] are one transaction: a repeat that comes while the first is under way waits in
//! [`begin`] for its end, and finds either its answer or nothing.

use ferrovia_core::id::TokenId;
use serde_json::Value;

use crate::{Error, Tx};

/// A key is forgotten after this time, in milliseconds: a day.
pub const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What a key is to this request.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// New: do it, then [`finish`].
    New,
    /// The same request was answered: answer the same.
    Answered {
        /// The answer's status, as it was given to [`finish`].
        status: u16,
        /// The answer's body.
        body: Value,
    },
    /// The key was used for another request.
    Other,
}

/// Takes the key for a request; `request_digest` tells two requests apart.
///
/// # Errors
/// [`Error::Timeout`] when the first request with this key takes too long.
pub async fn begin(
    tx: &mut Tx,
    token: TokenId,
    key: &str,
    request_digest: &[u8],
    now_ms: i64,
) -> Result<Begun, Error> {
    let inserted = sqlx::query!(
        "INSERT INTO idempotency AS old (token_id, key, request_digest, created_ms) VALUES ($1, $2, $3, $4)
         ON CONFLICT (token_id, key) DO UPDATE SET
             request_digest = excluded.request_digest, created_ms = excluded.created_ms, status = NULL, body = NULL
             WHERE old.created_ms < $4 - $5::bigint",
        token.uuid(),
        key,
        request_digest,
        now_ms,
        KEPT_MS
    )
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Begun::New);
    }
    let row = sqlx::query!(
        "SELECT request_digest, status, body FROM idempotency WHERE token_id = $1 AND key = $2",
        token.uuid(),
        key
    )
    .fetch_one(&mut **tx)
    .await?;
    if row.request_digest != request_digest {
        return Ok(Begun::Other);
    }
    let status = row.status.and_then(|status| u16::try_from(status).ok());
    match (status, row.body) {
        (Some(status), Some(body)) => Ok(Begun::Answered { status, body }),
        _ => Err(Error::corrupt(
            "idempotency",
            "a request was committed without its answer",
        )),
    }
}

/// Keeps the answer. In the transaction of [`begin`].
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn finish(tx: &mut Tx, token: TokenId, key: &str, status: u16, body: &Value) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE idempotency SET status = $3, body = $4 WHERE token_id = $1 AND key = $2",
        token.uuid(),
        key,
        i32::from(status),
        body
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets keys past their time, at most `limit`; gives how many it were.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn forget_old(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "DELETE FROM idempotency WHERE (token_id, key) IN (
             SELECT token_id, key FROM idempotency WHERE created_ms < $1 LIMIT $2)",
        now_ms.saturating_sub(KEPT_MS),
        i64::from(limit)
    )
    .execute(&mut **tx)
    .await?;
    Ok(gone.rows_affected())
}
