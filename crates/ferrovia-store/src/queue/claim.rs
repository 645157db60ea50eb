//! Claiming: who may run what now.
//!
//! Claims of one class take turns under an advisory lock, so that the count of what runs is true while it is used.
//! The lock lasts as long as a short transaction. Rows that somebody enqueues right now are skipped, not waited for.

use std::time::Duration;

use ferrovia_core::id::TeamId;
use uuid::Uuid;

use super::{Lease, millis};
use crate::row::count;
use crate::{Conn, Db, Error, Tx};

/// Leases at most `most` of the entries of `class` that are due, as long as no more than `slots` of the class run, in
/// all processes together. The team that waited longest for its turn comes first.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn claim(
    db: &Db,
    owner: &str,
    class: &str,
    slots: u32,
    most: u32,
    lease: Duration,
) -> Result<Vec<Lease>, Error> {
    let (owner, class) = (owner.to_owned(), class.to_owned());
    db.tx(move |tx| Box::pin(async move { claim_in(tx, &owner, &class, slots, most, lease).await }))
        .await
}

async fn claim_in(
    tx: &mut Tx,
    owner: &str,
    class: &str,
    slots: u32,
    most: u32,
    lease: Duration,
) -> Result<Vec<Lease>, Error> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('ferrovia work ' || $1, 0))",
        class
    )
    .fetch_one(&mut **tx)
    .await?;
    let rows = sqlx::query!(
        r#"WITH running AS MATERIALIZED (
               SELECT team_id, count(*) AS n FROM work_item
               WHERE class = $1 AND lease_until > clock_timestamp() GROUP BY team_id),
           due AS (
               SELECT kind, key, team_id, priority, due_at FROM work_item
               WHERE class = $1 AND (lease_until IS NULL AND due_at <= clock_timestamp()
                                     OR lease_until <= clock_timestamp())),
           ranked AS (
               SELECT due.kind, due.key, due.priority, due.due_at, turn.claimed_at,
                      coalesce(running.n, 0) + row_number() OVER (
                          PARTITION BY due.team_id ORDER BY due.priority DESC, due.due_at, due.kind, due.key) AS place
               FROM due
               LEFT JOIN running ON running.team_id IS NOT DISTINCT FROM due.team_id
               LEFT JOIN work_turn AS turn ON turn.class = $1 AND turn.team_id =
                   coalesce(due.team_id, '00000000-0000-0000-0000-000000000000'::uuid)),
           chosen AS (
               SELECT item.kind, item.key FROM work_item AS item JOIN ranked USING (kind, key)
               -- Looked at once more when the row is locked: it may have been changed meanwhile.
               WHERE item.class = $1 AND (item.lease_until IS NULL AND item.due_at <= clock_timestamp()
                                          OR item.lease_until <= clock_timestamp())
               ORDER BY ranked.place, ranked.claimed_at NULLS FIRST, ranked.priority DESC, ranked.due_at
               LIMIT GREATEST(0, LEAST($3, $2 - (SELECT coalesce(sum(n), 0) FROM running)))::bigint
               FOR UPDATE OF item SKIP LOCKED)
           UPDATE work_item AS item SET
               -- A lease that ran out is a failure: a key that kills its process must not do so without pause.
               attempts = item.attempts + (item.lease_until IS NOT NULL)::int,
               lease_owner = $4,
               lease_epoch = nextval('work_lease_epoch'),
               lease_until = clock_timestamp() + $5 * interval '1 millisecond',
               due_at = 'infinity'
           FROM chosen WHERE item.kind = chosen.kind AND item.key = chosen.key
           RETURNING item.kind, item.key, item.class, item.team_id, item.wanted_seq, item.attempts, item.lease_epoch"#,
        class,
        i64::from(slots) as i64,
        i64::from(most) as i64,
        owner,
        millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
    )
    .fetch_all(&mut **tx)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut teams: Vec<Uuid> = rows.iter().map(|row| row.team_id.unwrap_or_default()).collect();
    teams.sort_unstable();
    teams.dedup();
    sqlx::query!(
        "INSERT INTO work_turn (class, team_id, claimed_at)
         SELECT $1, team, clock_timestamp() FROM unnest($2::uuid[]) AS team
         ON CONFLICT (class, team_id) DO UPDATE SET claimed_at = excluded.claimed_at",
        class,
        &teams
    )
    .execute(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Lease {
                kind: row.kind,
                key: row.key,
                class: row.class,
                team: row.team_id.map(TeamId::from_uuid),
                attempts: count("work_item", row.attempts)?,
                epoch: row.lease_epoch,
                seq: row.wanted_seq,
                length: lease,
            })
        })
        .collect()
}

/// In how many milliseconds the next entry of a class is due or its lease runs out; 0 when one is due now, none when
/// there is nothing.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn next_due_ms(conn: &mut Conn, class: &str) -> Result<Option<u64>, Error> {
    let ms = sqlx::query_scalar!(
        "SELECT (extract(epoch FROM min(coalesce(lease_until, due_at)) - clock_timestamp()) * 1000)::float8
         FROM work_item WHERE class = $1",
        class
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(ms.map(|ms| ms.max(0.0).ceil() as u64))
}

/// Ends the leases of every owner but `owner`, so that their keys need not wait for the leases to run out. The caller
/// must know that none of them lives, as a control does that holds the lock of its data directory; one that lives
/// nevertheless is fenced.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn take_over(tx: &mut Tx, owner: &str) -> Result<u64, Error> {
    let ended = sqlx::query!(
        "UPDATE work_item SET lease_until = clock_timestamp()
         WHERE lease_owner <> $1 AND lease_until > clock_timestamp()",
        owner
    )
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected())
}

/// Ends the leases that `owner` has in a class for keys that it does not work on: a connection broke while they were
/// given or given back, so that nobody knows of them.
///
/// # Errors
/// [`Error::Unavailable`].
pub(super) async fn give_up(
    tx: &mut Tx,
    owner: &str,
    class: &str,
    working_on: &[(String, String)],
) -> Result<u64, Error> {
    let (kinds, keys): (Vec<String>, Vec<String>) = working_on.iter().cloned().unzip();
    let ended = sqlx::query!(
        "UPDATE work_item SET lease_until = clock_timestamp()
         WHERE lease_owner = $1 AND class = $2 AND lease_until > clock_timestamp() AND NOT EXISTS (
             SELECT FROM unnest($3::text[], $4::text[]) AS own (kind, key)
             WHERE own.kind = work_item.kind AND own.key = work_item.key)",
        owner,
        class,
        &kinds,
        &keys
    )
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected())
}
