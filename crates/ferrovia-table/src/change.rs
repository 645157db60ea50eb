//! What leads from one version of a table to another, or to a first one, whole and in parts.
//!
//! A snapshot is a change from nothing. Both travel, and lie in the file, as parts of bounded size; the last part
//! says so, and nothing takes effect before it came.

use std::collections::BTreeMap;

use ferrovia_core::table::{Delta, DeltaError, Row, Table, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;

/// A row as JSON, as control keeps it.
pub type RawRow = Box<RawValue>;

/// Bytes of rows after which a new part begins.
const PART_BYTES: usize = 256 << 10;
/// Most rows of one table: what a reader takes before it says that the other end is wrong.
const MAX_ROWS: usize = 1_000_000;

/// Leads to version `to`.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<T> {
    /// The version it applies to; `None`: it is a snapshot and applies to any.
    pub from: Option<Version>,
    /// The version it leads to.
    pub to: Version,
    /// Rows that are new or changed; of a snapshot all rows.
    pub upserts: Vec<T>,
    /// Keys of the rows that are gone; of a snapshot none.
    pub deletes: Vec<String>,
}

/// A piece of a change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Part<T> {
    from: Option<Version>,
    to: Version,
    upserts: Vec<T>,
    deletes: Vec<String>,
    last: bool,
}

/// A row as control keeps it and as it travels.
///
/// # Errors
/// [`Error::Content`] when a row does not serialise, which none of ours does.
pub fn raw<R: Row>(row: &R) -> Result<RawRow, Error> {
    serde_json::value::to_raw_value(row).map_err(Error::Content)
}

impl<R: Row> Change<R> {
    /// A change that makes any table into this one.
    pub fn snapshot(table: &Table<R>) -> Self {
        Self {
            from: None,
            to: table.version,
            upserts: table.rows.values().cloned().collect(),
            deletes: Vec::new(),
        }
    }

    /// The same with rows as JSON.
    ///
    /// # Errors
    /// [`Error::Content`] when a row does not serialise.
    pub fn raw(&self) -> Result<Change<RawRow>, Error> {
        Ok(Change {
            from: self.from,
            to: self.to,
            upserts: self.upserts.iter().map(raw).collect::<Result<_, _>>()?,
            deletes: self.deletes.clone(),
        })
    }

    /// The keys of all rows that it touches.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.upserts
            .iter()
            .map(Row::key)
            .chain(self.deletes.iter().cloned())
            .collect()
    }

    /// Brings the table to version `to`.
    pub(crate) fn apply_to(self, table: &mut Table<R>) -> Result<(), DeltaError> {
        match self.from {
            Some(from) => {
                table.apply(Delta {
                    from,
                    to: self.to,
                    upserts: self.upserts,
                    deletes: self.deletes,
                })?;
            }
            None => {
                table.rows = self
                    .upserts
                    .into_iter()
                    .map(|row| (row.key(), row))
                    .collect::<BTreeMap<_, _>>();
                table.version = self.to;
            }
        }
        Ok(())
    }
}

impl Change<RawRow> {
    /// The change in parts of bounded size, at least one.
    pub(crate) fn into_parts(self) -> Vec<Part<RawRow>> {
        let empty = || Part {
            from: self.from,
            to: self.to,
            upserts: Vec::new(),
            deletes: Vec::new(),
            last: false,
        };
        let mut parts = vec![empty()];
        let mut bytes = 0;
        let mut room = |parts: &mut Vec<Part<RawRow>>, length: usize| {
            if bytes + length > PART_BYTES && bytes > 0 {
                parts.push(empty());
                bytes = 0;
            }
            bytes += length;
        };
        for row in self.upserts {
            room(&mut parts, row.get().len());
            if let Some(part) = parts.last_mut() {
                part.upserts.push(row);
            }
        }
        for key in self.deletes {
            room(&mut parts, key.len());
            if let Some(part) = parts.last_mut() {
                part.deletes.push(key);
            }
        }
        if let Some(part) = parts.last_mut() {
            part.last = true;
        }
        parts
    }
}

/// Puts parts together.
#[derive(Debug)]
pub(crate) struct Assembler<T> {
    open: Option<Change<T>>,
}

impl<T> Default for Assembler<T> {
    fn default() -> Self {
        Self { open: None }
    }
}

impl<T> Assembler<T> {
    /// Takes the next part; the whole change after its last one.
    pub(crate) fn take(&mut self, part: Part<T>) -> Result<Option<Change<T>>, Error> {
        let change = match &mut self.open {
            None => self.open.insert(Change {
                from: part.from,
                to: part.to,
                upserts: part.upserts,
                deletes: part.deletes,
            }),
            Some(open) => {
                if (open.from, open.to) != (part.from, part.to) {
                    return Err(Error::OutOfTurn("a part of another change"));
                }
                open.upserts.extend(part.upserts);
                open.deletes.extend(part.deletes);
                open
            }
        };
        if change.upserts.len() + change.deletes.len() > MAX_ROWS {
            return Err(Error::OutOfTurn("a change with more rows than a table may have"));
        }
        Ok(if part.last { self.open.take() } else { None })
    }
}
