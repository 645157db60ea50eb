//! The tables of edge and node, as control keeps them: rows under one head, and what readers have acknowledged.
//!
//! Whoever changes rows locks the head first ([`publish`]), so that the order of revisions is the order of commits and
//! no reader ever sees a revision before an older one. A row that is gone stays as a tombstone until every reader has
//! acknowledged that; a reader that knows less than the oldest tombstone gets a snapshot.

use std::collections::HashMap;

use ferrovia_core::cutover::TableRows;
use ferrovia_core::id::InstanceId;
use ferrovia_core::table::{Audience, Row as _, Version};
use serde_json::Value;
use uuid::Uuid;

use crate::row::to_json;
use crate::{Conn, Error, Tx};

/// What has changed since a version.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The version it leads to.
    pub head: Version,
    /// New and changed rows, as JSON texts.
    pub upserts: Vec<String>,
    /// Keys of rows that are gone.
    pub deletes: Vec<String>,
}

/// A reader as it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderRow {
    /// Its name.
    pub name: String,
    /// Which table it reads.
    pub audience: Audience,
    /// What it durably holds.
    pub version: Version,
    /// Whether it was connected when this was written.
    pub connected: bool,
    /// When it was last heard, in milliseconds since 1970.
    pub last_seen_ms: i64,
}

fn version(epoch: i64, revision: i64) -> Version {
    Version {
        epoch: u64::try_from(epoch).unwrap_or(0),
        revision: u64::try_from(revision).unwrap_or(0),
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn audience(word: &str) -> Result<Audience, Error> {
    [Audience::Edge, Audience::Node]
        .into_iter()
        .find(|audience| audience.as_str() == word)
        .ok_or_else(|| Error::corrupt("table_reader", format!("`{word}` reads no table")))
}

/// The newest version.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn head(conn: &mut Conn) -> Result<Version, Error> {
    let row = sqlx::query!("SELECT epoch, revision FROM table_head")
        .fetch_one(&mut *conn)
        .await?;
    Ok(version(row.epoch, row.revision))
}

/// A row as it stands in the tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    audience: Audience,
    key: String,
    value: Value,
}

/// The rows of an instance as they stand in the tables.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_instance(conn: &mut Conn, instance: InstanceId) -> Result<Vec<Published>, Error> {
    let rows = sqlx::query!(
        r#"SELECT audience, key, value AS "value!" FROM table_row WHERE instance_id = $1 AND value IS NOT NULL"#,
        instance.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Published {
                audience: audience(&row.audience)?,
                key: row.key,
                value: row.value,
            })
        })
        .collect()
}

/// What must change so that rows stand in the tables.
#[derive(Debug, Default)]
struct Difference {
    audiences: Vec<String>,
    keys: Vec<String>,
    values: Vec<Value>,
    gone_audiences: Vec<String>,
    gone_keys: Vec<String>,
}

fn difference(there: &[Published], rows: &TableRows) -> Result<Difference, Error> {
    let mut wanted: HashMap<(Audience, String), Value> = HashMap::new();
    for row in &rows.edge {
        wanted.insert((Audience::Edge, row.key()), to_json("table_row", row)?);
    }
    for row in &rows.node {
        wanted.insert((Audience::Node, row.key()), to_json("table_row", row)?);
    }
    let mut difference = Difference::default();
    for row in there {
        let key = (row.audience, row.key.clone());
        match wanted.get(&key) {
            Some(value) if *value == row.value => {
                wanted.remove(&key);
            }
            Some(_) => {}
            None => {
                difference.gone_audiences.push(row.audience.as_str().to_owned());
                difference.gone_keys.push(row.key.clone());
            }
        }
    }
    for ((audience, key), value) in wanted {
        difference.audiences.push(audience.as_str().to_owned());
        difference.keys.push(key);
        difference.values.push(value);
    }
    Ok(difference)
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.gone_keys.is_empty()
    }
}

/// Whether rows differ from those that stand in the tables.
///
/// # Errors
/// [`Error::Corrupt`] when a row cannot be written as JSON, which none of ours is.
pub fn differs(there: &[Published], rows: &TableRows) -> Result<bool, Error> {
    Ok(!difference(there, rows)?.is_empty())
}

/// Makes the rows of an instance those that are given, and gives the version in which they are; `None` when nothing
/// had to be changed. `there` was read in the same transaction. Call it last: everybody else who changes rows waits
/// for its end.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn publish(
    tx: &mut Tx,
    instance: InstanceId,
    there: &[Published],
    rows: &TableRows,
) -> Result<Option<Version>, Error> {
    let difference = difference(there, rows)?;
    if difference.is_empty() {
        return Ok(None);
    }
    let Difference {
        audiences,
        keys,
        values,
        gone_audiences,
        gone_keys,
    } = difference;
    let head = sqlx::query!("UPDATE table_head SET revision = revision + 1 RETURNING epoch, revision")
        .fetch_one(&mut **tx)
        .await?;
    sqlx::query!(
        "INSERT INTO table_row (audience, key, value, revision, instance_id)
         SELECT audience, key, value, $4, $5 FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS new (audience, key, value)
         ON CONFLICT (audience, key) DO UPDATE SET
             value = excluded.value, revision = excluded.revision, instance_id = excluded.instance_id",
        &audiences,
        &keys,
        &values,
        head.revision,
        instance.uuid()
    )
    .execute(&mut **tx)
    .await?;
    // Not where another instance has taken the key over.
    sqlx::query!(
        "UPDATE table_row SET value = NULL, revision = $3
         FROM unnest($1::text[], $2::text[]) AS gone (audience, key)
         WHERE table_row.audience = gone.audience AND table_row.key = gone.key AND table_row.instance_id = $4",
        &gone_audiences,
        &gone_keys,
        head.revision,
        instance.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(Some(version(head.epoch, head.revision)))
}

/// All rows of a table as JSON texts. Run it in [`crate::Db::snapshot`], so that rows and version belong together.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn snapshot(conn: &mut Conn, audience: Audience) -> Result<(Version, Vec<String>), Error> {
    let head = head(conn).await?;
    let rows = sqlx::query_scalar!(
        r#"SELECT value::text AS "value!" FROM table_row WHERE audience = $1 AND value IS NOT NULL"#,
        audience.as_str()
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok((head, rows))
}

/// What has changed in a table since a version of the present epoch; `None` when that is no longer known. Run it in
/// [`crate::Db::snapshot`].
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn changes_since(
    conn: &mut Conn,
    audience: Audience,
    since: Version,
) -> Result<Option<Changes>, Error> {
    let row = sqlx::query!("SELECT epoch, revision, pruned FROM table_head")
        .fetch_one(&mut *conn)
        .await?;
    let head = version(row.epoch, row.revision);
    if since.epoch != head.epoch || number(since.revision) < row.pruned {
        return Ok(None);
    }
    let rows = sqlx::query!(
        r#"SELECT key, value::text AS value FROM table_row WHERE audience = $1 AND revision > $2 ORDER BY revision"#,
        audience.as_str(),
        number(since.revision)
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut changes = Changes {
        head,
        upserts: Vec::new(),
        deletes: Vec::new(),
    };
    for row in rows {
        match row.value {
            Some(value) => changes.upserts.push(value),
            None => changes.deletes.push(row.key),
        }
    }
    Ok(Some(changes))
}

/// Makes the head newer than a version that a reader holds: the database was restored. Gives the new head.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn raise(tx: &mut Tx, above: Version) -> Result<Version, Error> {
    let row = sqlx::query!(
        "UPDATE table_head SET epoch = GREATEST(epoch, $1 + 1) WHERE epoch < $1 OR epoch = $1 AND revision < $2
         RETURNING epoch, revision",
        number(above.epoch),
        number(above.revision)
    )
    .fetch_optional(&mut **tx)
    .await?;
    match row {
        Some(row) => Ok(version(row.epoch, row.revision)),
        None => head(tx).await,
    }
}

/// Takes tombstones away that nobody needs any more: those up to `revision`, which every reader holds.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn prune(tx: &mut Tx, revision: u64) -> Result<u64, Error> {
    let pruned = sqlx::query!(
        "DELETE FROM table_row WHERE value IS NULL AND revision <= $1",
        number(revision)
    )
    .execute(&mut **tx)
    .await?
    .rows_affected();
    if pruned > 0 {
        sqlx::query!(
            "UPDATE table_head SET pruned = GREATEST(pruned, $1)",
            number(revision)
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(pruned)
}

/// Every reader that was heard of and did not say goodbye.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn readers(conn: &mut Conn) -> Result<Vec<ReaderRow>, Error> {
    let rows = sqlx::query!(
        "SELECT name, audience, epoch, revision, connected, last_seen_ms FROM table_reader ORDER BY name"
    )
    .fetch_all(&mut *conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ReaderRow {
                audience: audience(&row.audience)?,
                version: version(row.epoch, row.revision),
                name: row.name,
                connected: row.connected,
                last_seen_ms: row.last_seen_ms,
            })
        })
        .collect()
}

/// Notes what a reader holds and that it was heard of.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_reader(tx: &mut Tx, reader: &ReaderRow) -> Result<(), Error> {
    let ReaderRow {
        name,
        audience,
        version,
        connected,
        last_seen_ms,
    } = reader;
    sqlx::query!(
        "INSERT INTO table_reader (name, audience, epoch, revision, connected, last_seen_ms)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (name) DO UPDATE SET
             audience = excluded.audience, epoch = excluded.epoch, revision = excluded.revision,
             connected = excluded.connected, last_seen_ms = excluded.last_seen_ms",
        name,
        audience.as_str(),
        number(version.epoch),
        number(version.revision),
        connected,
        last_seen_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets a reader that is gone for good.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn delete_reader(tx: &mut Tx, name: &str) -> Result<(), Error> {
    sqlx::query!("DELETE FROM table_reader WHERE name = $1", name)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The instances that have a row in a table, for the comparison of tables with rows.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn instances(conn: &mut Conn) -> Result<Vec<InstanceId>, Error> {
    let rows: Vec<Uuid> =
        sqlx::query_scalar!("SELECT DISTINCT instance_id FROM table_row WHERE value IS NOT NULL")
            .fetch_all(&mut *conn)
            .await?;
    Ok(rows.into_iter().map(InstanceId::from_uuid).collect())
}
