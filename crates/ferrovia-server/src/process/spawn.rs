//! Starting a process of the platform in a session of its own, with its output in a file.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Unit, executable};
use crate::config::Config;

/// Starts `ferroviad UNIT` with this configuration, as another user if one is given. It outlives its parent.
///
/// # Errors
/// When the executable cannot be started or its log cannot be opened.
pub fn spawn(unit: Unit, config: &Config, user: Option<(u32, u32)>) -> io::Result<Child> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log_path(config, unit))?;
    if let Some((uid, gid)) = user {
        // It sets the file aside by itself when it is full.
        chown(log_path(config, unit), Some(uid), Some(gid))?;
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
        .args(config.arguments());
    // A developer's context must not redirect the platform.
    command.env_remove("DOCKER_HOST");
    for (name, value) in config.environment() {
        command.env(name, value.expose());
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
