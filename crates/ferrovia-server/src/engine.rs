//! The engine that the configuration names.

use std::sync::Arc;

use ferrovia_engine::docker::{DockerEngine, Options};
use ferrovia_engine::{Engine, fake};

use crate::command::Failure;
use crate::config::{Config, EngineKind};
use crate::installation;

/// The engine of this installation.
///
/// # Errors
/// When the installation's identity cannot be read or made.
pub fn open(config: &Config) -> Result<Arc<dyn Engine>, Failure> {
    let installation = installation::ensure(&config.paths.data)?;
    Ok(of(config, &installation.to_string()))
}

/// The engine of this installation; `None` when nothing was ever started here.
///
/// # Errors
/// When the installation's identity cannot be read.
pub fn open_existing(config: &Config) -> Result<Option<Arc<dyn Engine>>, Failure> {
    Ok(installation::find(&config.paths.data)?.map(|installation| of(config, &installation.to_string())))
}

fn of(config: &Config, installation: &str) -> Arc<dyn Engine> {
    match config.engine {
        EngineKind::Docker => Arc::new(docker(config, installation)),
        EngineKind::Fake => Arc::new(fake(config)),
    }
}

/// The Docker Engine, as the configuration names it.
pub fn docker(config: &Config, installation: &str) -> DockerEngine {
    DockerEngine::new(Options {
        socket: config.docker_socket.clone(),
        installation: installation.to_owned(),
        addresses: config.addresses.clone(),
        files: config.paths.engine_data(),
    })
}

/// The fake engine of this data directory.
pub fn fake(config: &Config) -> fake::FakeEngine {
    fake::FakeEngine::new(&config.paths.fake_socket())
}
