//! The processes of the platform: who lives, and whether its sockets answer.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use ferrovia_api::system::Finding;

use super::{good, problem};
use crate::config::{Config, EngineKind};
use crate::process::{Unit, lock};

/// How long a socket may take to accept, in milliseconds.
const CONNECT_MS: u64 = 2_000;

/// Looks at every process.
pub async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut units = vec![
        (
            Unit::Control,
            config.paths.tables_socket(),
            "no deploys and no API; applications go on",
        ),
        (
            Unit::Node,
            config.paths.node_socket(),
            "new names, health and logs wait",
        ),
        (
            Unit::Edge,
            config.paths.edge_socket(),
            "requests from outside wait or fail",
        ),
    ];
    if config.engine == EngineKind::Fake {
        units.push((
            Unit::FakeEngine,
            config.paths.fake_socket(),
            "nothing can be started",
        ));
    }
    for (unit, socket, loss) in units {
        findings.push(one(config, unit, &socket, loss).await);
    }
    if config.database.is_private() {
        findings.push(database(config).await);
    }
    findings
}

async fn one(config: &Config, unit: Unit, socket: &Path, loss: &str) -> Finding {
    let subject = unit.as_str();
    let log = crate::process::spawn::log_path(config, unit);
    let living = match lock::find_living(&unit.lock_directory(&config.paths), subject) {
        Ok(living) => living,
        Err(error) => {
            return problem(
                subject,
                "lock_unreadable",
                format!("its lock cannot be read: {error}"),
                "Look as root",
            );
        }
    };
    let Some(living) = living else {
        return problem(
            subject,
            "process_down",
            format!("`{unit}` does not run: {loss}"),
            format!("`ferroviad serve` starts it; its log is `{}`", log.display()),
        );
    };
    if connects(socket).await {
        good(
            subject,
            format!("`{unit}` runs (process {}) and answers", living.holder.pid),
        )
    } else {
        problem(
            subject,
            "process_silent",
            format!(
                "`{unit}` runs (process {}) and does not answer at `{}`",
                living.holder.pid,
                socket.display()
            ),
            format!(
                "Its log is `{}`; `ferroviad serve` starts it again when it is ended",
                log.display()
            ),
        )
    }
}

async fn database(config: &Config) -> Finding {
    let socket = ferrovia_store::embedded::socket_path(&config.paths.run);
    if connects(&socket).await {
        good("database", "the private PostgreSQL answers")
    } else {
        problem(
            "database",
            "database_down",
            "the private PostgreSQL does not answer: no deploys and no API; applications go on",
            format!(
                "`ferroviad serve` starts it; its log lies under `{}`",
                config.paths.postgres().display()
            ),
        )
    }
}

async fn connects(socket: &Path) -> bool {
    let attempt = UnixStream::connect(socket);
    matches!(
        tokio::time::timeout(Duration::from_millis(CONNECT_MS), attempt).await,
        Ok(Ok(_))
    )
}
