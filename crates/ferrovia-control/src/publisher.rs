//! The tables' way to edges and nodes, and their words' way back.
//!
//! Rows are written by the cut-over, in the transaction of the phase that they follow from; here they are only read.
//! What a reader acknowledges counts at once (it rings whoever waits for it) and is written down a little later, for
//! the time after a restart: until a reader is back after that, it counts with what was written, which is never more
//! than what it holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferrovia_core::cutover::{InFlightReport, Reader};
use ferrovia_core::table::{Audience, Version};
use ferrovia_store::table::{self, ReaderRow};
use ferrovia_store::{Clock, Db, Error};
use ferrovia_table::{Change, RawRow, Source, SourceError};

use tokio::sync::Notify;

use crate::live::Live;

/// Acknowledgements are written down together, this long after the first of them, in milliseconds.
const KEEP_DELAY_MS: u64 = 500;

/// PostgreSQL as the source of the tables.
#[derive(Debug, Clone)]
pub struct Publisher {
    db: Db,
    clock: Clock,
    live: Arc<Live>,
    unkept: Arc<Unkept>,
}

/// Readers whose last acknowledgement is not yet written down.
#[derive(Debug, Default)]
struct Unkept {
    readers: Mutex<BTreeMap<String, Reader>>,
    some: Notify,
}

impl Publisher {
    /// Reads what is known of readers. None of them is connected yet; those that were when the control before this one
    /// ended may have been until a moment ago, so that they count as seen now.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn open(db: Db, clock: Clock, live: Arc<Live>) -> Result<Self, Error> {
        let mut conn = db.conn().await?;
        live.set_epoch(table::head(&mut conn).await?.epoch);
        for row in table::readers(&mut conn).await? {
            live.set_reader(Reader {
                name: row.name,
                audience: row.audience,
                version: row.version,
                connected: false,
                last_seen_ms: if row.connected {
                    clock.now_ms()
                } else {
                    row.last_seen_ms
                },
                in_flight: None,
            });
        }
        drop(conn);
        Ok(Self {
            db,
            clock,
            live,
            unkept: Arc::default(),
        })
    }

    /// Writes acknowledgements down until it is dropped.
    pub async fn keep_acknowledgements(self) {
        loop {
            self.unkept.some.notified().await;
            tokio::time::sleep(Duration::from_millis(KEEP_DELAY_MS)).await;
            let unkept = std::mem::take(&mut *self.unkept.lock());
            for reader in unkept.into_values() {
                if let Err(error) = self.keep(reader).await {
                    // The next one of this reader says more.
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "an acknowledgement was not written down"
                    );
                }
            }
        }
    }

    async fn keep(&self, reader: Reader) -> Result<(), Error> {
        self.unkept.lock().remove(&reader.name);
        let row = ReaderRow {
            name: reader.name,
            audience: reader.audience,
            version: reader.version,
            connected: reader.connected,
            last_seen_ms: reader.last_seen_ms,
        };
        self.db
            .tx(move |tx| Box::pin(async move { table::set_reader(tx, &row).await }))
            .await
    }
}

impl Unkept {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raw(text: String) -> Result<RawRow, SourceError> {
    Ok(serde_json::value::RawValue::from_string(text)?)
}

impl Source for Publisher {
    async fn head(&self) -> Result<Version, SourceError> {
        Ok(table::head(&mut *self.db.conn().await?).await?)
    }

    async fn snapshot(&self, audience: Audience) -> Result<(Version, Vec<RawRow>), SourceError> {
        let (version, rows) = self
            .db
            .snapshot::<_, Error>(move |conn| Box::pin(table::snapshot(conn, audience)))
            .await?;
        Ok((version, rows.into_iter().map(raw).collect::<Result<_, _>>()?))
    }

    async fn changes_since(
        &self,
        audience: Audience,
        since: Version,
    ) -> Result<Option<Change<RawRow>>, SourceError> {
        let changes = self
            .db
            .snapshot::<_, Error>(move |conn| Box::pin(table::changes_since(conn, audience, since)))
            .await?;
        let Some(changes) = changes else {
            return Ok(None);
        };
        Ok(Some(Change {
            from: Some(since),
            to: changes.head,
            upserts: changes.upserts.into_iter().map(raw).collect::<Result<_, _>>()?,
            deletes: changes.deletes,
        }))
    }

    async fn connected(&self, reader: &str, audience: Audience, version: Version) -> Result<(), SourceError> {
        // What is on its disk is not yet what it serves from: only its acknowledgement, which follows at once, says so.
        let known = self.live.reader(reader).map(|known| known.version);
        let reader = Reader {
            name: reader.to_owned(),
            audience,
            version: known.map_or_else(Version::default, |known| known.min(version)),
            connected: true,
            last_seen_ms: self.clock.now_ms(),
            in_flight: None,
        };
        // Written first: a reader that counted as gone must count again before anybody acts without it.
        self.keep(reader.clone()).await?;
        self.live.set_reader(reader);
        Ok(())
    }

    async fn acknowledged(&self, reader: &str, version: Version) -> Result<(), SourceError> {
        if let Some(reader) = self.live.acknowledge(reader, version, self.clock.now_ms()) {
            self.unkept.lock().insert(reader.name.clone(), reader);
            self.unkept.some.notify_one();
        }
        Ok(())
    }

    async fn in_flight(
        &self,
        reader: &str,
        report: ferrovia_table::InFlightReport,
    ) -> Result<(), SourceError> {
        let ferrovia_table::InFlightReport { version, open } = report;
        let open = open
            .into_iter()
            .map(|flight| (flight.replica_id, flight.open))
            .collect();
        let report = InFlightReport { version, open };
        self.live.report(reader, report, self.clock.now_ms());
        Ok(())
    }

    async fn trouble(&self, reader: &str, text: String) -> Result<(), SourceError> {
        tracing::warn!(reader, "a table reader is in trouble: {text}");
        self.live.set_trouble(reader, text);
        Ok(())
    }

    async fn disconnected(&self, reader: &str, for_good: bool) -> Result<(), SourceError> {
        if for_good {
            let name = reader.to_owned();
            self.unkept.lock().remove(reader);
            self.db
                .tx::<_, Error>(move |tx| Box::pin(async move { table::delete_reader(tx, &name).await }))
                .await?;
            self.live.remove_reader(reader);
        } else if let Some(reader) = self.live.reader(reader) {
            let reader = Reader {
                connected: false,
                last_seen_ms: self.clock.now_ms(),
                in_flight: None,
                ..reader
            };
            self.live.set_reader(reader.clone());
            self.keep(reader).await?;
        }
        Ok(())
    }

    async fn ahead(&self, reader: &str, version: Version) -> Result<(), SourceError> {
        tracing::warn!(reader, held = ?version, "a reader is ahead of the database, which was restored: the epoch grows");
        let head = self
            .db
            .tx::<_, Error>(move |tx| Box::pin(async move { table::raise(tx, version).await }))
            .await?;
        self.live.set_epoch(head.epoch);
        Ok(())
    }
}
