//! The PostgreSQL that Ferrovia starts itself when no address of another is given.
//!
//! It belongs to one data directory and outlives whoever started it: a restart of the platform finds it by the
//! server's own pid file and goes on with it ([`ensure`]). It is reached by one Unix socket, and the kernel says who
//! asks: no passwords, no TCP. It is small, since the whole platform shall idle in little memory.
//!
//! Three things are never done: initialising over data, deleting a pid file while any process of the old server lives
//! (two servers on one directory destroy it), and running data of one major version with another.
//!
//! ```text
//! DATA_DIR/postgres/            the server's user's, mode 0700
//!     lock                      held while one process starts or stops the server
//!     data/                     the cluster; appears by a rename when it is complete
//!     data.new/                 a cluster that is being made
//!     postgres.log
//! RUN_DIR/pg/.s.PGSQL.5432
//! ```

mod account;
mod binaries;
mod cluster;
mod error;
mod postmaster;
mod settings;
mod start;

use std::fmt::Write;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use account::Account;
use postmaster::Postmaster;

pub use error::Error;

/// The role that the platform connects as, and the name of its database.
const ROLE: &str = "ferrovia";
/// The user that the server runs as when the platform runs as root.
const SERVER_USER: &str = "postgres";
/// Longest path of a Unix socket, in bytes (`sun_path` less its final NUL).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How long another process may hold the lock, in milliseconds: as long as a start may take.
const LOCK_MS: u64 = start::START_MS + 30_000;
/// How long the server may take to end its connections and write what it must, in milliseconds.
const STOP_MS: u64 = 30_000;
/// How long it may take to end when it need not write anything, in milliseconds.
const QUIT_MS: u64 = 5_000;
/// Pause between two looks, in milliseconds.
const LOOK_MS: u64 = 20;

/// Where the server's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server's own directory, `DATA_DIR/postgres`. Made when it is missing; the one above it must be there.
    pub dir: PathBuf,
    /// The run directory; the socket lies in a directory of its own below it.
    pub run_dir: PathBuf,
}

/// A server that takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// For [`crate::Options::new`].
    pub url: String,
    /// Process id of the postmaster.
    pub pid: u32,
    /// Whether it lived before.
    pub adopted: bool,
}

/// The socket's path under a run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    socket_dir(run_dir).join(".s.PGSQL.5432")
}

/// The address of the platform's database on the server of a run directory, for [`crate::Options::new`].
pub fn url(run_dir: &Path) -> String {
    let mut host = String::new();
    for byte in socket_dir(run_dir).as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                host.push(char::from(*byte))
            }
            // Writing to a string does not fail.
            byte => drop(write!(host, "%{byte:02X}")),
        }
    }
    format!("postgres:///{ROLE}?host={host}&user={ROLE}")
}

/// Starts the server, or finds the one that lives; makes the cluster the first time. Returns once it takes connections.
///
/// # Errors
/// [`Error`] with the remedy in its report.
pub async fn ensure(config: &Config) -> Result<Server, Error> {
    let socket = socket_path(&config.run_dir);
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET_PATH_BYTES {
        return Err(Error::LongPath { path: socket, length });
    }
    let account = Account::of_server()?;
    prepare(&config.dir, &account)?;
    prepare(&socket_dir(&config.run_dir), &account)?;
    let _lock = lock(&config.dir).await?;
    if let Some(living) = Postmaster::find(&config.data())? {
        if living.socket_dir.as_deref() == Some(&socket_dir(&config.run_dir)) && socket.exists() {
            match start::await_ready(config, &living, None).await {
                Ok(()) => {
                    return Ok(Server {
                        url: url(&config.run_dir),
                        pid: living.pid,
                        adopted: true,
                    });
                }
                // It was dying when it was found.
                Err(Error::Died { .. }) => {}
                Err(error) => return Err(error),
            }
        } else {
            // It lives and nobody can reach it: its run directory was another, or was emptied.
            tracing::warn!(
                pid = living.pid,
                "PostgreSQL has lost its socket and is started again"
            );
            end(&living).await?;
        }
    }
    let programs = cluster::ensure(config, &account).await?;
    let pid = start::start(config, &account, &programs).await?;
    Ok(Server {
        url: url(&config.run_dir),
        pid,
        adopted: false,
    })
}

/// The process id of the server if it lives; it may not yet take connections.
///
/// # Errors
/// [`Error::Files`] when that cannot be looked up.
pub fn find(config: &Config) -> Result<Option<u32>, Error> {
    Ok(Postmaster::find(&config.data())?.map(|living| living.pid))
}

/// Ends the server: connections are closed, transactions under way undone. Says whether it lived.
///
/// # Errors
/// [`Error::StaysAlive`].
pub async fn stop(config: &Config) -> Result<bool, Error> {
    if !config.dir.exists() {
        return Ok(false);
    }
    let _lock = lock(&config.dir).await?;
    match Postmaster::find(&config.data())? {
        Some(living) => end(&living).await.map(|()| true),
        None => Ok(false),
    }
}

impl Config {
    /// The cluster.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the server logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }
}

fn socket_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("pg")
}

async fn end(living: &Postmaster) -> Result<(), Error> {
    use rustix::process::Signal;
    // "Fast", then "immediate" (PostgreSQL manual, section 19.5).
    for (signal, within_ms) in [(Signal::INT, STOP_MS), (Signal::QUIT, QUIT_MS)] {
        living.signal(signal)?;
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        while Instant::now() < deadline {
            if !living.is_alive()? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }
    Err(Error::StaysAlive { pid: living.pid })
}

/// A directory of the server's user, that nobody else can look into, and that this user can reach.
fn prepare(dir: &Path, account: &Account) -> Result<(), Error> {
    let failed = |source: io::Error| Error::files(dir, source);
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.map_err(failed)?,
    }
    if let Some((uid, gid)) = account.switch_to() {
        chown(dir, Some(uid), Some(gid)).map_err(failed)?;
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    account.check_reaches(dir)
}

/// Held while a process looks, makes, starts and stops; ends with the process.
async fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let failed = |source: io::Error| Error::files(&path, source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + Duration::from_millis(LOCK_MS);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            }
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_takes_any_path() {
        let address = url(Path::new("/run/a b/ü?&=%"));
        let options = crate::Options::new(address).connect_options().unwrap();
        assert_eq!(options.get_socket().unwrap(), Path::new("/run/a b/ü?&=%/pg"));
        assert_eq!(
            (options.get_username(), options.get_database()),
            (ROLE, Some(ROLE))
        );
    }
}
