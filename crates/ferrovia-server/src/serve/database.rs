//! The private PostgreSQL: started or adopted, and started again when it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_store::embedded::{self, Server};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::watch;

use crate::config::Config;
use crate::process::watch::Watched;

/// First wait before it is started again, in milliseconds; doubled up to the cap.
const FIRST_RESTART_MS: u64 = 200;
/// Longest wait before it is started again, in milliseconds.
const MAX_RESTART_MS: u64 = 10_000;

/// Starts the server, or finds the one that lives.
///
/// # Errors
/// [`embedded::Error`] with its remedy.
pub async fn start(config: &Config) -> Result<Server, embedded::Error> {
    let server = embedded::ensure(&place(config)).await?;
    tracing::info!(
        "PostgreSQL {} (process {})",
        if server.adopted {
            "is adopted"
        } else {
            "is started"
        },
        server.pid
    );
    Ok(server)
}

/// Keeps the server alive until `stop` becomes true; then returns without touching it.
pub async fn keep(config: Arc<Config>, mut server: Server, mut stop: watch::Receiver<bool>) {
    let mut wait = Duration::from_millis(FIRST_RESTART_MS);
    loop {
        tokio::select! {
            () = ended(&server) => tracing::warn!("PostgreSQL (process {}) ended and is started again", server.pid),
            _ = stop.wait_for(|stop| *stop) => return,
        }
        loop {
            match start(&config).await {
                Ok(started) => {
                    server = started;
                    wait = Duration::from_millis(FIRST_RESTART_MS);
                    break;
                }
                Err(error) => tracing::error!("PostgreSQL cannot be started: {}", error.report().message),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            wait = (wait * 2).min(Duration::from_millis(MAX_RESTART_MS));
        }
    }
}

/// Where the server's files are.
pub fn place(config: &Config) -> embedded::Config {
    embedded::Config {
        dir: config.paths.postgres(),
        run_dir: config.paths.run.clone(),
    }
}

async fn ended(server: &Server) {
    match watched(server) {
        Ok(watched) => watched.ended().await,
        // It ended before it could be watched.
        Err(error) => tracing::debug!("process {} cannot be watched: {error}", server.pid),
    }
}

fn watched(server: &Server) -> io::Result<Watched> {
    let pid = i32::try_from(server.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Watched::new(pidfd_open(pid, PidfdFlags::empty())?)
}
