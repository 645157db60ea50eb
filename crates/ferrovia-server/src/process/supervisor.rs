//! Keeping one process alive: adopt it if it fits, else replace it, start it again when it ends.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::lock::{self, Living};
use super::spawn::spawn;
use super::spawned::Spawned;
use super::watch::Watched;
use super::{Unit, build_id, draining};
use crate::config::Config;

/// How long a started process may take until it holds its lock, in milliseconds.
const START_DEADLINE_MS: u64 = 20_000;
/// How long a process may take to end before it is killed, in milliseconds.
const END_GRACE_MS: u64 = 10_000;
/// First wait before a process that ended is started again, in milliseconds; doubled up to the cap.
const FIRST_RESTART_MS: u64 = 100;
/// Longest wait before a process that ended is started again, in milliseconds.
const MAX_RESTART_MS: u64 = 5_000;
/// A process that lived this long starts the waits anew, in milliseconds.
const STEADY_AFTER_MS: u64 = 30_000;
/// After how long a replaced edge closes connections between two requests, in milliseconds.
const EDGE_IDLE_MS: u64 = 2_000;
/// After how long a replaced edge closes everything, in milliseconds: a slow upload may finish.
const EDGE_DRAIN_MS: u64 = 600_000;
/// How often a starting process' lock is looked at, in milliseconds.
const LOCK_POLL_MS: u64 = 10;

/// What a unit does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It is being started.
    Starting,
    /// It lives.
    Living {
        /// Its process id.
        pid: u32,
        /// Whether it lived before this `serve` started.
        adopted: bool,
    },
    /// It ended and will be started again; the sentence says what is known.
    Down(String),
}

/// What to do with a process that lives already when supervision begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStart {
    /// Adopt it when build and configuration fit, else replace it.
    Adopt,
    /// End it and start it anew.
    Renew,
}

/// Supervises one unit until `stop` becomes true; then returns without touching the process. One that is just being
/// started, and could not be found by its lock, is gone then.
pub async fn supervise(
    unit: Unit,
    config: Arc<Config>,
    user: Option<(u32, u32)>,
    at_start: AtStart,
    status: watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) {
    let mut wait = Duration::from_millis(FIRST_RESTART_MS);
    let mut first = true;
    loop {
        let renew = first && at_start == AtStart::Renew;
        first = false;
        let began = Instant::now();
        let outcome = tokio::select! {
            outcome = live(unit, &config, user, renew, &status) => outcome,
            () = stopped(&mut stop) => return,
        };
        if began.elapsed() > Duration::from_millis(STEADY_AFTER_MS) {
            wait = Duration::from_millis(FIRST_RESTART_MS);
        }
        let why = match outcome {
            Ok(()) => format!("`{unit}` ended; it is started again in {} ms", wait.as_millis()),
            Err(error) => format!(
                "`{unit}` could not be started: {error}; tried again in {} ms",
                wait.as_millis()
            ),
        };
        tracing::warn!("{why}");
        status.send_replace(Status::Down(why));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stop) => return,
        }
        wait = (wait * 2).min(Duration::from_millis(MAX_RESTART_MS));
    }
}

/// Ends a unit that lives, by SIGTERM and after the grace by SIGKILL.
///
/// # Errors
/// When the kernel or the file system refuses.
pub async fn end(unit: Unit, config: &Config) -> io::Result<bool> {
    match lock::find_living(&unit.lock_directory(&config.paths), unit.as_str())? {
        Some(living) => end_process(living).await.map(|()| true),
        None => Ok(false),
    }
}

/// Ends edges that were replaced and still answer what they had in hand; how many there were.
///
/// # Errors
/// When the kernel or the file system refuses.
pub async fn end_draining(config: &Config) -> io::Result<usize> {
    let mut ended = 0;
    for living in draining::find(&Unit::Edge.lock_directory(&config.paths))? {
        end_process(living).await?;
        ended += 1;
    }
    Ok(ended)
}

async fn end_process(living: Living) -> io::Result<()> {
    Watched::new(living.pidfd)?
        .end(Duration::from_millis(END_GRACE_MS))
        .await
}

/// One life of the process: until it ends.
async fn live(
    unit: Unit,
    config: &Config,
    user: Option<(u32, u32)>,
    renew: bool,
    status: &watch::Sender<Status>,
) -> io::Result<()> {
    if let Some(living) = lock::find_living(&unit.lock_directory(&config.paths), unit.as_str())? {
        if !renew && fits(&living, config)? {
            let pid = living.holder.pid;
            tracing::info!("`{unit}` lives (process {pid}) and is adopted");
            let watched = Watched::new(living.pidfd)?;
            status.send_replace(Status::Living { pid, adopted: true });
            watched.ended().await;
            return Ok(());
        }
        tracing::info!("`{unit}` (process {}) is replaced", living.holder.pid);
        make_room(unit, config, living).await?;
    }
    status.send_replace(Status::Starting);
    // Also when this is given up while it starts, it must not come up later, beside its successor or after the end.
    let mut spawned = Spawned::new(spawn(unit, config, user)?, unit, config);
    let (watched, pid) = started(unit, config, &mut spawned).await?;
    status.send_replace(Status::Living { pid, adopted: false });
    watched.ended().await;
    Ok(())
}

/// Ends a process so that its successor can start. An edge only lets go of what the next one needs: it answers what
/// it has in hand beside its successor.
async fn make_room(unit: Unit, config: &Config, living: Living) -> io::Result<()> {
    if unit == Unit::Edge {
        let socket = config.paths.edge_socket();
        let drained = tokio::task::spawn_blocking(move || {
            ferrovia_edge::command::drain(&socket, EDGE_IDLE_MS, EDGE_DRAIN_MS)
        });
        match drained.await.map_err(io::Error::other)? {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!("the edge did not drain ({error}) and is ended"),
        }
    }
    end_process(living).await
}

/// Waits until the child holds its lock.
async fn started(unit: Unit, config: &Config, spawned: &mut Spawned) -> io::Result<(Watched, u32)> {
    let deadline = Instant::now() + Duration::from_millis(START_DEADLINE_MS);
    loop {
        if let Some(exit) = spawned.ended()? {
            return Err(io::Error::other(format!(
                "it ended at once ({exit}); its log is `{}`",
                super::spawn::log_path(config, unit).display()
            )));
        }
        if let Some(living) = spawned.come_up()? {
            return Ok((Watched::new(living.pidfd)?, living.holder.pid));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not come up in {START_DEADLINE_MS} ms"),
            ));
        }
        tokio::time::sleep(Duration::from_millis(LOCK_POLL_MS)).await;
    }
}

fn fits(living: &Living, config: &Config) -> io::Result<bool> {
    Ok(living.holder.build_id == build_id::build_id()? && living.holder.config_hash == config.hash())
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means that nobody can ask any more: the same as being asked.
    let _ = stop.wait_for(|stop| *stop).await;
}
