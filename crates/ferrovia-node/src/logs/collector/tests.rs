//! Docker's way of writing, read by the collector over rotations, restarts and removals.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ferrovia_log::{Query, Reader};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const ROTATED: usize = 3;
const LIMITS: Limits = Limits {
    segment_bytes: 3_000,
    budget_bytes: 100_000_000,
};

/// Writes as Docker does.
struct Docker {
    path: PathBuf,
    file: File,
    next: u64,
}

impl Docker {
    fn new(directory: &Path) -> Self {
        let path = directory.join("c-json.log");
        Self {
            file: File::create(&path).unwrap(),
            path,
            next: 1,
        }
    }

    fn piece(&mut self, stream: &str, text: &str) {
        let line = serde_json::json!({ "log": text, "stream": stream, "time": "2026-01-01T00:00:00.5Z" });
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn lines(&mut self, count: u64, length: usize) {
        for _ in 0..count {
            let text = format!("{} {}\n", self.next, "x".repeat(length));
            self.next += 1;
            self.piece("stdout", &text);
        }
    }

    fn rotate(&mut self) {
        let rotated = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..ROTATED).rev() {
            let _ = std::fs::rename(rotated(number), rotated(number + 1));
        }
        std::fs::rename(&self.path, rotated(1)).unwrap();
        self.file = File::create(&self.path).unwrap();
    }
}

struct Rig {
    directory: tempfile::TempDir,
    drained: Arc<Mutex<u32>>,
}

impl Rig {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            drained: Arc::default(),
        }
    }

    fn container(&self, docker: &Docker, running: bool) -> Container {
        Container {
            handle: "c".to_owned(),
            replica: ReplicaId::from_uuid(Uuid::from_u128(1)),
            instance: InstanceId::from_uuid(Uuid::from_u128(2)),
            deployment: DeploymentId::from_uuid(Uuid::from_u128(3)),
            path: Some(docker.path.clone()),
            run: Some(1),
            running,
        }
    }

    fn collector(&self, docker: &Docker, running: bool) -> Collector {
        let drained = Arc::clone(&self.drained);
        let tell = move |_: Drained| *drained.lock().unwrap() += 1;
        let mut collector = Collector::new(self.directory.path().join("logs"), LIMITS, Box::new(tell));
        collector.command(Command::Add(self.container(docker, running)));
        collector.command(Command::Complete);
        collector
    }

    fn texts(&self) -> Vec<(String, bool)> {
        let log = place::of_instance(
            &self.directory.path().join("logs"),
            InstanceId::from_uuid(Uuid::from_u128(2)),
        );
        let query = Query {
            limit: usize::MAX,
            ..Query::default()
        };
        let lines = Reader::new(log).read(&query).unwrap();
        lines
            .into_iter()
            .map(|line| (line.text, line.continues))
            .collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let texts = self.texts();
        texts
            .iter()
            .map(|(text, _)| text.split(' ').next().unwrap().parse().unwrap_or(0))
            .collect()
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, usize),
    Rotate,
    Look,
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn each_line_once_over_rotations_and_restarts(ops in proptest::collection::vec(prop_oneof![
        4 => (0..40_u64, 0..200_usize).prop_map(|(count, length)| Op::Write(count, length)),
        1 => Just(Op::Rotate),
        3 => Just(Op::Look),
        1 => Just(Op::Restart),
    ], 1..60)) {
        let rig = Rig::new();
        let mut docker = Docker::new(rig.directory.path());
        let mut collector = rig.collector(&docker, true);
        let mut rotations = 0;
        for op in ops {
            match op {
                Op::Write(count, length) => docker.lines(count, length),
                // More would take lines away unread: that is another test.
                Op::Rotate if rotations == ROTATED => {}
                Op::Rotate => {
                    rotations += 1;
                    docker.rotate();
                }
                Op::Look => {
                    for _ in 0..=ROTATED {
                        collector.look(later());
                    }
                    rotations = 0;
                }
                Op::Restart => {
                    drop(collector);
                    collector = rig.collector(&docker, true);
                }
            }
        }
        collector.command(Command::Run { handle: "c".to_owned(), run: Some(1), running: false });
        while *rig.drained.lock().unwrap() == 0 {
            collector.look(later());
        }
        prop_assert_eq!(rig.numbers(), (1..docker.next).collect::<Vec<_>>());
    }
}

#[test]
fn lines_that_were_rotated_away_are_told() {
    let rig = Rig::new();
    let mut docker = Docker::new(rig.directory.path());
    let mut collector = rig.collector(&docker, true);
    docker.lines(2, 10);
    collector.look(later());
    drop(collector);
    for _ in 0..=ROTATED {
        docker.rotate();
        docker.lines(1, 10);
    }
    let mut collector = rig.collector(&docker, true);
    for _ in 0..=ROTATED {
        collector.look(later());
    }
    assert_eq!(rig.numbers(), [1, 2, 0, 3, 4, 5, 6]);
    assert_eq!(rig.texts()[2].0, GAP);
}

#[test]
fn pieces_are_joined_over_a_restart_and_what_never_ends_is_flushed() {
    let rig = Rig::new();
    let mut docker = Docker::new(rig.directory.path());
    let mut collector = rig.collector(&docker, true);
    let piece = "a".repeat(16 * 1024);
    docker.piece("stdout", &piece);
    docker.piece("stderr", "between\n");
    collector.look(later());
    assert_eq!(rig.texts(), [("between".to_owned(), false)]);
    drop(collector);
    let mut collector = rig.collector(&docker, true);
    docker.piece("stdout", &piece);
    docker.piece("stdout", "end\n");
    docker.piece("stderr", "no newline");
    collector.look(later());
    assert_eq!(rig.texts()[1], (format!("{piece}{piece}end"), false));
    assert_eq!(rig.texts().len(), 2);
    collector.command(Command::Run {
        handle: "c".to_owned(),
        run: Some(1),
        running: false,
    });
    collector.look(later());
    assert_eq!(rig.texts()[2], ("no newline".to_owned(), false));
    for _ in 0..6 {
        docker.piece("stdout", &piece);
    }
    collector.command(Command::Run {
        handle: "c".to_owned(),
        run: Some(1),
        running: true,
    });
    collector.look(later());
    assert_eq!(rig.texts()[3], (piece.repeat(4), true));
}

#[test]
fn a_removed_container_is_read_to_its_end_and_its_cursor_forgotten() {
    let rig = Rig::new();
    let mut docker = Docker::new(rig.directory.path());
    let mut collector = rig.collector(&docker, true);
    docker.lines(3, 10);
    collector.look(later());
    docker.lines(4, 10);
    std::fs::remove_file(&docker.path).unwrap();
    collector.command(Command::Gone {
        handle: "c".to_owned(),
    });
    assert_eq!(rig.numbers(), [1, 2, 3, 4, 5, 6, 7]);
    let log = collector.open.values().next().unwrap();
    assert_eq!(log.writer.cursors().count(), 0);
}

#[test]
fn a_run_that_ended_before_anybody_saw_it_is_read_too() {
    let rig = Rig::new();
    let mut docker = Docker::new(rig.directory.path());
    let mut collector = rig.collector(&docker, false);
    collector.look(later());
    assert_eq!(*rig.drained.lock().unwrap(), 1, "nothing was written yet");
    docker.lines(3, 10);
    collector.look(later());
    assert!(rig.numbers().is_empty(), "nobody waits for lines of what is down");
    collector.command(Command::Run {
        handle: "c".to_owned(),
        run: Some(2),
        running: false,
    });
    collector.look(later());
    assert_eq!(rig.numbers(), [1, 2, 3]);
    assert_eq!(*rig.drained.lock().unwrap(), 2);
}
