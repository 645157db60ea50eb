//! `ferroviad serve`: one machine. Starts PostgreSQL, node, edge and control, or adopts those that live, and keeps
//! them alive. It serves nothing itself, so that its own end is noticed by nobody.

pub mod database;
mod listeners;
mod port_owner;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrovia_api::system::Level;
use ferrovia_core::error::Report;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::command::Failure;
use crate::config::{Config, EngineKind};
use crate::doctor;
use crate::process::lock::Lock;
use crate::process::supervisor::{AtStart, Status, supervise};
use crate::process::{Unit, supervisor, user};
use crate::{directories, installation};

/// How often readiness is looked at until it is reached, in milliseconds.
const READY_POLL_MS: u64 = 50;
/// Silence after which what is still missing is said again, in seconds.
const SAY_AGAIN_S: u64 = 5;

/// Runs until SIGTERM or SIGINT; then control is ended and everything else goes on.
///
/// # Errors
/// When a requirement is missing or another `serve` lives.
pub async fn run(config: Config) -> Result<(), Failure> {
    let began = Instant::now();
    config.database.check()?;
    let findings = doctor::preflight(&config).await;
    let problems: Vec<_> = findings
        .iter()
        .filter(|finding| finding.level == Level::Error)
        .map(|finding| {
            format!(
                "  {}\n    {}",
                finding.message,
                finding.hint.as_deref().unwrap_or_default()
            )
        })
        .collect();
    if !problems.is_empty() {
        return Err(format!("the platform cannot start here\n{}", problems.join("\n")).into());
    }
    let edge_user = user::edge(&config)?;
    directories::prepare(&config.paths, edge_user)?;
    let _lock = Lock::take(&config.paths.run, "serve", &config.hash())?;
    installation::ensure(&config.paths.data)?;
    let sockets = listeners::Sockets::open(&config, edge_user.0).await?;
    let database = match config.database.is_private() {
        false => None,
        true => Some(
            database::start(&config)
                .await
                .map_err(|error| explained(&error.report()))?,
        ),
    };

    let config = Arc::new(config);
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    let mut statuses = Vec::new();
    running.spawn(sockets.hand_out(stopped.clone()));
    if let Some(server) = database {
        running.spawn(database::keep(config.clone(), server, stopped.clone()));
    }
    let as_root = rustix::process::geteuid().is_root();
    for (unit, user, at_start) in [
        (Unit::FakeEngine, None, AtStart::Adopt),
        (Unit::Node, None, AtStart::Adopt),
        (Unit::Edge, as_root.then_some(edge_user), AtStart::Adopt),
        (Unit::Control, None, AtStart::Renew),
    ] {
        if unit == Unit::FakeEngine && config.engine != EngineKind::Fake {
            continue;
        }
        let (tell, status) = watch::channel(Status::Starting);
        statuses.push((unit, status));
        running.spawn(supervise(
            unit,
            config.clone(),
            user,
            at_start,
            tell,
            stopped.clone(),
        ));
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = ready(&config, &statuses, began) => {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(
        "ending control; edge, node, PostgreSQL and the applications go on (`ferroviad stop` ends them)"
    );
    stop.send_replace(true);
    while running.join_next().await.is_some() {}
    supervisor::end(Unit::Control, &config).await?;
    Ok(())
}

fn explained(report: &Report) -> String {
    match &report.hint {
        Some(hint) => format!("{}\n    {hint}", report.message),
        None => report.message.clone(),
    }
}

/// Waits until work is accepted, saying what is missing.
async fn ready(config: &Config, statuses: &[(Unit, watch::Receiver<Status>)], began: Instant) {
    let mut said = Instant::now();
    loop {
        let missing = missing(config, statuses).await;
        if missing.is_empty() {
            break;
        }
        if said.elapsed() > Duration::from_secs(SAY_AGAIN_S) {
            tracing::info!("waiting for {}", missing.join(", "));
            said = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
    }
    tracing::info!(
        "ready after {} ms: API at http://{}, applications at http://*.{}:{}",
        began.elapsed().as_millis(),
        config.api_listen,
        config.apps_domain,
        config.http_listen.port()
    );
}

async fn missing(config: &Config, statuses: &[(Unit, watch::Receiver<Status>)]) -> Vec<String> {
    let mut missing: Vec<_> = statuses
        .iter()
        .filter(|(_, status)| !matches!(*status.borrow(), Status::Living { .. }))
        .map(|(unit, _)| format!("`{unit}`"))
        .collect();
    if missing.is_empty() && !crate::control::answers(config).await {
        missing.push("the API".to_owned());
    }
    missing
}
