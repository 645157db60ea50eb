//! `ferroviad node`: the agent of this host.

use ferrovia_log::Limits;
use ferrovia_node::{Network, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::command::Failure;
use crate::config::{Config, EngineKind};
use crate::engine;
use crate::process::lock::Lock;
use crate::process::user;

/// The host's resolvers, for names that are not the platform's.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Runs until SIGTERM; firewall and names' addresses stay loaded.
///
/// # Errors
/// When another node lives, or the network cannot be made.
pub async fn run(config: Config) -> Result<(), Failure> {
    let _lock = Lock::take(&config.paths.run, "node", &config.hash())?;
    let network = (config.engine == EngineKind::Docker).then(|| Network {
        addresses: config.addresses.clone(),
        edge_listens: vec![config.http_listen],
        opened: config.file.network.open.clone(),
        resolvers: RESOLVERS.into(),
    });
    let options = Options {
        engine: engine::open(&config)?,
        table: config.paths.node_data(),
        logs: config.paths.logs(),
        log_limits: Limits::default(),
        tables_socket: config.paths.tables_socket(),
        node_socket: config.paths.node_socket(),
        peers: user::peers(&config)?,
        network,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        terminate.recv().await;
    };
    Ok(ferrovia_node::run(options, stop).await?)
}
