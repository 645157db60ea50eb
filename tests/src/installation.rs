//! Where a platform of a test lives: its own directories, ports and address ranges; the machine's Docker Engine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Failure, app};

/// The machine's Docker Engine.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Which engine a platform runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The machine's Docker Engine.
    Docker,
    /// The fake engine.
    Fake,
}

/// Directories, ports and flags of one platform; what it left on the engine is taken away when this is dropped.
#[derive(Debug)]
pub struct Installation {
    dir: TempDir,
    docker: PathBuf,
    flags: Vec<String>,
    /// Where the edge listens.
    pub http: SocketAddr,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the registry listens.
    pub registry: SocketAddr,
}

impl Installation {
    /// An empty one for this engine, or for the Docker Engine behind this socket.
    ///
    /// # Errors
    /// When files cannot be written or no port is free.
    pub fn new(engine: Engine, docker: &Path) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("fv")
            .rand_bytes(4)
            .tempdir_in("/var/tmp")?;
        // Other users' processes (PostgreSQL, the edge) must come through.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let config = dir.path().join("ferroviad.toml");
        std::fs::write(
            &config,
            "[network.addresses]\nmembers = \"10.250.0.0/16\"\nservices = \"10.251.0.0/16\"\nbuilds = \"10.252.0.0/24\"\ninterface_prefix = \"ft\"\n",
        )?;
        let [http, api, registry] = [free_port()?, free_port()?, free_port()?];
        // Base images are made once for all tests.
        let seeds = app::repository().join("target/test-bases");
        let mut flags = vec![
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--run-dir={}", dir.path().join("run").display()),
            format!("--config={}", config.display()),
            format!("--http-listen={http}"),
            format!("--api-listen={api}"),
            format!("--registry-listen={registry}"),
            format!("--docker-host=unix://{}", docker.display()),
            format!("--build-seed-dir={}", seeds.display()),
        ];
        if engine == Engine::Fake {
            flags.push("--engine=fake".to_owned());
        }
        if let Ok(file) = std::env::var("FERROVIA_TEST_EXTRA_CA_FILE") {
            flags.push(format!("--build-extra-ca-file={file}"));
        }
        if let Ok(buildkit) = std::env::var("FERROVIA_TEST_BUILDKIT_DIR") {
            flags.push(format!("--buildkit-dir={buildkit}"));
        }
        Ok(Self {
            dir,
            docker: docker.to_owned(),
            flags,
            http,
            api,
            registry,
        })
    }

    /// The flags that every command of `ferroviad` takes for it.
    pub fn flags(&self) -> &[String] {
        &self.flags
    }

    /// The directory around everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs `ferroviad` with this installation's flags; its standard output.
    ///
    /// # Errors
    /// When it exits with a failure.
    pub fn daemon(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = Command::new(binary("ferroviad")?)
            .args(arguments)
            .args(&self.flags)
            .output()?;
        if !output.status.success() {
            return Err(format!(
                "ferroviad {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The process id of `control`, `edge` or `node`, from its lock.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid_of(&self, unit: &str) -> Result<u32, Failure> {
        let directory = match unit {
            "edge" => self.run_dir().join("edge"),
            _ => self.run_dir(),
        };
        let text = std::fs::read_to_string(directory.join(format!("{unit}.lock")))?;
        let holder: Value = serde_json::from_str(&text)?;
        Ok(u32::try_from(holder["pid"].as_u64().ok_or("no pid")?)?)
    }

    /// The process id of the private PostgreSQL.
    ///
    /// # Errors
    /// When there is none.
    pub fn postgres_pid(&self) -> Result<u32, Failure> {
        let text = std::fs::read_to_string(self.data_dir().join("postgres/data/postmaster.pid"))?;
        Ok(text.lines().next().ok_or("empty")?.trim().parse()?)
    }

    /// The processes of the platform beneath `serve`, by name.
    ///
    /// # Errors
    /// When one was never started.
    pub fn processes(&self) -> Result<[(&'static str, u32); 4], Failure> {
        Ok([
            ("control", self.pid_of("control")?),
            ("edge", self.pid_of("edge")?),
            ("node", self.pid_of("node")?),
            ("PostgreSQL", self.postgres_pid()?),
        ])
    }

    /// Docker's command line for the engine that this installation stands on.
    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.docker.display()));
        command
    }

    /// The ids of what it has of a kind on the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn objects(&self, kind: Kind) -> Result<Vec<String>, Failure> {
        let Ok(id) = std::fs::read_to_string(self.data_dir().join("installation-id")) else {
            return Ok(Vec::new());
        };
        let list: &[&str] = match kind {
            Kind::RunningContainers => &["ps", "--quiet"],
            Kind::Containers => &["ps", "--all", "--quiet"],
            Kind::Networks => &["network", "ls", "--quiet"],
        };
        let filter = format!("label=ferrovia.installation={}", id.trim());
        let listed = self.docker().args(list).args(["--filter", &filter]).output()?;
        if !listed.status.success() {
            return Err(String::from_utf8_lossy(&listed.stderr).into());
        }
        Ok(String::from_utf8(listed.stdout)?
            .split_whitespace()
            .map(str::to_owned)
            .collect())
    }

    /// The next platform has another identity, and takes nothing of this one away.
    fn clear_engine(&self) -> Result<(), Failure> {
        for (kind, remove) in [
            (Kind::Containers, ["rm", "--force"]),
            (Kind::Networks, ["network", "rm"]),
        ] {
            let ids = self.objects(kind)?;
            if !ids.is_empty() {
                self.docker().args(remove).args(ids).output()?;
            }
        }
        Ok(())
    }
}

/// What an installation has on the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers that run.
    RunningContainers,
    /// Containers, running or not.
    Containers,
    /// Networks.
    Networks,
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Err(error) = self.clear_engine() {
            eprintln!("{error}");
        }
    }
}

/// Whether a process runs; one that has ended may wait for its parent to ask.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z")
}

/// A binary of this workspace, built beside the tests.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf, Failure> {
    let dir = match std::env::var_os("FERROVIA_TEST_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .map(Path::to_owned)
            .ok_or("no target directory")?,
    };
    let path = dir.join(name);
    if !path.exists() {
        return Err(format!(
            "{} is not built: cargo build -p ferrovia-server -p ferrovia-cli",
            path.display()
        )
        .into());
    }
    Ok(path)
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
