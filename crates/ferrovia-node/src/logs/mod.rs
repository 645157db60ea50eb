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
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
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
/// What the thread is told and has not yet heard; more waits where it is told.
const COMMANDS: usize = 4_096;
/// Pause before the engine is asked again where a log is, in milliseconds.
const ASK_AGAIN_MS: u64 = 1_000;

/// Everything the engine has, as it was last seen.
pub type Containers = Arc<Vec<Arc<Observed>>>;

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

/// Starts the thread, and follows the containers until it is dropped, or the thread has ended.
pub fn start(
    engine: Arc<dyn Engine>,
    logs: PathBuf,
    limits: Limits,
    containers: watch::Receiver<Option<Containers>>,
) -> std::io::Result<(impl Future<Output = ()> + Send, mpsc::Receiver<Drained>)> {
    let (told, drained) = mpsc::channel(DRAINED_QUEUE);
    let (commands, receiver) = sync_channel(COMMANDS);
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
    commands: SyncSender<Command>,
) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut complete = false;
    loop {
        let newest = containers.borrow_and_update().clone();
        let mut missing = false;
        if let Some(newest) = newest {
            let followed = async {
                let all = follow(&engine, &newest, &mut known, &commands).await?;
                complete = complete || (all && tell(&commands, Command::Complete)?);
                Ok::<bool, Ended>(all && complete)
            };
            match followed.await {
                Ok(all) => missing = !all,
                Err(Ended) => return,
            }
        }
        tokio::select! {
            changed = containers.changed() => if changed.is_err() { return },
            () = sleep(Duration::from_millis(ASK_AGAIN_MS)), if missing => {}
        }
    }
}

/// The thread has ended, which it never does.
struct Ended;

/// Whether the thread could be told: not while too much waits.
fn tell(commands: &SyncSender<Command>, command: Command) -> Result<bool, Ended> {
    match commands.try_send(command) {
        Ok(()) => Ok(true),
        Err(TrySendError::Full(_)) => Ok(false),
        Err(TrySendError::Disconnected(_)) => Err(Ended),
    }
}

/// Whether everything could be told; what could not is told the next time.
async fn follow(
    engine: &Arc<dyn Engine>,
    newest: &[Arc<Observed>],
    known: &mut HashMap<String, Known>,
    commands: &SyncSender<Command>,
) -> Result<bool, Ended> {
    let mut all = true;
    for observed in newest {
        let handle = &observed.handle;
        let state = State::of(observed);
        let State { run, running } = state;
        let (command, has_path) = match known.get(handle) {
            Some(known) if known.state == state => continue,
            Some(Known { has_path: true, .. }) => (
                Command::Run {
                    handle: handle.clone(),
                    run,
                    running,
                },
                true,
            ),
            _ => match engine.log_file(handle).await {
                Ok(path) => {
                    let has_path = path.is_some();
                    let add = Command::Add(Container {
                        handle: handle.clone(),
                        replica: observed.replica_id,
                        instance: observed.instance_id,
                        deployment: observed.deployment_id,
                        path,
                        run,
                        running,
                    });
                    (add, has_path)
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
        if tell(commands, command)? {
            known.insert(handle.clone(), Known { state, has_path });
        } else {
            all = false;
        }
    }
    let there: HashSet<&str> = newest.iter().map(|observed| observed.handle.as_str()).collect();
    let gone: Vec<String> = known
        .keys()
        .filter(|handle| !there.contains(handle.as_str()))
        .cloned()
        .collect();
    for handle in gone {
        let gone = Command::Gone {
            handle: handle.clone(),
        };
        if tell(commands, gone)? {
            known.remove(&handle);
        } else {
            all = false;
        }
    }
    Ok(all)
}
