//! `ferroviad stop`: ends everything of this data directory, in the order in which nothing is started again behind us.
//!
//! Every part may be dead already, and whatever cannot be ended does not keep the rest alive: each failure is told, and
//! a second run tries again.
//!
//! **What goes**: `serve`, control, every running replica, edge, node, the fake engine, the private PostgreSQL; and of
//! builds, also when control was killed before: BuildKit and its steps with their control group, secrets, unpacked
//! sources, the network with its bridge and the rules that let it out; and the sockets, so that nobody takes one for an
//! answer.
//!
//! **What stays**: data, logs, images, and stopped replicas, which the next `serve` starts again, but for those with the
//! restart policy `never`: their stop is not told from an end of their own, which is their last. With them stay the
//! networks of the engine, since replicas keep their addresses over the stop, and `node`'s firewall tables, which only
//! close: whoever starts such a container by hand must not find it open to every other one.

mod failures;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ferrovia_build::platform::Leftovers;
use ferrovia_core::workload::{EngineRestart, Observed, ReplicaStatus};
use ferrovia_engine::{Engine, Scope};

use self::failures::Failures;
use crate::command::Failure;
use crate::config::{Config, EngineKind, Paths};
use crate::control::builds;
use crate::engine;
use crate::process::watch::Watched;
use crate::process::{Unit, lock, supervisor};
use crate::serve::database;

/// How long `serve` may take to end, in milliseconds: it gives control its own 10 s.
const SERVE_GRACE_MS: u64 = 15_000;
/// Time between SIGTERM and SIGKILL of a replica, in milliseconds.
const REPLICA_GRACE_MS: u32 = 10_000;
/// Replicas that are stopped at the same time.
const STOPS_AT_ONCE: usize = 16;

/// Ends everything, and says so line by line.
///
/// # Errors
/// Everything that could not be ended; what follows it is ended all the same.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut failures = Failures::default();
    match end_serve(&config).await {
        Ok(true) => eprintln!("stopped  serve"),
        Ok(false) => {}
        Err(error) => failures.add("`serve`", &error),
    }
    end(Unit::Control, &config, &mut failures).await;
    stop_applications(&config, &mut failures).await;
    for unit in [Unit::Edge, Unit::Node, Unit::FakeEngine] {
        end(unit, &config, &mut failures).await;
    }
    // A replaced one answers what it had in hand for minutes.
    match supervisor::end_draining(&config).await {
        Ok(0) => {}
        Ok(count) => eprintln!("stopped  {count} replaced edge(s)"),
        Err(error) => failures.add("a replaced edge", &error),
    }
    if config.engine == EngineKind::Docker {
        // After node, which answers names on their bridge.
        end_builds(&builds::leftovers(&config), &mut failures).await;
    }
    if config.database.is_private() {
        match ferrovia_store::embedded::stop(&database::place(&config)).await {
            Ok(true) => eprintln!("stopped  PostgreSQL"),
            Ok(false) => {}
            Err(error) => failures.add("PostgreSQL", &error),
        }
    }
    if failures.is_empty() {
        // Of what still lives they are the way in.
        remove_sockets(&config.paths, &mut failures);
    }
    failures.into_result()
}

async fn end_serve(config: &Config) -> io::Result<bool> {
    let Some(living) = lock::find_living(&config.paths.run, "serve")? else {
        return Ok(false);
    };
    Watched::new(living.pidfd)?
        .end(Duration::from_millis(SERVE_GRACE_MS))
        .await?;
    Ok(true)
}

async fn end(unit: Unit, config: &Config, failures: &mut Failures) {
    match supervisor::end(unit, config).await {
        Ok(true) => eprintln!("stopped  {unit}"),
        Ok(false) => {}
        Err(error) => failures.add(&format!("`{unit}`"), &error),
    }
}

async fn end_builds(leftovers: &Leftovers, failures: &mut Failures) {
    if !leftovers.exist() {
        return;
    }
    match leftovers.remove().await {
        Ok(()) => eprintln!("removed  BuildKit and the network of builds"),
        Err(errors) => {
            for error in errors {
                failures.add("what builds left", &error);
            }
        }
    }
}

async fn stop_applications(config: &Config, failures: &mut Failures) {
    match has_no_engine(config) {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => return failures.add("the applications", &error),
    }
    // Without an installation nothing was ever started.
    let engine = match engine::open_existing(config) {
        Ok(Some(engine)) => engine,
        Ok(None) => return,
        Err(error) => return failures.add("the applications", error.as_ref()),
    };
    let mut replicas = match engine.observe(Scope::All).await {
        Ok(replicas) => replicas,
        Err(error) => return failures.add("the applications", &error),
    };
    replicas.retain(|replica| may_run(&replica.status));
    let engine = engine.as_ref();
    let stopped = failures::each(replicas, STOPS_AT_ONCE, failures, |replica| async move {
        stop_replica(engine, &replica)
            .await
            .map_err(|error| (format!("the replica `{}`", replica.name), error))
    })
    .await;
    if stopped > 0 {
        eprintln!("stopped  {stopped} replica(s)");
    }
}

/// Whether the engine is one whose replicas end with it, and it ended. Docker's go on without it.
fn has_no_engine(config: &Config) -> io::Result<bool> {
    let unit = Unit::FakeEngine;
    Ok(config.engine == EngineKind::Fake
        && lock::find_living(&unit.lock_directory(&config.paths), unit.as_str())?.is_none())
}

/// Whether a replica of this status runs, or will run again by itself.
const fn may_run(status: &ReplicaStatus) -> bool {
    matches!(
        status,
        ReplicaStatus::Running | ReplicaStatus::Restarting | ReplicaStatus::Paused
    )
}

async fn stop_replica(engine: &dyn Engine, replica: &Observed) -> Result<(), ferrovia_engine::Error> {
    // One that ended although the engine would start it again counts as given up, and stays down. These shall come back
    // with the next `serve`.
    let kept_down = engine.set_restart(&replica.handle, EngineRestart::No).await;
    engine.stop(&replica.handle, REPLICA_GRACE_MS).await?;
    match kept_down {
        // It went while we looked: what is wanted.
        Err(ferrovia_engine::Error::Gone(_)) => Ok(()),
        other => other,
    }
}

fn remove_sockets(paths: &Paths, failures: &mut Failures) {
    for socket in sockets(paths) {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                failures.add(&format!("`{}`", socket.display()), &error);
            }
            _ => {}
        }
    }
}

fn sockets(paths: &Paths) -> [PathBuf; 6] {
    [
        paths.api_socket(),
        paths.tables_socket(),
        paths.node_socket(),
        paths.edge_socket(),
        paths.serve_socket(),
        paths.fake_socket(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_never_started_is_stopped_at_once_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let config = || {
            Config::load(crate::config::Flags {
                data_dir: Some(directory.path().join("data")),
                run_dir: Some(directory.path().join("run")),
                ..crate::config::Flags::default()
            })
            .unwrap()
        };
        run(config()).await.unwrap();
        std::fs::create_dir_all(directory.path().join("run")).unwrap();
        let socket = config().paths.api_socket();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        run(config()).await.unwrap();
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_told_and_keeps_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        crate::installation::ensure(&data).unwrap();
        let config = |engine| {
            Config::load(crate::config::Flags {
                data_dir: Some(data.clone()),
                run_dir: Some(directory.path().join("run")),
                engine: Some(engine),
                docker_host: Some(format!("unix://{}/nobody.sock", directory.path().display())),
                ..crate::config::Flags::default()
            })
            .unwrap()
        };
        let error = run(config(EngineKind::Docker)).await.unwrap_err().to_string();
        assert!(error.contains("the applications could not be ended"), "{error}");
        // The fake one takes its replicas with it.
        run(config(EngineKind::Fake)).await.unwrap();
    }
}
