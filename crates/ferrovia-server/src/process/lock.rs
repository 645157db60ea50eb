//! One process of a kind for each run directory: a lock that the kernel takes back when its holder dies.
//!
//! The file under the lock says who holds it (process id, start time, build, configuration), so that a starting
//! `serve` can tell a living process that fits from one that must be replaced. Whether somebody lives is decided by
//! the lock alone, never by the file: a file outlives its writer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::log::open_own;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Start of the process in clock ticks since boot: tells it from a later one with the same id.
    pub start_ticks: u64,
    /// Which build of `ferroviad` it is.
    pub build_id: String,
    /// What it was configured with.
    pub config_hash: String,
}

/// A held lock; released when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// A living holder and a handle of its process.
#[derive(Debug)]
pub struct Living {
    /// What it wrote about itself.
    pub holder: Holder,
    /// Becomes readable when it ends; signals sent through it never meet another process.
    pub pidfd: OwnedFd,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("another `{name}` of this run directory lives{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// The lock's name.
        name: String,
        /// The holder, when it could be read.
        pid: Option<u32>,
    },
    /// The file system refused.
    #[error("the lock `{path}` cannot be used: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
}

impl Lock {
    /// Takes the lock `NAME.lock` in `run_dir` and writes who holds it.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    pub fn take(run_dir: &Path, name: &str, config_hash: &str) -> Result<Self, LockError> {
        let path = path(run_dir, name);
        let failed = |error: io::Error| LockError::File {
            path: path.clone(),
            why: error.to_string(),
        };
        let mut file = open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = read_holder(&mut file).map(|holder| holder.pid);
                return Err(LockError::Held {
                    name: name.to_owned(),
                    pid,
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let holder = Holder {
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).map_err(failed)?,
            build_id: super::build_id::build_id().map_err(failed)?.to_owned(),
            config_hash: config_hash.to_owned(),
        };
        let text = serde_json::to_vec(&holder).map_err(|error| failed(error.into()))?;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        Ok(Self { file })
    }

    /// The lock as a descriptor: who closes it gives it up, before the process ends.
    pub fn into_descriptor(self) -> OwnedFd {
        self.file.into()
    }
}

/// The living holder of a lock, if there is one that has said who it is.
///
/// # Errors
/// When the file system refuses.
pub fn find_living(run_dir: &Path, name: &str) -> io::Result<Option<Living>> {
    let mut file = match open_own(&path(run_dir, name), OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !is_held(&file)? {
        return Ok(None);
    }
    let Some(holder) = read_holder(&mut file) else {
        return Ok(None);
    };
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The process may have ended and its id been given away between reading and opening; and who may write the file
    // must not name a process of somebody else.
    let owner = std::fs::metadata(format!("/proc/{}", holder.pid)).map(|process| process.uid());
    let same = start_ticks(holder.pid).is_ok_and(|ticks| ticks == holder.start_ticks)
        && owner.is_ok_and(|owner| file.metadata().is_ok_and(|lock| lock.uid() == owner));
    Ok((same && is_held(&file)?).then_some(Living { holder, pidfd }))
}

/// The names of the locks of a directory that begin so, held or not; none when there is no such directory.
///
/// # Errors
/// When the file system refuses.
pub fn names(run_dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".lock"));
        names.extend(name.filter(|name| name.starts_with(prefix)).map(str::to_owned));
    }
    Ok(names)
}

/// Takes away the files of locks that begin so and that nobody holds. Nobody may be about to take one.
pub fn sweep(run_dir: &Path, prefix: &str) {
    // A file that stays costs a name in a directory, and is looked at again by the next one.
    for name in names(run_dir, prefix).unwrap_or_default() {
        let path = path(run_dir, &name);
        let held = open_own(&path, OpenOptions::new().read(true)).and_then(|file| is_held(&file));
        if held.is_ok_and(|held| !held) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_held(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(format!("{name}.lock"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); the second field may contain blanks and parentheses.
fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has another form"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path(), "edge", "c1").unwrap();
        let error = Lock::take(dir.path(), "edge", "c1").unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        let living = find_living(dir.path(), "edge").unwrap().unwrap();
        assert_eq!(
            (living.holder.pid, living.holder.config_hash.as_str()),
            (std::process::id(), "c1")
        );
        drop(lock.into_descriptor());
        assert!(find_living(dir.path(), "edge").unwrap().is_none());
        Lock::take(dir.path(), "edge", "c2").unwrap();
    }

    #[test]
    fn a_file_without_a_lock_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let holder = Holder {
            pid: 1,
            start_ticks: 0,
            build_id: String::new(),
            config_hash: String::new(),
        };
        std::fs::write(dir.path().join("node.lock"), serde_json::to_vec(&holder).unwrap()).unwrap();
        assert!(find_living(dir.path(), "node").unwrap().is_none());
    }
}
