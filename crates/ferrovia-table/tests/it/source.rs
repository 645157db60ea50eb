//! A source of tables in memory that notes what readers say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrovia_core::table::{Audience, EdgeRow, Row, Table, Version};
use ferrovia_table::change::raw;
use ferrovia_table::{Change, InFlightReport, Notifier, Peers, RawRow, Server, Source, SourceError, listen};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Connected(String, Version),
    Acknowledged(String, Version),
    InFlight(String, InFlightReport),
    Trouble(String, String),
    Disconnected(String, bool),
    Ahead(String, Version),
}

#[derive(Debug, Default)]
pub struct State {
    pub version: Version,
    pub rows: BTreeMap<String, (u64, Option<EdgeRow>)>,
    pub heard: Vec<Heard>,
    pub snapshots: u32,
}

#[derive(Debug, Clone, Default)]
pub struct Memory(pub Arc<Mutex<State>>);

impl Memory {
    pub fn new() -> Self {
        let memory = Self::default();
        memory.0.lock().unwrap().version = Version {
            epoch: 1,
            revision: 0,
        };
        memory
    }

    pub fn change(&self, upserts: Vec<EdgeRow>, deletes: Vec<String>) -> Version {
        let mut state = self.0.lock().unwrap();
        state.version.revision += 1;
        let revision = state.version.revision;
        state
            .rows
            .extend(upserts.into_iter().map(|row| (row.key(), (revision, Some(row)))));
        state
            .rows
            .extend(deletes.into_iter().map(|key| (key, (revision, None))));
        state.version
    }

    pub fn table(&self) -> Table<EdgeRow> {
        let state = self.0.lock().unwrap();
        let rows = state
            .rows
            .iter()
            .filter_map(|(key, (_, row))| Some((key.clone(), row.clone()?)))
            .collect();
        Table {
            version: state.version,
            rows,
        }
    }

    pub fn heard(&self, what: impl Fn(&Heard) -> bool) -> bool {
        self.0.lock().unwrap().heard.iter().any(what)
    }

    pub fn acknowledged(&self, reader: &str, version: Version) -> bool {
        self.heard(|heard| *heard == Heard::Acknowledged(reader.to_owned(), version))
    }

    /// Serves this source at `path` until the task is aborted.
    pub fn serve(&self, path: &Path) -> (Notifier, tokio::task::JoinHandle<()>) {
        let server = Server::new(self.clone(), Peers::same_user());
        let notifier = server.notifier();
        (notifier, tokio::spawn(server.serve(listen(path).unwrap())))
    }

    fn hear(&self, heard: Heard) -> Result<(), SourceError> {
        self.0.lock().unwrap().heard.push(heard);
        Ok(())
    }
}

impl Source for Memory {
    async fn head(&self) -> Result<Version, SourceError> {
        Ok(self.0.lock().unwrap().version)
    }

    async fn snapshot(&self, _: Audience) -> Result<(Version, Vec<RawRow>), SourceError> {
        self.0.lock().unwrap().snapshots += 1;
        let table = self.table();
        Ok((
            table.version,
            table.rows.values().map(raw).collect::<Result<_, _>>()?,
        ))
    }

    async fn changes_since(
        &self,
        _: Audience,
        since: Version,
    ) -> Result<Option<Change<RawRow>>, SourceError> {
        let state = self.0.lock().unwrap();
        let newer = || {
            state
                .rows
                .iter()
                .filter(|(_, (revision, _))| *revision > since.revision)
        };
        Ok(Some(Change {
            from: Some(since),
            to: state.version,
            upserts: newer()
                .filter_map(|(_, (_, row))| row.as_ref())
                .map(raw)
                .collect::<Result<_, _>>()?,
            deletes: newer()
                .filter(|(_, (_, row))| row.is_none())
                .map(|(key, _)| key.clone())
                .collect(),
        }))
    }

    async fn connected(&self, reader: &str, _: Audience, version: Version) -> Result<(), SourceError> {
        self.hear(Heard::Connected(reader.to_owned(), version))
    }

    async fn acknowledged(&self, reader: &str, version: Version) -> Result<(), SourceError> {
        self.hear(Heard::Acknowledged(reader.to_owned(), version))
    }

    async fn in_flight(&self, reader: &str, report: InFlightReport) -> Result<(), SourceError> {
        self.hear(Heard::InFlight(reader.to_owned(), report))
    }

    async fn trouble(&self, reader: &str, text: String) -> Result<(), SourceError> {
        self.hear(Heard::Trouble(reader.to_owned(), text))
    }

    async fn disconnected(&self, reader: &str, for_good: bool) -> Result<(), SourceError> {
        self.hear(Heard::Disconnected(reader.to_owned(), for_good))
    }

    async fn ahead(&self, reader: &str, version: Version) -> Result<(), SourceError> {
        self.0.lock().unwrap().version.epoch = version.epoch + 1;
        self.hear(Heard::Ahead(reader.to_owned(), version))
    }
}
