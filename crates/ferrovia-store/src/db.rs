//! The bounded pool of connections.
//!
//! Every connection has limits from the moment it is opened, so that no statement, no wait for a lock and no
//! forgotten transaction lasts longer than what the platform's own deadlines allow.

use std::str::FromStr;
use std::time::Duration;

use ferrovia_core::secret::Secret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool, Postgres};

use crate::error::Error;
use crate::trim::Peak;

/// What a reading function takes: `&mut *db.conn().await?` and a `&mut` [`crate::Tx`] both turn into it.
pub type Conn = PgConnection;
/// A connection on loan from the pool; goes back when dropped.
pub type PooledConn = sqlx::pool::PoolConnection<Postgres>;

/// Oldest PostgreSQL that has all the schema uses (`NULLS NOT DISTINCT`).
pub const OLDEST_MAJOR: i32 = 15;
/// How long a caller waits for a free connection, in milliseconds.
pub const ACQUIRE_TIMEOUT_MS: u64 = 10_000;
/// Longest statement, in milliseconds.
pub const STATEMENT_TIMEOUT_MS: u64 = 15_000;
/// Longest wait for a lock, in milliseconds; below the statement's so that the error tells the two apart.
pub const LOCK_TIMEOUT_MS: u64 = 5_000;
/// Longest pause inside an open transaction, in milliseconds: nothing in it waits for anything but the database.
pub const IDLE_IN_TRANSACTION_TIMEOUT_MS: u64 = 10_000;
/// Longest time that a transaction's work, and its commit, may take each, in milliseconds. By this process' clock, for
/// servers that are gone without a word.
pub const TX_DEADLINE_MS: u64 = 60_000;
/// Longest time to open a connection, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// How often connections beyond the most that were in use at once since the last time are closed, in milliseconds.
pub const TRIM_MS: u64 = 15_000;
/// A connection is closed at this age, in milliseconds: a backend's caches only grow.
pub const CONNECTION_LIFETIME_MS: u64 = 1_800_000;

/// Where the database is and how much of it may be used.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://…`; may hold a password.
    pub url: Secret,
    /// Most connections of the pool.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Longest time that a transaction's work, and its commit, may take each, in milliseconds.
    pub tx_deadline_ms: u64,
    /// How often connections that are not needed are closed, in milliseconds.
    pub trim_ms: u64,
}

impl Options {
    /// Options for a database with the default bounds.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            max_connections: 8,
            application_name: "ferrovia".to_owned(),
            tx_deadline_ms: TX_DEADLINE_MS,
            trim_ms: TRIM_MS,
        }
    }

    /// The same with another name in `pg_stat_activity`.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// The same with another bound on connections.
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = max;
        self
    }

    /// A connection outside the pool, for what is not bound by the pool's limits.
    pub(crate) async fn open(&self) -> Result<PgConnection, Error> {
        let options = self.connect_options()?;
        let within = Duration::from_millis(CONNECT_TIMEOUT_MS);
        match tokio::time::timeout(within, options.connect()).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(Error::Unavailable(sqlx::Error::Io(
                std::io::ErrorKind::TimedOut.into(),
            ))),
        }
    }

    pub(crate) fn connect_options(&self) -> Result<PgConnectOptions, Error> {
        Ok(PgConnectOptions::from_str(self.url.expose())
            .map_err(Error::Refused)?
            .application_name(&self.application_name)
            // A slow statement is the caller's to report, with what it was for.
            .disable_statement_logging())
    }
}

/// The database. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) pool: PgPool,
    pub(crate) tx_deadline: Duration,
    pub(crate) peak: Peak,
    #[cfg(feature = "faults")]
    pub(crate) faults: crate::fault::Faults,
}

impl Db {
    /// Opens the pool and checks that the server answers and is new enough. Does not migrate.
    ///
    /// # Errors
    /// [`Error::Refused`] for a wrong address or user, [`Error::Unavailable`], [`Error::TooOld`].
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
            // See `trim`.
            .idle_timeout(None)
            .max_lifetime(Duration::from_millis(CONNECTION_LIFETIME_MS))
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // By statement and not in the start-up packet, which connection poolers refuse.
                    let limits = format!(
                        "SET statement_timeout = {STATEMENT_TIMEOUT_MS}; SET lock_timeout = {LOCK_TIMEOUT_MS}; \
                         SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_TIMEOUT_MS}"
                    );
                    conn.execute(sqlx::AssertSqlSafe(limits)).await.map(|_| ())
                })
            })
            .connect_lazy_with(options.connect_options()?);
        let peak = Peak::default();
        let db = Self {
            pool,
            peak,
            tx_deadline: Duration::from_millis(options.tx_deadline_ms),
            #[cfg(feature = "faults")]
            faults: crate::fault::Faults::default(),
        };
        db.check_version(options).await?;
        db.peak
            .keep_trimmed(&db.pool, Duration::from_millis(options.trim_ms));
        Ok(db)
    }

    /// A connection for reading. Writing goes through [`Db::tx`].
    ///
    /// # Errors
    /// [`Error::Busy`] when none becomes free, [`Error::Unavailable`].
    pub async fn conn(&self) -> Result<PooledConn, Error> {
        #[cfg(feature = "faults")]
        self.faults.hang_if_dead().await;
        let conn = self.pool.acquire().await?;
        self.peak.note(&self.pool);
        Ok(conn)
    }

    /// Whether the database answers now.
    ///
    /// # Errors
    /// As [`Db::conn`].
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.conn().await?).await?;
        Ok(())
    }

    /// Closes every connection once those on loan are back.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A first connection outside the pool: the pool would try again until its timeout and hide the reason.
    async fn check_version(&self, options: &Options) -> Result<(), Error> {
        let mut conn = options.open().await?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut conn)
            .await?;
        let found = version / 10_000;
        if found < OLDEST_MAJOR {
            let wanted = OLDEST_MAJOR;
            return Err(Error::TooOld { found, wanted });
        }
        Ok(())
    }
}
