//! The logs of applications: from the engine's files into segments of our own.
//!
//! The engine's own interface for logs loses and repeats lines (its `since` is inclusive, following hangs at a
//! rotation), so its files are read: [`source`] by inode and offset, [`collector`] for all containers in one thread.

mod collector;
mod entry;
mod source;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use ferrovia_core::workload::{Observed, ReplicaStatus};
use ferrovia_engine::Engine;
use ferrovia_log::Limits;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

pub use collector::{Collector, Command, Container, Drained};
pub use source::{Batch, Cursor, Line, Source};

/// Containers that were drained and not yet heard of.
const DRAINED_QUEUE: usize = 4_096;
/// Pause before the engine is asked again where a log is, in milliseconds.
const ASK_AGAIN_MS: u64 = 1_000;

/// Everything the engine has, as it was last seen.
pub type Containers = Arc<Vec<Observed>>;

/// The newest run of a container, and whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    run: Option<i64>,
    running: bool,
}

/// What the thread was told of a container.
#[derive(Debug, Clone, Copy)]
struct Known {
    state: State,
    /// The engine says where a log is only once there was a run.
    has_path: bool,
}

impl State {
    /// A container that the engine is about to start again has ended, and yet more lines come.
    const fn of(observed: &Observed) -> Self {
        Self {
            run: observed.started_at_ms,
            running: !matches!(
                observed.status,
                ReplicaStatus::Exited(_) | ReplicaStatus::Created | ReplicaStatus::Dead
            ),
        }
    }
}

/// Starts the thread, and follows the containers until it is dropped.
pub fn start(
    engine: Arc<dyn Engine>,
    logs: PathBuf,
    limits: Limits,
    containers: watch::Receiver<Option<Containers>>,
) -> std::io::Result<(impl Future<Output = ()> + Send, mpsc::Receiver<Drained>)> {
    let (told, drained) = mpsc::channel(DRAINED_QUEUE);
    let (commands, receiver) = std::sync::mpsc::channel();
    let tell = move |drained: Drained| {
        // It waits: who hears of it is never long away. At the end of the process nobody is left.
        let _ = told.blocking_send(drained);
    };
    let collector = Collector::new(logs, limits, Box::new(tell));
    std::thread::Builder::new()
        .name("logs".to_owned())
        .spawn(move || collector.run(&receiver))?;
    Ok((feed(engine, containers, commands), drained))
}

/// Tells the thread of containers that come, start, end and go.
async fn feed(
    engine: Arc<dyn Engine>,
    mut containers: watch::Receiver<Option<Containers>>,
    commands: Sender<Command>,
) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut complete = false;
    loop {
        let newest = containers.borrow_and_update().clone();
        let mut missing = false;
        if let Some(newest) = newest {
            missing = !follow(&engine, &newest, &mut known, &commands).await;
            if !missing && !complete {
                complete = true;
                let _ = commands.send(Command::Complete);
            }
        }
        tokio::select! {
            changed = containers.changed() => if changed.is_err() { return },
            () = sleep(Duration::from_millis(ASK_AGAIN_MS)), if missing => {}
        }
    }
}

/// Whether every container could be told.
async fn follow(
    engine: &Arc<dyn Engine>,
    newest: &[Observed],
    known: &mut HashMap<String, Known>,
    commands: &Sender<Command>,
) -> bool {
    let mut all = true;
    for observed in newest {
        let handle = observed.handle.clone();
        let state = State::of(observed);
        let State { run, running } = state;
        let has_path = match known.get(&handle) {
            Some(known) if known.state == state => continue,
            Some(Known { has_path: true, .. }) => {
                let _ = commands.send(Command::Run {
                    handle: handle.clone(),
                    run,
                    running,
                });
                true
            }
            _ => match engine.log_file(&handle).await {
                Ok(path) => {
                    let has_path = path.is_some();
                    let _ = commands.send(Command::Add(Container {
                        handle: handle.clone(),
                        replica: observed.replica_id,
                        instance: observed.instance_id,
                        deployment: observed.deployment_id,
                        path,
                        run,
                        running,
                    }));
                    has_path
                }
                Err(error) => {
                    tracing::warn!(
                        container = handle,
                        "the engine does not say where a log is: {error}"
                    );
                    all = false;
                    continue;
                }
            },
        };
        known.insert(handle, Known { state, has_path });
    }
    let there: HashSet<&str> = newest.iter().map(|observed| observed.handle.as_str()).collect();
    let gone: Vec<String> = known
        .keys()
        .filter(|handle| !there.contains(handle.as_str()))
        .cloned()
        .collect();
    for handle in gone {
        known.remove(&handle);
        let _ = commands.send(Command::Gone { handle });
    }
    all
}
