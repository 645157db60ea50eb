//! What can go wrong with the embedded PostgreSQL, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

use ferrovia_core::error::{Class, Report};

/// Lines of the server's log that are told.
const TOLD_LINES: usize = 15;

/// A failure of the embedded PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `initdb` and `postgres` were found.
    #[error("PostgreSQL is not installed: neither `/usr/lib/postgresql/*/bin` nor the `PATH` has `initdb`")]
    NotInstalled,
    /// The platform runs as root, which PostgreSQL refuses, and there is no user for it.
    #[error("there is no user `{name}` for PostgreSQL to run as")]
    NoUser {
        /// The user's name.
        name: String,
    },
    /// The server's user cannot reach its directory.
    #[error("the user `{user}` of PostgreSQL cannot reach `{path}`: `{barrier}` does not let it through")]
    Unreachable {
        /// The server's user.
        user: String,
        /// Where it has to get.
        path: PathBuf,
        /// The first directory on the way that does not let it through.
        barrier: PathBuf,
    },
    /// The path of the socket does not fit.
    #[error(
        "the socket's path `{path}` has {length} bytes and may have {}",
        super::MAX_SOCKET_PATH_BYTES
    )]
    LongPath {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        length: usize,
    },
    /// The data is of a major version of which nothing is installed.
    #[error(
        "the data in `{path}` is of PostgreSQL {data}, and installed is {}",
        list(installed)
    )]
    OtherMajor {
        /// The cluster.
        path: PathBuf,
        /// Its major version.
        data: u32,
        /// What is installed.
        installed: Vec<u32>,
    },
    /// The directory of the cluster holds something else.
    #[error("`{path}` is not empty and holds no PostgreSQL data")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The cluster is not the server's user's, or others can read it.
    #[error("`{path}` has owner {owner} and mode {mode:03o}; PostgreSQL needs owner {wanted} and mode 700")]
    WrongOwner {
        /// The cluster.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// The number of the server's user.
        wanted: u32,
    },
    /// There is no room for a cluster, or the server ran out of it.
    #[error("there is no space left for PostgreSQL in `{path}`: {free_bytes} bytes are free")]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// A file or directory cannot be read, made or changed.
    #[error("`{path}` cannot be used")]
    Files {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process starts or stops the server for too long.
    #[error("another process holds `{path}`")]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// A program of PostgreSQL could not be run.
    #[error("`{program}` cannot be run")]
    Program {
        /// Which one.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("the database could not be made: {said}")]
    Initdb {
        /// Its last words.
        said: String,
    },
    /// The server ended instead of taking connections.
    #[error("PostgreSQL ended while it started: {said}")]
    Died {
        /// The end of its log.
        said: String,
    },
    /// The server does not take connections.
    #[error("PostgreSQL did not take connections within {within_ms} ms: {said}")]
    NotReady {
        /// How long it was waited for, in milliseconds.
        within_ms: u64,
        /// The end of its log.
        said: String,
    },
    /// The server does not end.
    #[error("PostgreSQL (process {pid}) does not end")]
    StaysAlive {
        /// Its process id.
        pid: u32,
    },
}

impl Error {
    pub(super) fn files(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::StorageFull {
            let free_bytes = super::cluster::free_bytes(&path);
            return Self::DiskFull { path, free_bytes };
        }
        Self::Files { path, source }
    }

    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotInstalled
            | Self::NoUser { .. }
            | Self::Unreachable { .. }
            | Self::LongPath { .. }
            | Self::OtherMajor { .. }
            | Self::Foreign { .. }
            | Self::WrongOwner { .. }
            | Self::Files { .. }
            | Self::Program { .. } => Class::Invalid,
            Self::DiskFull { .. } => Class::Limit,
            Self::Locked { .. } | Self::NotReady { .. } | Self::StaysAlive { .. } => Class::Transient,
            Self::Initdb { .. } | Self::Died { .. } => Class::Unavailable,
        }
    }

    /// For people, with the remedy.
    pub fn report(&self) -> Report {
        let elsewhere = "or give the address of another PostgreSQL by `--database-url`";
        let (code, hint) = match self {
            Self::NotInstalled => (
                "postgres_not_installed",
                format!("run `apt-get install postgresql`, {elsewhere}"),
            ),
            Self::NoUser { name } => (
                "postgres_no_user",
                format!("run `apt-get install postgresql`, which makes the user `{name}`, {elsewhere}"),
            ),
            Self::Unreachable { barrier, .. } => (
                "postgres_unreachable",
                format!(
                    "run `chmod o+x {}`, or choose another data directory",
                    barrier.display()
                ),
            ),
            Self::LongPath { .. } => (
                "postgres_long_path",
                "give a shorter directory by `--run-dir`".to_owned(),
            ),
            Self::OtherMajor {
                path,
                data,
                installed,
            } => ("postgres_other_major", upgrade(path, *data, installed)),
            Self::Foreign { path } => (
                "postgres_foreign_data",
                format!(
                    "nothing was changed; move `{}` away if it is not needed",
                    path.display()
                ),
            ),
            Self::WrongOwner { path, wanted, .. } => (
                "postgres_wrong_owner",
                format!("run `chown -R {wanted} {0}; chmod 700 {0}`", path.display()),
            ),
            Self::DiskFull { path, .. } => (
                "postgres_disk_full",
                format!(
                    "free at least {} MB on the file system of `{}`",
                    super::cluster::NEEDED_BYTES >> 20,
                    path.display()
                ),
            ),
            Self::Files { path, .. } => (
                "postgres_files",
                format!(
                    "look at owner and mode of `{}`, and of what is above it",
                    path.display()
                ),
            ),
            Self::Locked { .. } => (
                "postgres_locked",
                "another `ferroviad` is starting; try again".to_owned(),
            ),
            Self::Program { .. } => (
                "postgres_program",
                format!("run `apt-get install --reinstall postgresql`, {elsewhere}"),
            ),
            Self::Initdb { .. } => (
                "postgres_initdb",
                format!("nothing is left of the try; mend the cause, {elsewhere}"),
            ),
            Self::Died { .. } | Self::NotReady { .. } => (
                "postgres_not_starting",
                "mend the cause that its log names; the data was not changed".to_owned(),
            ),
            Self::StaysAlive { pid } => (
                "postgres_stays",
                format!("look at `/proc/{pid}/stack`: a disk may hang"),
            ),
        };
        Report::new(code, self.to_string()).with_hint(hint)
    }
}

fn upgrade(path: &Path, data: u32, installed: &[u32]) -> String {
    let Some(new) = installed.iter().max() else {
        return format!("run `apt-get install postgresql-{data}`");
    };
    let dir = path.parent().unwrap_or(path).display();
    format!(
        "run `apt-get install postgresql-{data}`: both may be installed, and the data's own is used. To upgrade the data, \
         with the platform stopped and both installed, as the user that owns `{dir}` and in that directory: \
         `/usr/lib/postgresql/{new}/bin/initdb -D data.{new} -E UTF8 --locale=C -k -U postgres --auth-local=trust`, \
         `/usr/lib/postgresql/{new}/bin/pg_upgrade -b /usr/lib/postgresql/{data}/bin -B /usr/lib/postgresql/{new}/bin \
         -d data -D data.{new}`, `mv data data.{data} && mv data.{new} data`"
    )
}

fn list(majors: &[u32]) -> String {
    if majors.is_empty() {
        return "none".to_owned();
    }
    majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// The last lines of a text, as one.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
    if last.is_empty() {
        "it said nothing".to_owned()
    } else {
        last
    }
}
