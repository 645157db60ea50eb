//! A living server, told from the traces of a dead one.
//!
//! The server's pid file names a process, which may be dead, or be another program by now. A process is taken for a
//! process of this cluster's server when its executable is called `postgres` and its working directory is the
//! cluster: the server goes there when it starts, and so do all its children.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Error;

/// A living postmaster.
#[derive(Debug)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    /// Where it listens; none while it has not said so.
    pub(super) socket_dir: Option<PathBuf>,
    data: PathBuf,
}

/// What the pid file says (PostgreSQL, `miscadmin.h`): lines 1, 5 and 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) socket_dir: Option<PathBuf>,
    /// Whether it takes connections.
    pub(super) is_ready: bool,
}

impl Postmaster {
    /// The living server of a cluster.
    pub(super) fn find(data: &Path) -> Result<Option<Self>, Error> {
        let Some(file) = PidFile::read(data)? else {
            return Ok(None);
        };
        let found = Self {
            pid: file.pid,
            socket_dir: file.socket_dir,
            data: data.to_owned(),
        };
        Ok(found.is_alive()?.then_some(found))
    }

    /// A server that we have just started.
    pub(super) fn of_child(pid: u32, data: &Path) -> Self {
        Self {
            pid,
            socket_dir: None,
            data: data.to_owned(),
        }
    }

    /// Whether it lives, and is still the same.
    pub(super) fn is_alive(&self) -> Result<bool, Error> {
        belongs(self.pid, &self.data)
    }

    /// Sends a signal; that it has ended meanwhile is no error.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        signal_if_belongs(self.pid, &self.data, signal)
    }
}

impl PidFile {
    pub(super) fn path(data: &Path) -> PathBuf {
        data.join("postmaster.pid")
    }

    /// None when there is none, or it is not yet written.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(data);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::files(&path, error)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            socket_dir: lines.get(4).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            is_ready: lines.get(7).is_some_and(|state| *state == "ready"),
        })
    }
}

/// Every living process of a cluster's server: children outlive a killed postmaster for a moment.
pub(super) fn processes(data: &Path) -> Result<Vec<u32>, Error> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|source| Error::files(proc, source))?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = Vec::new();
    for pid in pids {
        if belongs(pid, data)? {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Sends a signal to a process if it belongs to the cluster's server. The descriptor is taken before looking: it
/// stays with the process that was looked at.
pub(super) fn signal_if_belongs(pid: u32, data: &Path, signal: Signal) -> Result<(), Error> {
    let failed = |errno: rustix::io::Errno| Error::files(&process_dir(pid), errno.into());
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let fd = match pidfd_open(id, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    if !belongs(pid, data)? {
        return Ok(());
    }
    match pidfd_send_signal(fd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

fn belongs(pid: u32, data: &Path) -> Result<bool, Error> {
    let dir = process_dir(pid);
    // A link that cannot be read is of a process that is gone, is ending, or is somebody else's: not the server's,
    // whose processes are this user's or this user is root.
    let (Ok(exe), Ok(cwd)) = (fs::read_link(dir.join("exe")), fs::read_link(dir.join("cwd"))) else {
        return Ok(false);
    };
    // After an upgrade of the package the old program is called `postgres (deleted)`.
    let is_postgres = exe
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"postgres"));
    Ok(is_postgres && data.canonicalize().is_ok_and(|data| data == cwd))
}

fn process_dir(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_as_far_as_it_is_written() {
        let full = "812\n/d/data\n1732352400\n5432\n/run/f/pg\n\n  21364   0\nready   \n";
        let read = PidFile::parse(full).unwrap();
        assert_eq!((read.pid, read.is_ready), (812, true));
        assert_eq!(read.socket_dir.unwrap(), Path::new("/run/f/pg"));
        let starting = PidFile::parse("812\n/d/data\n1732352400\n5432\n\n").unwrap();
        assert_eq!((starting.socket_dir, starting.is_ready), (None, false));
        assert_eq!(PidFile::parse(""), None);
    }
}
