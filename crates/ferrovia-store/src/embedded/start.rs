//! Starting the server, and waiting until it takes connections.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{ConnectOptions, Connection};
use tokio::process::Child;
use tokio::time::Instant;

use super::account::Account;
use super::binaries::Programs;
use super::cluster::free_bytes;
use super::error::last_lines;
use super::postmaster::{PidFile, Postmaster, processes, signal_if_belongs};
use super::{Config, Error, LOOK_MS, url};

/// How long the server may take until it takes connections, in milliseconds: replaying its log after a crash included.
pub(super) const START_MS: u64 = 120_000;
/// How long the children of a killed server may live on before they are ended, in milliseconds.
const ORPHANS_MS: u64 = 300;
/// A longer log is put aside at the start, in bytes.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// What is read of the log's end for an error, in bytes.
const MAX_TOLD_BYTES: u64 = 16 << 10;
/// Longest attempt to connect, in milliseconds.
const CONNECT_MS: u64 = 5_000;
/// What the server says when children of a killed one still use its memory.
const STILL_IN_USE: &str = "pre-existing shared memory block";

/// Starts the server and gives its process id. Under the lock, with no living server.
pub(super) async fn start(config: &Config, account: &Account, programs: &Programs) -> Result<u32, Error> {
    let deadline = Instant::now() + Duration::from_millis(START_MS);
    end_orphans(config, deadline).await?;
    forget_reused_pid(config)?;
    loop {
        let log = open_log(config, account)?;
        let begins = log.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        let mut child = spawn(config, account, programs, log)?;
        let pid = child.id().unwrap_or_default();
        let postmaster = Postmaster::of_child(pid, &config.data());
        match await_ready(config, &postmaster, Some((&mut child, begins))).await {
            Err(Error::Died { said }) if said.contains(STILL_IN_USE) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            }
            Ok(()) => return Ok(pid),
            Err(error) => {
                // A server that nobody waits for any more must not come up later, behind our back.
                postmaster.signal(Signal::QUIT)?;
                return Err(error);
            }
        }
    }
}

/// Waits until the server takes connections. `child` is given when we started it, with where its log begins.
pub(super) async fn await_ready(
    config: &Config,
    postmaster: &Postmaster,
    mut child: Option<(&mut Child, u64)>,
) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_millis(START_MS);
    let options = crate::Options::new(url(&config.run_dir)).connect_options();
    let begins = child.as_ref().map_or(0, |(_, begins)| *begins);
    loop {
        let has_ended = match &mut child {
            Some((child, _)) => !matches!(child.try_wait(), Ok(None)),
            None => !postmaster.is_alive()?,
        };
        if has_ended {
            let said = log_from(config, begins);
            if said.contains("No space left on device") {
                let free_bytes = free_bytes(&config.dir);
                return Err(Error::DiskFull {
                    path: config.dir.clone(),
                    free_bytes,
                });
            }
            return Err(Error::Died {
                said: last_lines(&said),
            });
        }
        let is_ready =
            PidFile::read(&config.data())?.is_some_and(|file| file.pid == postmaster.pid && file.is_ready);
        if is_ready && let Ok(options) = &options {
            let connect = tokio::time::timeout(Duration::from_millis(CONNECT_MS), options.connect()).await;
            if let Ok(Ok(connection)) = connect {
                let _ = connection.close().await;
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            let said = last_lines(&log_from(config, begins));
            return Err(Error::NotReady {
                within_ms: START_MS,
                said,
            });
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn spawn(config: &Config, account: &Account, programs: &Programs, log: File) -> Result<Child, Error> {
    let postgres = programs.path("postgres");
    let failed = |source| Error::Program {
        program: postgres.clone(),
        source,
    };
    // In a session of its own: what ends the platform's session (a terminal, Ctrl-C) does not reach it.
    let mut command = account.command(Path::new("/usr/bin/setsid"));
    command.arg(&postgres).arg("-D").arg(config.data()).arg("-c");
    command.arg(format!(
        "config_file={}",
        config.data().join("ferrovia.conf").display()
    ));
    command.stdout(log.try_clone().map_err(failed)?).stderr(log);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(false).spawn().map_err(failed)
}

/// Ends children of a killed server, which would keep a new one from starting. They end by themselves, but not in the
/// midst of a statement.
async fn end_orphans(config: &Config, deadline: Instant) -> Result<(), Error> {
    let data = config.data();
    let patient_until = Instant::now() + Duration::from_millis(ORPHANS_MS);
    loop {
        let orphans = processes(&data)?;
        let Some(first) = orphans.first() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(Error::StaysAlive { pid: *first });
        }
        if Instant::now() > patient_until {
            for pid in &orphans {
                signal_if_belongs(*pid, &data, Signal::QUIT)?;
            }
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// Removes the pid file of a dead server whose number another program of the same user has by now: the server would
/// take that for itself and refuse to start. Only when no process of the old server lives; a file that names no living
/// process is left to the server, which looks into it.
fn forget_reused_pid(config: &Config) -> Result<(), Error> {
    let data = config.data();
    let Some(file) = PidFile::read(&data)? else {
        return Ok(());
    };
    let is_taken = Path::new("/proc").join(file.pid.to_string()).exists();
    if is_taken && processes(&data)?.is_empty() {
        tracing::info!(
            pid = file.pid,
            "removed the pid file of a PostgreSQL that is dead: another program has its number"
        );
        let path = PidFile::path(&data);
        fs::remove_file(&path).map_err(|source| Error::files(&path, source))?;
    }
    Ok(())
}

fn open_log(config: &Config, account: &Account) -> Result<File, Error> {
    let path = config.log();
    let failed = |source| Error::files(&path, source);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
        fs::rename(&path, config.dir.join("postgres.log.1")).map_err(failed)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    if let Some((uid, gid)) = account.switch_to() {
        chown(&path, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(file)
}

/// What the server has logged from a place on, at most the end of it.
fn log_from(config: &Config, begins: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(config.log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(begins.max(length.saturating_sub(MAX_TOLD_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(MAX_TOLD_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
