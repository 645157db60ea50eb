//! `ferroviad fake-engine`: the engine of `--engine fake`, a process of its own so that its state outlives control.

use ferrovia_engine::fake::{self, ServeOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::command::Failure;
use crate::config::Config;
use crate::process::lock::Lock;

/// Runs until SIGTERM; its replicas end with it.
///
/// # Errors
/// When another one lives or its socket cannot be made.
pub async fn run(config: Config) -> Result<(), Failure> {
    let _lock = Lock::take(&config.paths.run, "fake-engine", &config.hash())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = ServeOptions {
        socket: config.paths.fake_socket(),
        logs: Some(config.paths.engine_data().join("fake-logs")),
        engine: fake::Options::default(),
    };
    Ok(fake::serve(options, async move {
        terminate.recv().await;
    })
    .await?)
}
