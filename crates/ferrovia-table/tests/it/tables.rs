//! Readers against a server: what arrives, what is acknowledged, what survives.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferrovia_core::id::ReplicaId;
use ferrovia_core::observation::InFlight;
use ferrovia_core::table::{Audience, EdgeRow, Row, Table, Version};
use ferrovia_table::{Apply, Changed, InFlightReport, Peers, Reader, ReaderHandle, ReaderOptions};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::eventually;
use crate::rows::row;
use crate::source::{Heard, Memory};

/// Keeps what it was given; refuses while told to.
#[derive(Clone, Default)]
struct Keeper {
    table: Arc<Mutex<Table<EdgeRow>>>,
    keys: Arc<Mutex<Vec<Option<Vec<String>>>>>,
    refuse: Arc<AtomicBool>,
}

impl Keeper {
    fn table(&self) -> Table<EdgeRow> {
        self.table.lock().unwrap().clone()
    }
}

impl Apply<EdgeRow> for Keeper {
    async fn apply(&mut self, table: &Table<EdgeRow>, changed: Changed<'_>) -> Result<(), String> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err("told to refuse".to_owned());
        }
        *self.table.lock().unwrap() = table.clone();
        self.keys.lock().unwrap().push(match changed {
            Changed::All => None,
            Changed::Keys(keys) => Some(keys.to_vec()),
        });
        Ok(())
    }
}

fn options(directory: &Path, name: &str) -> ReaderOptions {
    ReaderOptions {
        directory: Some(directory.join(name)),
        socket: directory.join("tables.sock"),
        name: name.to_owned(),
        audience: Audience::Edge,
        peers: Peers::same_user(),
    }
}

fn start(
    directory: &Path,
    name: &str,
    keeper: &Keeper,
) -> (ReaderHandle, JoinHandle<(Table<EdgeRow>, Keeper)>) {
    let (reader, handle) = Reader::<EdgeRow>::open(options(directory, name)).unwrap();
    (handle, tokio::spawn(reader.run(keeper.clone())))
}

#[tokio::test]
async fn a_snapshot_and_changes_arrive_at_every_reader_and_are_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    memory.change((0..5_000).map(|n| row(n, 0)).collect(), vec![]);
    let (notifier, _server) = memory.serve(&directory.path().join("tables.sock"));
    let keepers = [Keeper::default(), Keeper::default()];
    let _readers: Vec<_> = keepers
        .iter()
        .zip(["edge", "other"])
        .map(|(keeper, name)| start(directory.path(), name, keeper))
        .collect();
    let first = memory.table().version;
    eventually("both hold the snapshot", || {
        memory.acknowledged("edge", first) && memory.acknowledged("other", first)
    })
    .await;

    let last = memory.change(vec![row(3, 9), row(9_999, 1)], vec![row(4, 0).key()]);
    notifier.changed();
    eventually("both hold the change", || {
        memory.acknowledged("edge", last) && memory.acknowledged("other", last)
    })
    .await;
    for keeper in &keepers {
        assert_eq!(keeper.table(), memory.table());
        assert_eq!(
            keeper
                .keys
                .lock()
                .unwrap()
                .last()
                .unwrap()
                .as_ref()
                .unwrap()
                .len(),
            3
        );
    }
    assert_eq!(memory.0.lock().unwrap().snapshots, 2);
}

#[tokio::test]
async fn without_control_the_last_good_table_is_there_at_once_and_only_changes_follow() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tables.sock");
    let memory = Memory::new();
    let held = memory.change((0..100).map(|n| row(n, 0)).collect(), vec![]);
    let (_, server) = memory.serve(&socket);
    let (handle, reader) = start(directory.path(), "edge", &Keeper::default());
    eventually("the table is held", || memory.acknowledged("edge", held)).await;
    server.abort();
    let _ = server.await;
    handle.stop(false);
    reader.await.unwrap();

    let keeper = Keeper::default();
    let (handle, _reader) = start(directory.path(), "edge", &keeper);
    eventually("the last good table is in use", || {
        keeper.table().rows.len() == 100
    })
    .await;
    assert!(!handle.is_connected());

    let newer = memory.change(vec![row(1, 7)], vec![]);
    let (_, _server) = memory.serve(&socket);
    eventually("the change is held", || memory.acknowledged("edge", newer)).await;
    assert_eq!(keeper.table(), memory.table());
    assert_eq!(memory.0.lock().unwrap().snapshots, 1);
}

#[tokio::test]
async fn a_reader_that_nobody_holds_goes_on_and_pauses_between_its_attempts() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tables.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let keeper = Keeper::default();
    let (handle, _reader) = start(directory.path(), "edge", &keeper);
    drop(handle);
    let start = Instant::now();
    for _ in 0..4 {
        drop(listener.accept().await.unwrap());
    }
    assert!(start.elapsed() >= Duration::from_millis(50 + 100 + 200));
    drop(listener);
    std::fs::remove_file(&socket).unwrap();

    let memory = Memory::new();
    let (notifier, _server) = memory.serve(&socket);
    for n in 0..3 {
        let version = memory.change(vec![row(n, 0)], vec![]);
        notifier.changed();
        eventually("the change is held", || memory.acknowledged("edge", version)).await;
    }
    assert_eq!(keeper.table(), memory.table());
}

#[tokio::test]
async fn a_reader_ahead_of_a_restored_database_makes_the_epoch_grow() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tables.sock");
    let memory = Memory::new();
    memory.change(vec![row(1, 0)], vec![]);
    let held = memory.change(vec![row(2, 0)], vec![]);
    let (notifier, _server) = memory.serve(&socket);
    let keeper = Keeper::default();
    let _reader = start(directory.path(), "edge", &keeper);
    eventually("the table is held", || memory.acknowledged("edge", held)).await;

    {
        let mut state = memory.0.lock().unwrap();
        state.version = Version {
            epoch: 1,
            revision: 1,
        };
        state.rows.retain(|_, (revision, _)| *revision <= 1);
    }
    notifier.changed();
    let restored = Version {
        epoch: 2,
        revision: 1,
    };
    eventually("the restored table is held", || {
        memory.acknowledged("edge", restored)
    })
    .await;
    assert!(memory.heard(|heard| *heard == Heard::Ahead("edge".to_owned(), held)));
    assert_eq!(keeper.table(), memory.table());
}

#[tokio::test]
async fn what_cannot_be_applied_is_told_not_acknowledged_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let (notifier, _server) = memory.serve(&directory.path().join("tables.sock"));
    let keeper = Keeper::default();
    let _reader = start(directory.path(), "edge", &keeper);
    eventually("the empty table is held", || {
        memory.acknowledged(
            "edge",
            Version {
                epoch: 1,
                revision: 0,
            },
        )
    })
    .await;
    keeper.refuse.store(true, Ordering::SeqCst);
    let version = memory.change(vec![row(1, 0)], vec![]);
    notifier.changed();
    eventually("the trouble is told", || {
        memory.heard(|heard| matches!(heard, Heard::Trouble(_, text) if text.contains("told to refuse")))
    })
    .await;
    assert!(!memory.acknowledged("edge", version));
    keeper.refuse.store(false, Ordering::SeqCst);
    eventually("it is applied in the end", || {
        memory.acknowledged("edge", version)
    })
    .await;
    assert_eq!(*keeper.keys.lock().unwrap().last().unwrap(), None);
}

#[tokio::test]
async fn reports_and_goodbyes_reach_the_source_and_a_second_connection_takes_the_seat() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let (_, _server) = memory.serve(&directory.path().join("tables.sock"));
    let (handle, reader) = start(directory.path(), "edge", &Keeper::default());
    let report = InFlightReport {
        version: Version {
            epoch: 1,
            revision: 0,
        },
        open: (0..12_000)
            .map(|n| InFlight {
                replica_id: ReplicaId::from_uuid(uuid::Uuid::from_u128(n)),
                open: 1,
            })
            .collect(),
    };
    handle.report(report.clone());
    eventually("the report is heard", || {
        memory.heard(|heard| *heard == Heard::InFlight("edge".to_owned(), report.clone()))
    })
    .await;

    // Another directory under the same name: a process that replaces the first.
    let other = tempfile::tempdir().unwrap();
    let (second, _) = Reader::<EdgeRow>::open(ReaderOptions {
        directory: Some(other.path().to_owned()),
        ..options(directory.path(), "edge")
    })
    .unwrap();
    let connections = |memory: &Memory| {
        memory
            .0
            .lock()
            .unwrap()
            .heard
            .iter()
            .filter(|heard| matches!(heard, Heard::Connected(..)))
            .count()
    };
    handle.stop(true);
    reader.await.unwrap();
    eventually("the goodbye is heard", || {
        memory.heard(|heard| *heard == Heard::Disconnected("edge".to_owned(), true))
    })
    .await;
    let _second = tokio::spawn(second.run(Keeper::default()));
    eventually("the second is connected", || connections(&memory) == 2).await;
}

#[tokio::test]
async fn a_later_format_is_told_and_the_last_good_table_stays() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tables.sock");
    let memory = Memory::new();
    let held = memory.change(vec![row(1, 0)], vec![]);
    let (_, server) = memory.serve(&socket);
    let keeper = Keeper::default();
    let (handle, _reader) = start(directory.path(), "edge", &keeper);
    eventually("the table is held", || memory.acknowledged("edge", held)).await;
    server.abort();
    let _ = server.await;

    // A control of a later release that knows nothing of ours.
    let listener = ferrovia_table::listen(&socket).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let payload = br#"{"format":999,"message":{"quite":"different"}}"#;
    stream
        .write_all(&u32::try_from(payload.len()).unwrap().to_le_bytes())
        .await
        .unwrap();
    stream
        .write_all(&crc32fast::hash(payload).to_le_bytes())
        .await
        .unwrap();
    stream.write_all(payload).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("format 999") {
        let mut buffer = [0; 4096];
        let n = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer)
            .await
            .unwrap();
        assert!(n > 0, "the reader gave up: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&buffer[..n]);
    }
    assert!(handle.is_connected());
    assert_eq!(keeper.table().version, held);
}

#[tokio::test]
async fn changes_under_reconnects_end_in_the_same_table() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("tables.sock");
    let memory = Memory::new();
    let keeper = Keeper::default();
    let _reader = start(directory.path(), "edge", &keeper);
    for round in 0..10 {
        let (notifier, server) = memory.serve(&socket);
        let mut version = Version::default();
        for n in 0..20u128 {
            version = memory.change(vec![row(n, round)], vec![row((n + 7) % 20, 0).key()]);
            notifier.changed();
            tokio::task::yield_now().await;
        }
        eventually("it is held", || memory.acknowledged("edge", version)).await;
        server.abort();
        let _ = server.await;
    }
    assert_eq!(keeper.table(), memory.table());
}
