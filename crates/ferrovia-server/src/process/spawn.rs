//! Starting a process of the platform in a session of its own, with its output in a file.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::fchown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Unit, executable, log};
use crate::config::{Config, Database};

/// Where control finds the address of a database elsewhere.
const DATABASE_URL: &str = "FERROVIA_DATABASE_URL";
/// Where control finds the file with it.
const DATABASE_URL_FILE: &str = "FERROVIA_DATABASE_URL_FILE";

/// Starts `ferroviad UNIT` with this configuration, as another user if one is given. It outlives its parent.
///
/// # Errors
/// When the executable cannot be started or its log cannot be opened.
pub fn spawn(unit: Unit, config: &Config, user: Option<(u32, u32)>) -> io::Result<Child> {
    let log = log::open_own(
        &log_path(config, unit),
        OpenOptions::new().append(true).create(true),
    )?;
    if let Some((uid, gid)) = user {
        // It sets the file aside by itself when it is full.
        fchown(&log, Some(uid), Some(gid))?;
    }
    let own = executable::path()?;
    let mut command = Command::new(&own);
    command.arg("child").arg("--new-session");
    if let Some((uid, gid)) = user {
        command.arg(format!("--uid={uid}")).arg(format!("--gid={gid}"));
    }
    command
        .arg("--")
        .arg(&own)
        .arg(unit.as_str())
        .arg("--log-to-file")
        .args(match unit {
            Unit::Edge => config.edge_arguments(),
            Unit::FakeEngine | Unit::Node | Unit::Control => config.arguments(),
        });
    // A developer's context must not redirect the platform.
    command.env_remove("DOCKER_HOST");
    // Only control speaks to the database; the edge runs as another user, whose processes read its environment.
    command.env_remove(DATABASE_URL).env_remove(DATABASE_URL_FILE);
    if unit == Unit::Control {
        match &config.database {
            Database::Private => {}
            Database::Url(url) => {
                command.env(DATABASE_URL, url.expose());
            }
            Database::File(file) => {
                command.env(DATABASE_URL_FILE, file);
            }
        }
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn()
}

/// Where a process of the platform logs to. The edge's lies in its own directory, since it runs as another user.
pub fn log_path(config: &Config, unit: Unit) -> PathBuf {
    match unit {
        Unit::Edge => config.paths.edge_data().join("edge.log"),
        _ => config.paths.process_logs().join(format!("{unit}.log")),
    }
}
