//! `ferroviad stop`: ends everything of this data directory, in the order in which nothing is started again behind us.

use std::time::Duration;

use ferrovia_core::workload::{EngineRestart, ReplicaStatus};
use ferrovia_engine::Scope;

use crate::command::Failure;
use crate::config::Config;
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

/// Ends `serve`, control, the applications, edge, node, and the private PostgreSQL; says so line by line.
///
/// # Errors
/// When something could not be ended; what follows it is ended all the same.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut failures = Vec::new();
    if let Some(living) = lock::find_living(&config.paths.run, "serve")? {
        Watched::new(living.pidfd)?
            .end(Duration::from_millis(SERVE_GRACE_MS))
            .await?;
        eprintln!("stopped  serve");
    }
    end(Unit::Control, &config, &mut failures).await;
    match stop_applications(&config).await {
        Ok(0) => {}
        Ok(count) => eprintln!("stopped  {count} replica(s)"),
        Err(error) => failures.push(format!("the applications could not be stopped: {error}")),
    }
    for unit in [Unit::Edge, Unit::Node, Unit::FakeEngine] {
        end(unit, &config, &mut failures).await;
    }
    if config.database_url.is_none() {
        match ferrovia_store::embedded::stop(&database::place(&config)).await {
            Ok(true) => eprintln!("stopped  PostgreSQL"),
            Ok(false) => {}
            Err(error) => failures.push(format!("PostgreSQL could not be stopped: {error}")),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("; ").into())
    }
}

async fn end(unit: Unit, config: &Config, failures: &mut Vec<String>) {
    match supervisor::end(unit, config).await {
        Ok(true) => eprintln!("stopped  {unit}"),
        Ok(false) => {}
        Err(error) => failures.push(format!("`{unit}` could not be stopped: {error}")),
    }
}

async fn stop_applications(config: &Config) -> Result<usize, Failure> {
    use futures_util::{StreamExt, TryStreamExt, stream};

    // Without an installation nothing was ever started; without an engine nothing runs.
    let Some(engine) = engine::open_existing(config)? else {
        return Ok(0);
    };
    let mut replicas = engine.observe(Scope::All).await?;
    replicas.retain(|replica| {
        matches!(
            replica.status,
            ReplicaStatus::Running | ReplicaStatus::Restarting | ReplicaStatus::Paused
        )
    });
    let count = replicas.len();
    stream::iter(replicas)
        .map(|replica| {
            let engine = engine.clone();
            async move {
                // One that ended although the engine would start it again counts as given up, and stays down. These
                // shall come back with the next `serve`.
                engine.set_restart(&replica.handle, EngineRestart::No).await?;
                engine.stop(&replica.handle, REPLICA_GRACE_MS).await
            }
        })
        .buffer_unordered(STOPS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(count)
}
