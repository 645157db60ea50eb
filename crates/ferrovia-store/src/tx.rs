//! Transactions: the one way to write.
//!
//! Two traps are closed here. A future that is dropped while `BEGIN` is under way leaves the driver's connection in a
//! transaction that the driver does not know of; back in the pool, it swallows the writes of whoever gets it next.
//! So a transaction runs in a task of its own, which a dropped caller does not stop, and a connection whose
//! transaction did not come to its end is closed and never used again. The driver's own `begin` is banned by clippy.
//!
//! A caller that is dropped (a client that hung up) does not undo anything: its transaction goes on to its end.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Executor, PgConnection};
use tracing::Instrument;

use crate::db::{Conn, Db, PooledConn};
use crate::error::{Error, is_contention};

/// How often a transaction that lost against others is tried, the first time included.
pub const MAX_TRIES: u32 = 8;
/// Longest pause before the second try, in milliseconds; it doubles with each further one.
pub const FIRST_PAUSE_MS: u64 = 5;

/// An open transaction. Writing functions take `&mut Tx`; it turns into the `&mut Conn` of reading functions.
#[derive(Debug)]
pub struct Tx {
    conn: PooledConn,
    open: bool,
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

/// A transaction that did not come to its end (a panic, a runtime that goes away, a connection that broke) takes its
/// connection with it.
impl Drop for Tx {
    fn drop(&mut self) {
        if self.open {
            self.conn.close_on_drop();
        }
    }
}

impl Tx {
    async fn begin(conn: PooledConn, statement: &'static str) -> Result<Self, Error> {
        // Open before the statement is sent: nobody may get a connection on which it is under way.
        let mut tx = Self { conn, open: true };
        tx.conn.execute(statement).await?;
        Ok(tx)
    }

    async fn commit(mut self) -> Result<(), Error> {
        // `COMMIT` of a transaction in which a statement failed rolls back and reports success; the `SELECT` before
        // it, in the same round trip, fails in such a transaction.
        match self.conn.execute(sqlx::raw_sql("SELECT; COMMIT")).await {
            Ok(_) => {
                self.open = false;
                Ok(())
            }
            Err(error) => match Error::from(error) {
                Error::Unavailable(source) => Err(Error::CommitUnknown(source)),
                error => Err(error),
            },
        }
    }

    async fn roll_back(mut self) {
        // Without an answer the connection stays marked as open and is closed.
        self.open = self.conn.execute("ROLLBACK").await.is_err();
    }
}

impl Db {
    /// Runs `body` in a transaction and commits it when `body` gives `Ok`, else rolls it back.
    ///
    /// `body` is run again, from its start and with clones of what it captured, when the transaction lost against
    /// others (a serialisation failure or a deadlock), at most [`MAX_TRIES`] times: it must do nothing but database
    /// work. Write `db.tx(move |tx| Box::pin(async move { … })).await`; where the error type is not clear from the
    /// context, `db.tx::<_, Error>(…)`. The transaction goes on to its end when the caller is dropped.
    ///
    /// # Errors
    /// What `body` gives; [`Error::CommitUnknown`] when the connection broke during the commit; [`Error::Busy`],
    /// [`Error::Unavailable`].
    pub async fn tx<T, E>(
        &self,
        body: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Clone + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: std::error::Error + From<Error> + Send + Sync + 'static,
    {
        let db = self.clone();
        detached(async move {
            let mut pause_ms = FIRST_PAUSE_MS;
            for _ in 1..MAX_TRIES {
                match db.try_tx(body.clone()).await {
                    Err(error) if is_contention(&error) => {
                        let pause = Duration::from_millis(rand::random_range(0..=pause_ms));
                        tokio::time::sleep(pause).await;
                        pause_ms *= 2;
                    }
                    result => return result,
                }
            }
            db.try_tx(body).await
        })
        .await
    }

    /// Runs `body` on one unchanging view of all tables, without the right to write: for decisions that look at rows
    /// of several tables.
    ///
    /// # Errors
    /// What `body` gives; [`Error::Busy`], [`Error::Unavailable`].
    pub async fn snapshot<T, E>(
        &self,
        body: impl for<'t> FnOnce(&'t mut Conn) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: std::error::Error + From<Error> + Send + Sync + 'static,
    {
        let db = self.clone();
        detached(async move {
            let conn = db.conn().await?;
            let work = async {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let mut tx = Tx::begin(conn, begin).await?;
                let result = body(&mut tx).await;
                tx.roll_back().await;
                result
            };
            db.in_time(work).await.map_err(Error::Unavailable)?
        })
        .await
    }

    async fn try_tx<T, E>(
        &self,
        body: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let conn = self.conn().await?;
        let work = async {
            let mut tx = Tx::begin(conn, "BEGIN").await?;
            match body(&mut tx).await {
                Ok(value) => Ok((tx, value)),
                Err(error) => {
                    tx.roll_back().await;
                    Err(error)
                }
            }
        };
        let (tx, value) = self.in_time(work).await.map_err(Error::Unavailable)??;
        #[cfg(feature = "faults")]
        let place = self.faults.reach_commit();
        #[cfg(feature = "faults")]
        if place == crate::fault::Place::Before {
            drop(tx);
            return self.faults.hang().await;
        }
        self.in_time(tx.commit()).await.map_err(Error::CommitUnknown)??;
        #[cfg(feature = "faults")]
        if place == crate::fault::Place::After {
            return self.faults.hang().await;
        }
        Ok(value)
    }

    /// The server has limits of its own, but a server that is gone without a word enforces none. What is dropped here
    /// takes its connection with it.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, sqlx::Error> {
        let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(self.tx_deadline, work).await.map_err(late)
    }
}

/// Runs `future` in a task of its own, so that it comes to its end whatever becomes of the caller.
async fn detached<T, E>(future: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::spawn(future.in_current_span()).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Ending.into()),
        },
    }
}
