//! The schema, embedded in the binary and brought up to date at start.
//!
//! Migrations only add. So a release that meets the schema of a newer one goes on working, and going back a release
//! needs nothing. Whoever migrates holds an advisory lock, so that two processes that start together do not meet. A
//! statement that cannot get its lock soon gives up and is tried again later: waiting for `ACCESS EXCLUSIVE` would
//! stop every reader that comes after it.

use std::time::{Duration, Instant};

use sqlx::migrate::MigrateError;
use sqlx::{Connection, Executor, PgConnection};

use crate::db::{Db, Options};
use crate::error::Error;

/// Number of the advisory lock: "ferrovia" in ASCII.
const LOCK: i64 = 0x6665_7272_6f76_6961;
/// Longest wait of a migration's statement for a lock, in milliseconds.
const LOCK_TIMEOUT_MS: u64 = 2_000;
/// How long another process' migration, or busy tables, are waited for, in milliseconds.
const DEADLINE_MS: u64 = 120_000;
/// Pause between two tries, in milliseconds.
const PAUSE_MS: u64 = 200;

impl Db {
    /// Brings the schema up to date; does nothing when it is.
    ///
    /// # Errors
    /// [`Error::Timeout`] when another process migrates for too long, [`Error::Migrate`].
    pub async fn migrate(&self, options: &Options) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_millis(DEADLINE_MS);
        // A connection of its own: the pool's limits are for short statements, and closing it frees the lock.
        let mut conn = options.open().await?;
        let limits = format!("SET statement_timeout = 0; SET lock_timeout = {LOCK_TIMEOUT_MS}");
        conn.execute(sqlx::AssertSqlSafe(limits)).await?;
        let mut migrator = sqlx::migrate!();
        migrator.set_locking(false).set_ignore_missing(true);
        loop {
            let result = match lock(&mut conn).await {
                Ok(()) => migrator.run_direct(None, &mut conn, false).await.map_err(sort),
                Err(error) => Err(error),
            };
            match result {
                Err(Error::Timeout(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
                }
                result => {
                    let _ = conn.close().await;
                    return result;
                }
            }
        }
    }
}

/// Takes the lock for this connection; a connection that has it may take it again.
async fn lock(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(conn)
        .await?;
    Ok(())
}

fn sort(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => match Error::from(error) {
            Error::Statement(source) => Error::Migrate(MigrateError::Execute(source)),
            error => error,
        },
        error => Error::Migrate(error),
    }
}
