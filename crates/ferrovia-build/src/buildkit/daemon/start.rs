//! Starting the daemon: sweep, network, limits, process, registry, canary.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ferrovia_core::error::{Class, Report};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

use super::{Buildkit, Lease, Running};
use crate::buildkit::canary::{self, Canary, CanaryReport};
use crate::buildkit::cgroup::BuildLimits;
use crate::buildkit::config::DaemonConfig;
use crate::buildkit::network;
use crate::buildkit::secrets;
use crate::buildkit::tools::{Tools, missing_program};
use crate::launch::ChildSpec;
use crate::{BuildError, durable};

/// How long the daemon may take until it answers, in milliseconds.
const START_TIMEOUT_MS: u64 = 30_000;
/// How long it may take to end, in milliseconds; then it is killed.
const END_TIMEOUT_MS: u64 = 10_000;
/// The kernel takes builds before anything else on the host.
const OOM_SCORE_ADJ: i32 = 500;
/// Lines of the daemon's log in the report of its failure.
const LOG_LINES: usize = 20;
/// `PATH` of the daemon and its clients.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Gives the daemon its own view of who answers names, then becomes it. `$1`: the file; then the program.
const MOUNT_LINE: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;

impl Buildkit {
    /// Environment of the daemon and its clients.
    pub(super) fn environment(&self) -> Vec<(String, OsString)> {
        let mut environment = vec![("PATH".to_owned(), OsString::from(PATH))];
        if self.options.extra_ca_file.is_some() {
            let mut directories = OsString::from("/etc/ssl/certs:");
            directories.push(self.certificate_directory());
            environment.push(("SSL_CERT_DIR".to_owned(), directories));
        }
        environment
    }

    fn certificate_directory(&self) -> std::path::PathBuf {
        self.options.run_directory.join("ca")
    }

    fn dns(&self) -> Vec<Ipv4Addr> {
        match self.options.dns.as_slice() {
            [] => vec![self.network.gateway()],
            some => some.to_vec(),
        }
    }

    pub(super) async fn start(self: &Arc<Self>, canary: &Canary) -> Result<Running, BuildError> {
        let path = std::env::var("PATH").unwrap_or_default();
        let tools = Tools::find(&self.options.tool_directories, &path)?;
        if let Some(report) = missing_program(&path) {
            let class = Class::Unavailable;
            return Err(BuildError { report, class });
        }
        self.ensure_run_directory().await?;
        // Whatever an earlier control left. A group that is empty and stays gets its bounds anew.
        self.group.empty().await?;
        if let Err(error) = self.group.remove().await {
            tracing::warn!(code = error.report.code, "{}", error.report.message);
        }
        self.network.renew().await?;
        let limits = BuildLimits {
            memory_bytes: canary::LIMIT_BYTES.min(self.options.limits.memory_bytes),
            ..self.options.limits
        };
        let plan = self.group.ensure(&limits).await?;
        self.write_files(&plan.parent)
            .await
            .map_err(|error| failed(format!("the build daemon's files cannot be written ({error})")))?;
        let mut child = self.spawn(&tools, &plan.daemon)?;
        if let Err(error) = self.wait_until_it_answers(&mut child).await {
            let _ = child.kill().await;
            return Err(error);
        }
        let listener = network::listen(&self.network.namespace(), self.options.registry)
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| failed(format!("the registry cannot listen for builds ({error})")))?;
        let registry = tokio::spawn((self.serve)(listener, self.registry.clone()));
        let running = supervise(child, registry, tools, plan);
        match self.prove(&running, canary).await {
            Ok(()) => Ok(running),
            Err(error) => {
                let mut state = super::State {
                    running: Some(running),
                    ..super::State::default()
                };
                self.end(&mut state).await?;
                Err(error)
            }
        }
    }

    /// Shows that the limits hold, then sets the ones that were asked for.
    async fn prove(self: &Arc<Self>, running: &Running, canary: &Canary) -> Result<(), BuildError> {
        let lease = Lease::new(Arc::clone(self), running, false);
        let report = canary.run(&lease).await?;
        self.keep(&report).await;
        match &report.trouble {
            None => self.group.ensure(&self.options.limits).await.map(drop),
            Some(trouble) => Err(BuildError {
                report: Report::new(
                    "build_limits_not_enforced",
                    format!("nothing is built, since the limits of builds do not hold here: {trouble}"),
                )
                .with_hint("see `ferroviad doctor`; a build without limits could take this machine down"),
                class: Class::Unavailable,
            }),
        }
    }

    async fn keep(&self, report: &CanaryReport) {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        let text = serde_json::to_vec_pretty(report).unwrap_or_default();
        let path = self.options.data_directory.join(canary::FILE);
        if let Err(error) = durable::write(&path, &text).await {
            tracing::warn!(%error, "the canary's result is not kept for `doctor`");
        }
    }

    async fn write_files(&self, cgroup_parent: &str) -> std::io::Result<()> {
        let (run, data) = (&self.options.run_directory, &self.options.data_directory);
        durable::ensure_directory(data).await?;
        secrets::sweep(&self.secret_directory())?;
        secrets::sweep(&run.join("addresses"))?;
        let dns = self.dns();
        let conflist = run.join("cni.conflist");
        let text = self.network.conflist(&run.join("addresses")).to_string();
        durable::write(&conflist, text.as_bytes()).await?;
        let names: String = dns
            .iter()
            .map(|address| format!("nameserver {address}\n"))
            .collect();
        durable::write(&run.join("resolv.conf"), names.as_bytes()).await?;
        if let Some(file) = &self.options.extra_ca_file {
            let directory = self.certificate_directory();
            durable::ensure_directory(&directory).await?;
            durable::write(&directory.join("extra.pem"), &tokio::fs::read(file).await?).await?;
        }
        let config = DaemonConfig {
            root: &data.join("root"),
            socket: &self.socket(),
            dns: &dns,
            conflist: &conflist,
            cni_directory: &self.options.cni_directory,
            cgroup_parent,
            parallel_steps: self.options.parallel_steps,
            cache_bytes: self.options.cache_bytes,
            registry: self.options.registry,
            upstreams: &self.options.upstreams,
        };
        let text = config.render().map_err(std::io::Error::other)?;
        durable::write(&run.join("buildkitd.toml"), text.as_bytes()).await?;
        durable::remove(&self.socket()).await
    }

    fn spawn(&self, tools: &Tools, cgroups: &[std::path::PathBuf]) -> Result<Child, BuildError> {
        let run = &self.options.run_directory;
        let log = std::fs::File::create(self.log_file())
            .map_err(|error| failed(format!("the build daemon's log cannot be written ({error})")))?;
        let net = format!("--net={}", self.network.namespace().display());
        let mut arguments: Vec<OsString> = [
            &net,
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "/bin/sh",
            "-c",
        ]
        .map(OsString::from)
        .into();
        arguments.extend([
            MOUNT_LINE.into(),
            "daemon".into(),
            run.join("resolv.conf").into(),
            tools.buildkitd.clone().into(),
            "--config".into(),
            run.join("buildkitd.toml").into(),
        ]);
        let mut spec = ChildSpec::new("nsenter", arguments).with_env("HOME", &self.options.data_directory);
        spec.env.extend(self.environment());
        spec.cgroups = cgroups.to_vec();
        spec.oom_score_adj = Some(OOM_SCORE_ADJ);
        self.launcher
            .command(&spec)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("the build daemon does not start ({error})")))
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.options.data_directory.join("buildkitd.log")
    }

    async fn wait_until_it_answers(&self, child: &mut Child) -> Result<(), BuildError> {
        let socket = self.socket();
        let answers = async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let why = tokio::select! {
            () = answers => return Ok(()),
            status = child.wait() => match status {
                Ok(status) => format!("it ended at once, {status}"),
                Err(error) => error.to_string(),
            },
            () = tokio::time::sleep(Duration::from_millis(START_TIMEOUT_MS)) => {
                format!("it did not answer in {} s", START_TIMEOUT_MS / 1000)
            }
        };
        let mut error = failed(format!("the build daemon does not start: {why}"));
        error.report.log = last_lines(&self.log_file());
        Err(error)
    }
}

/// Watches a daemon and ends it when told.
fn supervise(
    mut child: Child,
    registry: tokio::task::JoinHandle<()>,
    tools: Tools,
    plan: crate::buildkit::cgroup::GroupPlan,
) -> Running {
    let (stop, mut told) = mpsc::channel::<()>(1);
    let (say_ended, ended) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            status = child.wait() => {
                tracing::warn!(?status, "the build daemon ended by itself");
            }
            _ = told.recv() => {
                if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let wait = tokio::time::timeout(Duration::from_millis(END_TIMEOUT_MS), child.wait());
                if wait.await.is_err() {
                    let _ = child.kill().await;
                }
            }
        }
        say_ended.send_replace(true);
    });
    Running {
        ended,
        stop,
        registry,
        tools,
        plan,
    }
}

fn failed(message: String) -> BuildError {
    BuildError {
        report: Report::new("buildkit_failed", message)
            .with_hint("see `ferroviad doctor` and the build daemon's log"),
        class: Class::Unavailable,
    }
}

fn last_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
