//! A lease: the right to work on a key, until it runs out.
//!
//! It has a number of its own, its epoch. Everything that a run writes to the database is written in a transaction
//! that first looks whether the epoch still stands ([`Lease::fence`]) and holds on to the row: so nobody else can
//! claim the key before that transaction ends, and whoever comes too late is refused by the database and not by its
//! own clock.

use std::time::Duration;

use ferrovia_core::id::TeamId;

use super::{MAX_ERROR_BYTES, back_off_ms, millis};
use crate::{Db, Error, Tx};

/// The right to work on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which reconciler.
    pub kind: String,
    /// What it shall look at.
    pub key: String,
    /// Whose slot it has.
    pub class: String,
    /// Whose turn it has; none: the platform's.
    pub team: Option<TeamId>,
    /// Failures in a row before this run, killed runs included.
    pub attempts: u32,
    pub(super) epoch: i64,
    pub(super) seq: i64,
    pub(super) length: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do; what was enqueued during the run is due now.
    Done,
    /// It went well, and must be looked at again.
    Again {
        /// In this many milliseconds, or earlier when enqueued.
        after_ms: u64,
    },
    /// It failed: tried again after a pause that grows.
    Failed {
        /// Why, for people; without secrets.
        error: String,
    },
}

impl Lease {
    /// How long it lasts from its last renewal.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Fails unless this lease still stands, and keeps everybody else from the key until the transaction ends. The
    /// first statement of every transaction of a run.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn fence(&self, tx: &mut Tx) -> Result<(), Error> {
        let standing = sqlx::query_scalar!(
            r#"SELECT lease_until > clock_timestamp() AS "standing!" FROM work_item
               WHERE kind = $1 AND key = $2 AND lease_epoch = $3 AND lease_until IS NOT NULL FOR UPDATE"#,
            self.kind,
            self.key,
            self.epoch
        )
        .fetch_optional(&mut **tx)
        .await?;
        if standing == Some(true) {
            Ok(())
        } else {
            Err(self.lost())
        }
    }

    /// Begins its length anew.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when it has run out or somebody else has the key.
    pub async fn renew(&self, db: &Db) -> Result<(), Error> {
        let lease = self.clone();
        db.tx(move |tx| {
            Box::pin(async move {
                let renewed = sqlx::query!(
                    "UPDATE work_item SET lease_until = clock_timestamp() + $4 * interval '1 millisecond'
                     WHERE kind = $1 AND key = $2 AND lease_epoch = $3 AND lease_until > clock_timestamp()",
                    lease.kind,
                    lease.key,
                    lease.epoch,
                    millis(u64::try_from(lease.length.as_millis()).unwrap_or(u64::MAX))
                )
                .execute(&mut **tx)
                .await?;
                if renewed.rows_affected() == 1 {
                    Ok(())
                } else {
                    Err(lease.lost())
                }
            })
        })
        .await
    }

    /// Gives it back, in the transaction of the run's last writes or in one of its own.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn finish(&self, tx: &mut Tx, outcome: &Outcome) -> Result<(), Error> {
        self.fence(tx).await?;
        match outcome {
            Outcome::Done => self.finish_done(tx).await,
            Outcome::Again { after_ms } => self.finish_again(tx, *after_ms).await,
            Outcome::Failed { error } => self.finish_failed(tx, error).await,
        }
    }

    async fn finish_done(&self, tx: &mut Tx) -> Result<(), Error> {
        let gone = sqlx::query!(
            "DELETE FROM work_item WHERE kind = $1 AND key = $2 AND wanted_seq = $3",
            self.kind,
            self.key,
            self.seq
        )
        .execute(&mut **tx)
        .await?;
        if gone.rows_affected() == 1 {
            return Ok(());
        }
        // Enqueued during the run; an event did not set the time if there were failures before.
        sqlx::query!(
            "UPDATE work_item SET
                 done_seq = $3, attempts = 0, last_error = NULL, lease_owner = NULL, lease_until = NULL,
                 due_at = CASE WHEN due_at = 'infinity' THEN clock_timestamp() ELSE due_at END
             WHERE kind = $1 AND key = $2",
            self.kind,
            self.key,
            self.seq
        )
        .execute(&mut **tx)
        .await?;
        self.wake(tx).await
    }

    async fn finish_again(&self, tx: &mut Tx, after_ms: u64) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE work_item SET
                 done_seq = $3, wanted_seq = GREATEST(wanted_seq, $3::bigint + 1), attempts = 0, last_error = NULL,
                 lease_owner = NULL, lease_until = NULL,
                 due_at = CASE WHEN wanted_seq > $3 AND due_at = 'infinity' THEN clock_timestamp()
                               ELSE LEAST(due_at, clock_timestamp() + $4 * interval '1 millisecond') END
             WHERE kind = $1 AND key = $2",
            self.kind,
            self.key,
            self.seq,
            millis(after_ms)
        )
        .execute(&mut **tx)
        .await?;
        self.wake(tx).await
    }

    async fn finish_failed(&self, tx: &mut Tx, error: &str) -> Result<(), Error> {
        let pause_ms = back_off_ms(self.attempts.saturating_add(1), rand::random());
        // An intent that came during the run has set the time already and forgotten the failures before; the same
        // goes for an event, but only once: from the first failure on events do not set it.
        sqlx::query!(
            "UPDATE work_item SET
                 attempts = attempts + 1, last_error = $3, lease_owner = NULL, lease_until = NULL,
                 due_at = LEAST(due_at, clock_timestamp() + $4 * interval '1 millisecond')
             WHERE kind = $1 AND key = $2",
            self.kind,
            self.key,
            &error[..error.floor_char_boundary(MAX_ERROR_BYTES)],
            millis(pause_ms)
        )
        .execute(&mut **tx)
        .await?;
        self.wake(tx).await
    }

    /// Whoever waits for this class looks again: when it is due may have changed.
    async fn wake(&self, tx: &mut Tx) -> Result<(), Error> {
        sqlx::query!("SELECT pg_notify($1, $2)", super::CHANNEL, self.class)
            .fetch_one(&mut **tx)
            .await?;
        Ok(())
    }

    pub(super) fn lost(&self) -> Error {
        Error::LeaseLost {
            kind: self.kind.clone(),
            key: self.key.clone(),
        }
    }
}
