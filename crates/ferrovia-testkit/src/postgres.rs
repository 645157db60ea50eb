//! A PostgreSQL of this process' own: in a temporary directory, on a Unix socket, without fsync.
//!
//! A shell supervises it and reads a pipe whose other end only this process holds: however this process ends, by
//! SIGKILL too, the pipe closes, and the shell ends the server and removes the directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to answer, in milliseconds.
const START_MS: u64 = 60_000;
/// Longest path of a Unix socket, in bytes (`sun_path` less its final NUL).
const SOCKET_PATH_BYTES: usize = 107;

/// Connections at once. Tests run side by side, and what a test kills keeps its connections for a moment.
const MAX_CONNECTIONS: &str = "800";

/// Ends the server when it gets nothing more to read, and removes the directory.
const SUPERVISOR: &str = r#"dir=$1; shift
"$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
read -r _
kill -QUIT "$pid"; wait "$pid"
rm -rf "$dir""#;

/// A running server. It ends when this is dropped and when the process ends.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    bin: PathBuf,
    supervisor: Child,
}

impl Server {
    /// Makes a cluster and starts it.
    ///
    /// Panics with what the server said when that does not work; PostgreSQL must be installed.
    pub fn start() -> Self {
        let bin = binaries();
        let user = server_user();
        let dir = directory(user);
        let as_server = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir("/").process_group(0);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = as_server(&bin.join("initdb"))
            .args([
                "--no-sync",
                "--no-instructions",
                "--encoding=UTF8",
                "--locale=C",
                "--wal-segsize=1",
            ])
            .args(["--auth=trust", "--username=postgres", "--pgdata"])
            .arg(dir.join("data"))
            .output()
            .expect("`initdb` runs");
        assert!(
            made.status.success(),
            "`initdb` failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let supervisor = as_server(Path::new("/bin/sh"))
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&dir)
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(dir.join("data"))
            .arg("-k")
            .arg(&dir)
            .args(["-h", "", "-F", "-N", MAX_CONNECTIONS])
            .args([
                "-c",
                "shared_buffers=32MB",
                "-c",
                "wal_level=minimal",
                "-c",
                "max_wal_senders=0",
            ])
            .args([
                "-c",
                "full_page_writes=off",
                "-c",
                "synchronous_commit=off",
                "-c",
                "autovacuum=off",
            ])
            .args(["-c", "jit=off", "-c", "max_parallel_workers_per_gather=0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`/bin/sh` runs");
        let server = Self { dir, bin, supervisor };
        server.await_ready();
        server
    }

    /// The address of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.dir.display())
    }

    /// The directory of PostgreSQL's programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The cluster's files, for tests that look for what must not be in them.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn await_ready(&self) {
        let deadline = Instant::now() + Duration::from_millis(START_MS);
        let pid_file = self.data().join("postmaster.pid");
        loop {
            // Line 8 of the pid file is the server's state.
            let state = fs::read_to_string(&pid_file).unwrap_or_default();
            let is_ready = state.lines().nth(7).is_some_and(|state| state.trim() == "ready");
            if is_ready && UnixStream::connect(self.dir.join(".s.PGSQL.5432")).is_ok() {
                return;
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                panic!("PostgreSQL did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// The newest of Debian's version directories, else where `initdb` lies on the `PATH`.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max();
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest
        .map(|(_, bin)| bin)
        .or_else(|| std::env::split_paths(&path).find(|dir| dir.join("initdb").exists()))
        .expect("PostgreSQL is not installed: `apt-get install postgresql`")
}

/// The user to run as: none but this process' own, unless that is root, whom PostgreSQL refuses.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("`/etc/passwd` is readable");
    let mut fields = users
        .lines()
        .find(|line| line.starts_with("postgres:"))?
        .split(':')
        .skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn directory(user: Option<(u32, u32)>) -> PathBuf {
    let temporary = std::env::temp_dir();
    let longest = temporary.join("fvpg-12345678/.s.PGSQL.5432");
    let parent = if longest.as_os_str().len() > SOCKET_PATH_BYTES {
        "/tmp".into()
    } else {
        temporary
    };
    let dir = tempfile::Builder::new()
        .prefix("fvpg-")
        .rand_bytes(8)
        .tempdir_in(parent)
        .expect("a temporary directory can be made")
        // The supervisor removes it.
        .keep();
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("it is ours");
    if let Some((uid, gid)) = user {
        chown(&dir, Some(uid), Some(gid)).expect("root may");
    }
    dir
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// Run by the test below in a process of its own, which is killed.
    #[test]
    #[ignore = "waits to be killed"]
    fn starts_and_waits_to_be_killed() {
        let server = Server::start();
        println!("server in {}", server.dir.display());
        std::thread::park();
    }

    #[test]
    fn a_killed_process_leaves_nothing() {
        let name = "postgres::tests::starts_and_waits_to_be_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let dir = lines.find_map(|line| line.split_once("server in ").map(|(_, dir)| PathBuf::from(dir)));
        let dir = dir.expect("it says where its server is");
        let pid = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
        let process = Path::new("/proc").join(pid.lines().next().unwrap());
        assert!(process.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_millis(START_MS);
        while dir.exists() || process.exists() {
            assert!(Instant::now() < deadline, "the server outlives its process");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn starts_and_leaves_nothing() {
        let server = Server::start();
        let dir = server.dir.clone();
        assert!(dir.exists());
        drop(server);
        assert!(!dir.exists());
    }
}
