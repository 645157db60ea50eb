//! `ferroviad edge`: gets its listeners from `serve`, or binds them itself when it was started alone.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use ferrovia_edge::{Options, listeners};
use ferrovia_table::Peers;

use crate::command::Failure;
use crate::config::Config;
use crate::process::build_id::build_id;
use crate::process::lock::Lock;
use crate::process::{Unit, draining};

/// How long `serve` may take to hand the listeners over, in milliseconds.
const HAND_OVER_MS: u64 = 5_000;

/// Runs until SIGTERM, then drains.
///
/// # Errors
/// When another edge lives or the listeners cannot be had.
pub fn run(config: &Config) -> Result<(), Failure> {
    let directory = Unit::Edge.lock_directory(&config.paths);
    let lock = Lock::take(&directory, "edge", &config.hash())?;
    // To its end, which comes after the other one is given up.
    let _draining = draining::take(&directory, &config.hash())?;
    let sockets = match UnixStream::connect(config.paths.serve_socket()) {
        Ok(stream) => {
            stream.set_read_timeout(Some(Duration::from_millis(HAND_OVER_MS)))?;
            listeners::receive(&stream)?
        }
        Err(_) => listeners::bind_all(config.http_listen, workers(config))?,
    };
    let mut options = Options::new(
        config.paths.run.clone(),
        config.paths.edge_data(),
        sockets,
        Peers::same_user(),
    );
    options.socket = config.paths.edge_socket();
    options.lock = Some(lock.into_descriptor());
    options.workers = workers(config);
    options.build = build_id()?.to_owned();
    Ok(ferrovia_edge::run(options)?)
}

/// Threads that serve: the setting, else one for each core.
pub fn workers(config: &Config) -> usize {
    config
        .file
        .edge
        .workers
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1)
}
