//! The last good table on a reader's disk.
//!
//! A directory holds generations, `table.NUMBER`: each begins with a snapshot and goes on with changes, every change
//! fsynced before anybody is told that it is held. A generation is written under another name, fsynced and renamed;
//! the one before it stays, so that a snapshot that rots on the disk costs the changes since, not the table. Loading
//! takes what is whole: a torn or changed tail is cut off, an unusable generation is passed over for the one before.
//!
//! After anything unexpected (a cut tail, a failed write or fsync) nothing is appended any more: the next change
//! writes a new generation. A failed fsync says nothing about what is on the disk, and is never tried again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ferrovia_core::table::{Row, Table};

use crate::change::{Assembler, Change, Part};
use crate::error::Error;
use crate::frame;

/// Bytes of changes that may follow a snapshot before the file is compacted, beside the snapshot's own size.
const COMPACT_SLACK_BYTES: u64 = 64 << 10;

/// The open directory.
#[derive(Debug)]
pub(crate) struct TableFile {
    directory: PathBuf,
    /// The generation that is appended to; `None`: the next change writes a new one.
    open: Option<Generation>,
    /// Highest number in use.
    number: u64,
    /// The generation that was read at start, kept until a second one is written.
    loaded: Option<u64>,
}

#[derive(Debug)]
struct Generation {
    file: File,
    snapshot_bytes: u64,
    changes_bytes: u64,
}

/// What was read of one generation.
struct Loaded<R: Row> {
    table: Table<R>,
    snapshot_bytes: u64,
    good_bytes: u64,
    whole: bool,
}

impl TableFile {
    /// Opens the directory, making it when it is not there, and reads the last good table; an empty one if there is
    /// none. The texts say what was wrong with what was passed over.
    pub(crate) fn open<R: Row>(directory: &Path) -> Result<(Self, Table<R>, Vec<String>), Error> {
        fs::create_dir_all(directory).map_err(|source| at(directory, source))?;
        let numbers = generations(directory)?;
        let number = numbers.iter().copied().max().unwrap_or(0);
        let mut this = Self {
            directory: directory.to_owned(),
            open: None,
            number,
            loaded: None,
        };
        let mut troubles = Vec::new();
        for &found in &numbers {
            let path = this.path(found);
            let bytes = fs::read(&path).map_err(|source| at(&path, source))?;
            let Some(loaded) = load::<R>(&bytes) else {
                troubles.push(format!(
                    "the table file `{}` has no whole snapshot and was passed over",
                    path.display()
                ));
                continue;
            };
            this.loaded = Some(found);
            if loaded.whole && found == number {
                let file = OpenOptions::new()
                    .append(true)
                    .open(&path)
                    .map_err(|source| at(&path, source))?;
                this.open = Some(Generation {
                    file,
                    snapshot_bytes: loaded.snapshot_bytes,
                    changes_bytes: loaded.good_bytes - loaded.snapshot_bytes,
                });
            } else if !loaded.whole {
                troubles.push(format!(
                    "the table file `{}` was cut after {} of {} bytes",
                    path.display(),
                    loaded.good_bytes,
                    bytes.len()
                ));
            }
            return Ok((this, loaded.table, troubles));
        }
        Ok((this, Table::default(), troubles))
    }

    /// Makes a change durable; `after` is the table with it. When this returns, the change survives a power cut.
    pub(crate) fn record<R: Row>(&mut self, change: &Change<R>, after: &Table<R>) -> Result<(), Error> {
        let (Some(mut open), Some(_)) = (self.open.take(), change.from) else {
            return self.rewrite(after);
        };
        let bytes = encode(change)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if open.changes_bytes + length > open.snapshot_bytes + COMPACT_SLACK_BYTES {
            return self.rewrite(after);
        }
        let path = self.path(self.number);
        open.file
            .write_all(&bytes)
            .and_then(|()| open.file.sync_data())
            .map_err(|source| at(&path, source))?;
        open.changes_bytes += length;
        self.open = Some(open);
        Ok(())
    }

    fn rewrite<R: Row>(&mut self, table: &Table<R>) -> Result<(), Error> {
        let bytes = encode(&Change::snapshot(table))?;
        let next = self.number + 1;
        let path = self.path(next);
        let temporary = self.directory.join("table.new");
        let write = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()?;
            OpenOptions::new().append(true).open(&path)
        };
        let file = write().map_err(|source| at(&path, source))?;
        let before = if self.number > 0 { self.loaded } else { None };
        self.loaded = Some(next);
        self.number = next;
        self.open = Some(Generation {
            file,
            snapshot_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            changes_bytes: 0,
        });
        for old in generations(&self.directory)? {
            if old != next && Some(old) != before {
                let path = self.path(old);
                fs::remove_file(&path).map_err(|source| at(&path, source))?;
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("table.{number:010}"))
    }
}

/// Numbers of the generations in the directory, newest first.
fn generations(directory: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in fs::read_dir(directory).map_err(|source| at(directory, source))? {
        let name = entry.map_err(|source| at(directory, source))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("table."))
            .and_then(|text| text.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

fn encode<R: Row>(change: &Change<R>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for part in change.raw()?.into_parts() {
        bytes.extend_from_slice(&frame::encode(&part)?);
    }
    Ok(bytes)
}

/// The table that the whole changes at the beginning of `bytes` make; `None` without a whole snapshot.
fn load<R: Row>(bytes: &[u8]) -> Option<Loaded<R>> {
    let mut loaded: Option<Loaded<R>> = None;
    let mut parts = Assembler::<R>::default();
    let mut rest = bytes;
    while let Ok(Some((payload, after))) = frame::split(rest) {
        let Ok(change) = frame::message::<Part<R>>(payload).and_then(|part| parts.take(part)) else {
            break;
        };
        rest = after;
        let Some(change) = change else { continue };
        let good_bytes = u64::try_from(bytes.len() - rest.len()).unwrap_or(u64::MAX);
        match &mut loaded {
            None if change.from.is_none() => {
                let mut table = Table::default();
                change.apply_to(&mut table).ok()?;
                loaded = Some(Loaded {
                    table,
                    snapshot_bytes: good_bytes,
                    good_bytes,
                    whole: false,
                });
            }
            None => return None,
            Some(loaded) => {
                if change.apply_to(&mut loaded.table).is_err() {
                    break;
                }
                loaded.good_bytes = good_bytes;
            }
        }
    }
    if let Some(loaded) = &mut loaded {
        loaded.whole = usize::try_from(loaded.good_bytes) == Ok(bytes.len());
    }
    loaded
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_core::id::{InstanceId, ReplicaId};
    use ferrovia_core::table::{Draining, EdgeRow, Version};
    use proptest::prelude::*;

    use super::*;

    fn row(number: u8, until_ms: i64) -> EdgeRow {
        let uuid = |n: u8| {
            format!("0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d{n:02x}")
                .parse::<ReplicaId>()
                .unwrap()
                .uuid()
        };
        EdgeRow::Draining(Draining {
            replica_id: ReplicaId::from_uuid(uuid(number)),
            instance_id: InstanceId::from_uuid(uuid(0)),
            until_ms,
        })
    }

    fn at_revision(revision: u64) -> Version {
        Version { epoch: 1, revision }
    }

    /// Applies random upserts and deletes; the table after each.
    fn history(
        file: &mut TableFile,
        mut table: Table<EdgeRow>,
        steps: &[(u8, bool, i64)],
    ) -> Vec<Table<EdgeRow>> {
        let mut all = vec![table.clone()];
        for &(number, delete, until_ms) in steps {
            let to = at_revision(table.version.revision + 1);
            let row = row(number, until_ms);
            let (upserts, deletes) = if delete {
                (vec![], vec![row.key()])
            } else {
                (vec![row], vec![])
            };
            let change = Change {
                from: Some(table.version),
                to,
                upserts,
                deletes,
            };
            change.clone().apply_to(&mut table).unwrap();
            file.record(&change, &table).unwrap();
            all.push(table.clone());
        }
        all
    }

    fn newest(directory: &Path) -> PathBuf {
        directory.join(format!("table.{:010}", generations(directory).unwrap()[0]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cut_anywhere_the_file_gives_an_older_table_and_goes_on(
            steps in proptest::collection::vec((0u8..20, any::<bool>(), 0i64..1000), 1..40),
            cut in 0.0f64..1.0,
            flip in any::<bool>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (mut file, table, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
            let mut first = Table { version: at_revision(1), ..table };
            let snapshot = Change::snapshot(&first);
            file.record(&snapshot, &first).unwrap();
            // A second generation, so that there is one to fall back to.
            first.version = at_revision(2);
            file.record(&Change::snapshot(&first), &first).unwrap();
            let all = history(&mut file, first, &steps);
            drop(file);

            let path = newest(directory.path());
            let mut bytes = fs::read(&path).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (bytes.len() as f64 * cut) as usize;
            if flip { bytes[at] ^= 0x10; } else { bytes.truncate(at); }
            fs::write(&path, bytes).unwrap();

            let (mut file, found, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
            prop_assert!(found.version == at_revision(1) || all.contains(&found), "{found:?}");
            let later = history(&mut file, found, &[(3, false, 7), (4, false, 8)]);
            drop(file);
            let (_, again, troubles) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
            prop_assert_eq!(&again, later.last().unwrap());
            prop_assert!(troubles.is_empty(), "{:?}", troubles);
        }
    }

    #[test]
    fn many_changes_are_compacted_into_two_files_of_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, table, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
        let steps: Vec<_> = (0..2_000)
            .map(|n| (u8::try_from(n % 16).unwrap(), false, n))
            .collect();
        let all = history(&mut file, table, &steps);
        let numbers = generations(directory.path()).unwrap();
        assert_eq!(numbers.len(), 2, "{numbers:?}");
        assert!(fs::metadata(newest(directory.path())).unwrap().len() < 2 * COMPACT_SLACK_BYTES);
        let (_, found, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
        assert_eq!(&found, all.last().unwrap());
    }

    #[test]
    fn a_kill_before_the_rename_leaves_the_old_table() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, table, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
        let all = history(&mut file, table, &[(1, false, 1)]);
        fs::write(directory.path().join("table.new"), b"half").unwrap();
        let (_, found, _) = TableFile::open::<EdgeRow>(directory.path()).unwrap();
        assert_eq!(&found, all.last().unwrap());
    }
}
