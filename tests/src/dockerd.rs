//! A Docker Engine of a test's own, to be ended and started again: the machine's belongs to everybody.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Failure;

/// How long an engine may take to answer, in seconds.
const READY_S: u64 = 120;
/// How often it is asked until it does, in milliseconds.
const LOOK_MS: u64 = 100;
/// The bridge of the tests' platforms.
const BRIDGE: &str = "ft0";
/// The engine's own bridge, which nothing uses: one without takes the bridge of the machine's engine away.
const OWN_BRIDGE: &str = "ftd0";
/// Its address.
const OWN_ADDRESS: &str = "10.249.0.1/24";
/// From it and to it.
const DIRECTIONS: [&str; 2] = ["-i", "-o"];

/// An engine that keeps containers running while it is away; ended when dropped.
#[derive(Debug)]
pub struct Dockerd {
    dir: TempDir,
    process: Child,
}

impl Dockerd {
    /// Starts an engine with nothing on it.
    ///
    /// # Errors
    /// When none is installed or it does not answer.
    pub async fn start() -> Result<Self, Failure> {
        // Below /var, like the real one: containers' layers do not fit into every /tmp.
        let dir = tempfile::Builder::new()
            .prefix("fvd")
            .rand_bytes(4)
            .tempdir_in("/var/tmp")?;
        ip(&["link", "add", OWN_BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", OWN_ADDRESS, "dev", OWN_BRIDGE])?;
        let process = spawn(&dir)?;
        let mut dockerd = Self { dir, process };
        // The machine's own engine lets nothing through that is not its own.
        for direction in DIRECTIONS {
            forward("-I", direction)?;
        }
        dockerd.answers().await?;
        Ok(dockerd)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Ends it by a signal; its containers go on.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn end(&mut self, signal: Signal) -> Result<(), Failure> {
        let pid = Pid::from_raw(i32::try_from(self.process.id())?).ok_or("no process")?;
        kill_process(pid, signal)?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same data.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_again(&mut self) -> Result<(), Failure> {
        self.process = spawn(&self.dir)?;
        self.answers().await
    }

    /// Waits for its answer. One that gives up on the containerd of one that was killed is started again, as an init
    /// system does.
    async fn answers(&mut self) -> Result<(), Failure> {
        let host = format!("unix://{}", self.socket().display());
        let deadline = Instant::now() + Duration::from_secs(READY_S);
        loop {
            let asked = Command::new("docker")
                .arg("version")
                .env("DOCKER_HOST", &host)
                .output()?;
            if asked.status.success() {
                return Ok(());
            }
            if self.process.try_wait()?.is_some() {
                self.process = spawn(&self.dir)?;
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("dockerd.log")).unwrap_or_default();
                return Err(format!("dockerd does not answer\n{log}").into());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::TERM) {
            eprintln!("dockerd was not ended: {error}");
        }
        for direction in DIRECTIONS {
            if let Err(error) = forward("-D", direction) {
                eprintln!("{error}");
            }
        }
        // What a killed one has left behind.
        for bridge in [BRIDGE, OWN_BRIDGE] {
            // The tests' bridge is gone with the last platform's network, if all went well.
            let _ = ip(&["link", "delete", bridge]);
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.dir.path().display().to_string();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&own) {
                let _ = Command::new("umount").args(["--lazy", mount]).status();
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("ip").args(arguments).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("ip {}: {why}", arguments.join(" ")).into())
        }
    }
}

/// Adds or deletes the rule for one direction of the tests' bridge.
fn forward(action: &str, direction: &str) -> Result<(), Failure> {
    let rule = [action, "FORWARD", direction, BRIDGE, "-j", "ACCEPT"];
    let output = Command::new("iptables").args(rule).output()?;
    if !output.status.success() {
        return Err(format!(
            "iptables {}: {}",
            rule.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    Ok(())
}

fn spawn(dir: &TempDir) -> Result<Child, Failure> {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(at("dockerd.log"))?;
    let pid_file = at("docker.pid");
    // One that was killed leaves it behind.
    let _ = std::fs::remove_file(&pid_file);
    Ok(Command::new("dockerd")
        .args([
            "--live-restore",
            "--bridge=ftd0",
            "--iptables=false",
            "--ip6tables=false",
        ])
        .args(["--ip-forward=false", "--ip-masq=false", "--host"])
        .arg(format!("unix://{}", at("docker.sock")))
        .args([
            "--data-root",
            &at("data"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &pid_file,
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}
