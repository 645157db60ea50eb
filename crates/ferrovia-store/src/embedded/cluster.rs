//! The cluster's files: made once, complete or not at all, and used with the programs of their own version.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::Path;
use std::process::{Output, Stdio};

use super::account::Account;
use super::binaries::Programs;
use super::error::last_lines;
use super::{Config, Error, ROLE, settings, socket_dir};

/// What must be free before a cluster is made, in bytes: it has 40 MB and grows.
pub(super) const NEEDED_BYTES: u64 = 200 << 20;

/// The programs for the cluster, which is made if it is not there. Under the lock.
pub(super) async fn ensure(config: &Config, account: &Account) -> Result<Programs, Error> {
    let (config, account) = (config.clone(), account.clone());
    let made = tokio::task::spawn_blocking(move || {
        let programs = match major(&config.data(), &account)? {
            Some(major) => installed(&config.data(), major)?,
            None => create(&config, &account)?,
        };
        write_settings(&config, &account)?;
        Ok(programs)
    });
    made.await.unwrap_or_else(|error| {
        Err(Error::Initdb {
            said: error.to_string(),
        })
    })
}

/// The major version of the cluster; none when there is nothing.
fn major(data: &Path, account: &Account) -> Result<Option<u32>, Error> {
    let failed = |source: io::Error| Error::files(data, source);
    let metadata = match fs::metadata(data) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let Ok(major) = version.trim().parse() else {
        return match fs::read_dir(data).map_err(failed)?.next() {
            Some(_) => Err(Error::Foreign {
                path: data.to_owned(),
            }),
            // An empty directory, as a mount point is: nothing can be renamed over a mount.
            None => fs::remove_dir(data).map_err(failed).map(|()| None),
        };
    };
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    if owner != account.uid || mode & 0o027 != 0 {
        let (path, wanted) = (data.to_owned(), account.uid);
        return Err(Error::WrongOwner {
            path,
            owner,
            mode,
            wanted,
        });
    }
    Ok(Some(major))
}

fn installed(data: &Path, major: u32) -> Result<Programs, Error> {
    let installed = Programs::installed();
    if installed.is_empty() {
        return Err(Error::NotInstalled);
    }
    let majors = installed.iter().map(|programs| programs.major).collect();
    let same = installed.into_iter().rfind(|programs| programs.major == major);
    same.ok_or_else(|| Error::OtherMajor {
        path: data.to_owned(),
        data: major,
        installed: majors,
    })
}

fn create(config: &Config, account: &Account) -> Result<Programs, Error> {
    let programs = Programs::installed().pop().ok_or(Error::NotInstalled)?;
    let free_bytes = free_bytes(&config.dir);
    if free_bytes < NEEDED_BYTES {
        return Err(Error::DiskFull {
            path: config.dir.clone(),
            free_bytes,
        });
    }
    let new = config.dir.join("data.new");
    match fs::remove_dir_all(&new) {
        Ok(()) => tracing::info!("removed a database that was not made to its end"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::files(&new, error)),
    }
    let initdb = programs.path("initdb");
    let output = account
        .command(&initdb)
        .args([
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--wal-segsize=4",
            "--username=postgres",
        ])
        .args([
            "--auth-local=peer",
            "--auth-host=reject",
            "--no-instructions",
            "--pgdata",
        ])
        .arg(&new)
        .output()
        .map_err(|source| Error::Program {
            program: initdb,
            source,
        })?;
    check(&output, config)?;
    add_role(&programs, account, &new, config)?;
    // Complete and on disk: `initdb` and the server have synced what they wrote.
    fs::rename(&new, config.data()).map_err(|source| Error::files(&new, source))?;
    sync(&config.dir)?;
    Ok(programs)
}

/// Makes the platform's role and database without a server that listens.
fn add_role(programs: &Programs, account: &Account, data: &Path, config: &Config) -> Result<(), Error> {
    let postgres = programs.path("postgres");
    let failed = |source| Error::Program {
        program: postgres.clone(),
        source,
    };
    let mut child = account
        .command(&postgres)
        .args(["--single", "-D"])
        .arg(data)
        .args(["-c", "exit_on_error=on", "-c", "log_checkpoints=off", "postgres"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // That it has ended before it read this is told by its status.
        let _ = write!(
            input,
            "CREATE ROLE {ROLE} LOGIN\nCREATE DATABASE {ROLE} OWNER {ROLE}\n"
        );
    }
    let output = child.wait_with_output().map_err(failed)?;
    check(&output, config)
}

fn check(output: &Output, config: &Config) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = last_lines(&String::from_utf8_lossy(&output.stderr));
    if said.contains("No space left on device") {
        let free_bytes = free_bytes(&config.dir);
        return Err(Error::DiskFull {
            path: config.dir.clone(),
            free_bytes,
        });
    }
    Err(Error::Initdb { said })
}

fn write_settings(config: &Config, account: &Account) -> Result<(), Error> {
    let data = config.data();
    for (name, text) in [
        (
            "ferrovia.conf",
            settings::configuration(&socket_dir(&config.run_dir), data.join("local.conf").exists()),
        ),
        ("pg_hba.conf", settings::admission()),
        ("pg_ident.conf", settings::roles(account)),
    ] {
        let (path, partial) = (data.join(name), data.join(format!("{name}.partial")));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(text.as_bytes())?;
            if let Some((uid, gid)) = account.switch_to() {
                chown(&partial, Some(uid), Some(gid))?;
            }
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().map_err(|source| Error::files(&path, source))?;
    }
    sync(&data)
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Error::files(dir, source))
}

/// What unprivileged users may still write on the file system of `path`, in bytes; 0 when that is not known.
pub(super) fn free_bytes(path: &Path) -> u64 {
    let known = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    known.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
