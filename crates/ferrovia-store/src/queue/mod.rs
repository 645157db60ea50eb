//! The work queue: which keys the reconcilers must look at.
//!
//! An entry is a key, never a task with arguments: whoever claims it reads the truth anew. So entries of one key
//! coalesce, an enqueue during a run makes the key due again after it, and nothing is lost by doing work twice.
//!
//! What it guarantees, each with a test against many workers on a real PostgreSQL:
//! - a key never runs twice at once, and whoever lost its lease writes nothing more ([`Lease::fence`]);
//! - nothing that was enqueued in a committed transaction is lost, by `kill -9` neither;
//! - no more than a class' slots run at once, in all processes together;
//! - teams take turns in a class, however much one of them has enqueued;
//! - what fails is tried again later and later, and remembers that over restarts.
//!
//! Only the database's clock is asked. NOTIFY is a hint that shortens the wait; the poll alone would do.

mod claim;
mod lease;
mod runner;
mod wake;

pub use claim::{claim, next_due_ms, take_over};
pub use lease::{Lease, Outcome};
pub use runner::{Handler, Lane, POLL_MS, Runner};
pub use wake::Wake;

use ferrovia_core::id::TeamId;

use crate::{Conn, Error, Tx};

/// Channel of the notifications; the payload is the class.
pub(crate) const CHANNEL: &str = "ferrovia_work";
/// Longest error text kept with an entry, in bytes.
pub const MAX_ERROR_BYTES: usize = 2_000;
/// Pause after the first failure, in milliseconds; it doubles with every further one.
pub const FIRST_BACK_OFF_MS: u64 = 1_000;
/// Longest pause after a failure, in milliseconds.
pub const MAX_BACK_OFF_MS: u64 = 120_000;

/// Work to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Which reconciler: `instance`, `build`, …
    pub kind: String,
    /// What it shall look at; one entry per kind and key.
    pub key: String,
    /// Whose slots it takes.
    pub class: String,
    /// Whose turn it takes; none: the platform's.
    pub team: Option<TeamId>,
    /// Larger first, among the work of one team in one class.
    pub priority: i32,
    /// Not due before this many milliseconds from now.
    pub delay_ms: u64,
    /// Why it is due.
    pub cause: Cause,
}

/// Why work is due. It matters for keys that failed and wait for their next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody wants something else now: the wait after a failure ends, and failures are forgotten.
    Intent,
    /// Something happened that may matter. It does not end the wait after a failure: a reconciler's own failing steps
    /// cause events, and would otherwise run it without pause.
    Event,
}

impl Work {
    /// Work that is due now because of a changed intent, without a team, of usual priority.
    pub fn new(kind: impl Into<String>, key: impl ToString, class: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            key: key.to_string(),
            class: class.into(),
            team: None,
            priority: 0,
            delay_ms: 0,
            cause: Cause::Intent,
        }
    }

    /// The same, in a team's turn.
    #[must_use]
    pub fn team(mut self, team: TeamId) -> Self {
        self.team = Some(team);
        self
    }

    /// The same with another priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// The same, not before this many milliseconds from now.
    #[must_use]
    pub fn after_ms(mut self, delay_ms: u64) -> Self {
        self.delay_ms = delay_ms;
        self
    }

    /// The same, because of an event.
    #[must_use]
    pub fn event(mut self) -> Self {
        self.cause = Cause::Event;
        self
    }
}

/// Makes a key due when the transaction commits. The earlier time counts when it is due already.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn enqueue(tx: &mut Tx, work: &Work) -> Result<(), Error> {
    let Work {
        kind,
        key,
        class,
        team,
        priority,
        delay_ms,
        cause,
    } = work;
    sqlx::query!(
        "INSERT INTO work_item AS old (kind, key, class, team_id, priority, due_at)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 millisecond')
         ON CONFLICT (kind, key) DO UPDATE SET
             wanted_seq = old.wanted_seq + 1,
             class = excluded.class,
             team_id = excluded.team_id,
             priority = GREATEST(old.priority, excluded.priority),
             attempts = CASE WHEN $7 THEN 0 ELSE old.attempts END,
             due_at = CASE WHEN $7 OR old.attempts = 0 THEN LEAST(old.due_at, excluded.due_at) ELSE old.due_at END",
        kind,
        key,
        class,
        team.map(TeamId::uuid),
        priority,
        millis(*delay_ms),
        *cause == Cause::Intent
    )
    .execute(&mut **tx)
    .await?;
    // Sent by the server at commit, once per class and transaction.
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, class)
        .fetch_one(&mut **tx)
        .await?;
    Ok(())
}

/// How much there is of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// The class.
    pub class: String,
    /// Entries that are due and wait for a slot.
    pub waiting: u64,
    /// Entries that are leased.
    pub running: u64,
    /// Entries that failed and wait for their next try.
    pub failing: u64,
}

/// How much there is of each class that has anything.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn depths(conn: &mut Conn) -> Result<Vec<Depth>, Error> {
    let rows = sqlx::query!(
        r#"SELECT class,
                  count(*) FILTER (WHERE lease_until IS NULL AND due_at <= clock_timestamp()
                                      OR lease_until <= clock_timestamp()) AS "waiting!",
                  count(*) FILTER (WHERE lease_until > clock_timestamp()) AS "running!",
                  count(*) FILTER (WHERE lease_until IS NULL AND attempts > 0
                                         AND due_at > clock_timestamp()) AS "failing!"
           FROM work_item GROUP BY class ORDER BY class"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let number = |n: i64| u64::try_from(n).unwrap_or_default();
    let depth = rows.into_iter().map(|row| Depth {
        class: row.class,
        waiting: number(row.waiting),
        running: number(row.running),
        failing: number(row.failing),
    });
    Ok(depth.collect())
}

/// The pause after the `attempts`-th failure in a row, in milliseconds; `jitter` from 0 to 1 spreads it over half of
/// its length, so that what failed together does not come back together.
pub fn back_off_ms(attempts: u32, jitter: f64) -> u64 {
    let doubled =
        FIRST_BACK_OFF_MS.saturating_mul(1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX));
    let full = doubled.min(MAX_BACK_OFF_MS);
    full / 2 + (full as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64
}

/// Milliseconds as the driver takes them.
fn millis(ms: u64) -> f64 {
    ms as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_cap() {
        assert_eq!(back_off_ms(1, 1.0), FIRST_BACK_OFF_MS);
        assert_eq!(back_off_ms(1, 0.0), FIRST_BACK_OFF_MS / 2);
        assert_eq!(back_off_ms(3, 1.0), 4 * FIRST_BACK_OFF_MS);
        for attempts in [30, 63, 64, 65, u32::MAX] {
            assert_eq!(back_off_ms(attempts, 1.0), MAX_BACK_OFF_MS, "{attempts}");
        }
    }
}
