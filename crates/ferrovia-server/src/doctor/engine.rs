//! The engine: whether it answers, which one it is, and whether it lets containers outlive it.

use ferrovia_api::system::Finding;
use ferrovia_engine::Engine;
use ferrovia_engine::docker::{DockerEngine, Options};

use super::{good, problem};
use crate::config::{Config, EngineKind};

/// What there is to say of the engine.
pub async fn look(config: &Config) -> Vec<Finding> {
    if config.engine == EngineKind::Fake {
        return vec![good("engine", "the fake engine: nothing real runs")];
    }
    // Asking who answers touches nothing that belongs to an installation.
    let engine = DockerEngine::new(Options {
        socket: config.docker_socket.clone(),
        installation: String::new(),
        addresses: config.addresses.clone(),
        files: config.paths.engine_data(),
    });
    let socket = config.docker_socket.display();
    let info = match engine.info().await {
        Ok(info) => info,
        Err(error) => {
            return vec![problem(
                "docker",
                "docker_unavailable",
                format!("no Docker Engine answers at `{socket}`: {error}"),
                "Install and start one (`apt-get install docker.io`), or name its socket with `--docker-host unix:///PATH`",
            )];
        }
    };
    let mut findings = vec![good(
        "docker",
        format!("{} answers at `{socket}` (API {})", info.name, info.api_version),
    )];
    if !info.live_restore {
        findings.push(problem(
            "docker",
            "no_live_restore",
            "the Docker Engine stops every container when it stops itself",
            "Put {\"live-restore\": true} into /etc/docker/daemon.json and send dockerd a SIGHUP; running containers stay",
        ));
    }
    findings
}
