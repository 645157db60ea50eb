//! The daemon's life: started with the first build, proven by the canary, ended a minute after the last.
//!
//! Whoever builds holds a [`Lease`]. What a killed control left behind (a daemon, steps, a namespace) is ended before a
//! new daemon starts: everything of builds is in one control group that nothing else enters, which says more surely
//! what is ours than a process id in a file does.

mod start;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use axum::Router;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::network::AddressPlan;
use tokio::sync::{Mutex, watch};

use super::canary::{Canary, CanaryReport};
use super::cgroup::{BuildGroup, BuildLimits, GroupPlan};
use super::config::Upstream;
use super::network::BuildNetwork;
use super::tools::Tools;
use crate::launch::{ChildSpec, Launcher};
use crate::registry::Serve;
use crate::{BuildError, durable};

/// How long the daemon stays without a build, in milliseconds.
const IDLE_MS: u64 = 60_000;

/// How long it may take until an end of the daemon is seen here, in milliseconds.
const END_SEEN_MS: u64 = 1_000;

/// What the daemon needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories where `buildkitd` and `buildctl` are looked for before the `PATH`.
    pub tool_directories: Vec<PathBuf>,
    /// What is kept: the cache, the daemon's log, the canary's result.
    pub data_directory: PathBuf,
    /// What is not: sockets, configuration, secrets.
    pub run_directory: PathBuf,
    /// Names the control group: letters, digits and `-`, one an installation.
    pub group: String,
    /// Bounds of all builds together.
    pub limits: BuildLimits,
    /// Addresses and names of the network.
    pub addresses: AddressPlan,
    /// Who answers names; none: the gateway of the network, where `node` does.
    pub dns: Vec<Ipv4Addr>,
    /// Where the CNI plugins are.
    pub cni_directory: PathBuf,
    /// What the cache may take of the disk, in bytes.
    pub cache_bytes: u64,
    /// Most steps that run at a time.
    pub parallel_steps: u32,
    /// Where the platform's registry listens; image names contain it.
    pub registry: SocketAddr,
    /// Registries outside that are not like others.
    pub upstreams: Vec<Upstream>,
    /// A certificate authority that is trusted beside the system's.
    pub extra_ca_file: Option<PathBuf>,
}

/// The daemon, running or not.
pub struct Buildkit {
    options: Options,
    launcher: Arc<dyn Launcher>,
    registry: Router,
    serve: Serve,
    group: BuildGroup,
    network: BuildNetwork,
    state: Mutex<State>,
    canary: StdMutex<Option<CanaryReport>>,
    /// Builds that run, by scope.
    scopes: StdMutex<HashMap<String, usize>>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    users: usize,
    /// Grows with every lease, so that an idle timer sees that it is out of date.
    epoch: u64,
}

struct Running {
    /// Says when the daemon ended.
    ended: watch::Receiver<bool>,
    /// Tells it to end.
    stop: tokio::sync::mpsc::Sender<()>,
    /// Serves the registry in the namespace.
    registry: tokio::task::JoinHandle<()>,
    tools: Tools,
    plan: GroupPlan,
}

impl Running {
    fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }
}

impl Buildkit {
    /// A daemon that does not run yet. `registry` is served to it inside its network, by `serve`.
    pub fn new(
        options: Options,
        launcher: Arc<dyn Launcher>,
        registry: Router,
        serve: Serve,
    ) -> Result<Arc<Self>, BuildError> {
        let hierarchy = super::cgroup::Hierarchy::of_host().ok_or_else(|| BuildError {
            report: Report::new(
                "build_limits_unavailable",
                "this host has no control groups for memory, cpu and pids, so builds could not be limited",
            )
            .with_hint("mount the control groups (every systemd host does), or start the kernel with `cgroup_enable=memory`"),
            class: Class::Unavailable,
        })?;
        Ok(Arc::new(Self {
            group: BuildGroup::new(hierarchy, options.group.clone()),
            network: BuildNetwork::new(&options.addresses),
            options,
            launcher,
            registry,
            serve,
            state: Mutex::default(),
            canary: StdMutex::default(),
            scopes: StdMutex::default(),
        }))
    }

    /// Options that it was made with.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// What the canary said at the last start, for `doctor`.
    pub fn canary(&self) -> Option<CanaryReport> {
        self.canary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Directory for secrets of builds.
    pub(super) fn secret_directory(&self) -> PathBuf {
        secret_directory(&self.options.run_directory)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.options.run_directory.join("buildkitd.sock")
    }

    /// The daemon, started when it does not run. Starting goes on when the caller goes away.
    pub async fn acquire(self: &Arc<Self>, canary: Canary) -> Result<Lease, BuildError> {
        let kit = Arc::clone(self);
        let started = tokio::spawn(async move {
            let mut state = kit.state.lock().await;
            state.epoch += 1;
            if !state.running.as_ref().is_some_and(Running::is_alive) {
                if let Some(dead) = state.running.take() {
                    dead.registry.abort();
                }
                state.running = Some(kit.start(&canary).await?);
            }
            let running = state.running.as_ref().ok_or_else(vanished)?;
            let lease = Lease::new(Arc::clone(&kit), running, true);
            state.users += 1;
            Ok(lease)
        });
        started.await.unwrap_or_else(|_| Err(vanished()))
    }

    /// Ends the daemon, every step, and what they left; what was cached stays.
    pub async fn stop(&self) -> Result<(), BuildError> {
        let mut state = self.state.lock().await;
        self.end(&mut state).await
    }

    /// Whether somebody builds now.
    pub async fn is_used(&self) -> bool {
        self.state.lock().await.users > 0
    }

    /// Makes the host's end of the network, so that `node` finds its gateway there.
    pub async fn ensure_bridge(&self) -> Result<(), BuildError> {
        self.ensure_run_directory().await?;
        self.network.ensure_bridge().await
    }

    /// Before anything else is made: it says that there is something to take away.
    async fn ensure_run_directory(&self) -> Result<(), BuildError> {
        let made = durable::ensure_directory(&self.options.run_directory).await;
        made.map_err(|error| BuildError {
            report: Report::new(
                "buildkit_failed",
                format!("the run directory of builds cannot be made ({error})"),
            ),
            class: Class::Unavailable,
        })
    }

    async fn end(&self, state: &mut State) -> Result<(), BuildError> {
        if let Some(mut running) = state.running.take() {
            running.registry.abort();
            // A full channel was told already; a closed one ended.
            let _ = running.stop.try_send(());
            let _ = running.ended.wait_for(|ended| *ended).await;
        }
        let ended = self.group.remove().await;
        let removed = self.network.remove_namespace().await;
        ended.and(removed)
    }

    /// Ends a daemon that does not do what it is told; the next build starts another.
    pub(super) async fn restart(&self) {
        tracing::warn!("the build daemon is ended: it did not stop a cancelled build");
        if let Err(error) = self.stop().await {
            tracing::error!(code = error.report.code, "{}", error.report.message);
        }
    }

    /// Somebody stopped building.
    async fn release(self: Arc<Self>) {
        let mut state = self.state.lock().await;
        state.users = state.users.saturating_sub(1);
        let epoch = state.epoch;
        if state.users > 0 {
            return;
        }
        drop(state);
        tokio::time::sleep(Duration::from_millis(IDLE_MS)).await;
        let mut state = self.state.lock().await;
        if state.users == 0 && state.epoch == epoch && state.running.is_some() {
            tracing::info!("the build daemon ends: nothing was built for a minute");
            if let Err(error) = self.end(&mut state).await {
                tracing::warn!(code = error.report.code, "{}", error.report.message);
            }
        }
    }
}

/// Where secrets of builds are, below the run directory.
pub(crate) fn secret_directory(run_directory: &Path) -> PathBuf {
    run_directory.join("secrets")
}

fn vanished() -> BuildError {
    BuildError {
        report: Report::new("buildkit_failed", "the build daemon did not start"),
        class: Class::Transient,
    }
}

/// The right to use the daemon; it stays for as long as somebody holds one.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

struct Held {
    kit: Arc<Buildkit>,
    tools: Tools,
    plan: GroupPlan,
    ended: watch::Receiver<bool>,
    /// Whether it stands among the users; the canary's does not, since it runs while the daemon starts.
    counted: bool,
}

impl Lease {
    fn new(kit: Arc<Buildkit>, running: &Running, counted: bool) -> Self {
        Self(Arc::new(Held {
            kit,
            tools: running.tools.clone(),
            plan: running.plan.clone(),
            ended: running.ended.clone(),
            counted,
        }))
    }

    /// The daemon.
    pub(super) fn kit(&self) -> &Arc<Buildkit> {
        &self.0.kit
    }

    /// Whether the daemon ended.
    pub(super) fn has_ended(&self) -> bool {
        *self.0.ended.borrow()
    }

    /// Resolves when the daemon ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.0.ended.clone();
        // A closed channel is a daemon without anybody who watches it: gone as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether the daemon ended or is about to be seen as ended.
    pub(super) async fn ends_soon(&self) -> bool {
        let soon = Duration::from_millis(END_SEEN_MS);
        tokio::time::timeout(soon, self.ended()).await.is_ok()
    }

    /// What BuildKit is told as the parent of control groups.
    pub(super) fn cgroup_parent(&self) -> &str {
        &self.0.plan.parent
    }

    /// Counts a build of this scope until it is dropped.
    pub(super) fn enter_scope(&self, scope: &str) -> ScopeUse {
        let mut scopes = self.0.kit.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        *scopes.entry(scope.to_owned()).or_default() += 1;
        ScopeUse {
            kit: Arc::clone(&self.0.kit),
            scope: scope.to_owned(),
        }
    }

    /// The control group of builds.
    pub(super) fn group(&self) -> &BuildGroup {
        &self.0.kit.group
    }

    /// A command of `buildctl` against the daemon, inside its network and its control group.
    pub(super) fn client(&self, arguments: Vec<OsString>, config: &Path) -> tokio::process::Command {
        let held = &self.0;
        let mut address = OsString::from("unix://");
        address.push(held.kit.socket());
        let mut all: Vec<OsString> = vec![
            format!("--net={}", held.kit.network.namespace().display()).into(),
            held.tools.buildctl.clone().into(),
            "--addr".into(),
            address,
        ];
        all.extend(arguments);
        let mut spec = ChildSpec::new("nsenter", all)
            .with_env("DOCKER_CONFIG", config)
            .with_env("HOME", config);
        spec.env.extend(held.kit.environment());
        spec.cgroups = held.plan.daemon.clone();
        held.kit.launcher.command(&spec)
    }
}

/// A build of a scope that runs.
pub(super) struct ScopeUse {
    kit: Arc<Buildkit>,
    scope: String,
}

impl ScopeUse {
    /// Whose steps they are.
    pub(super) fn scope(&self) -> &str {
        &self.scope
    }

    /// Whether no other build has this scope.
    pub(super) fn is_alone(&self) -> bool {
        let scopes = self.kit.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.get(&self.scope).is_none_or(|builds| *builds <= 1)
    }
}

impl Drop for ScopeUse {
    fn drop(&mut self) {
        let mut scopes = self.kit.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(builds) = scopes.get_mut(&self.scope) {
            *builds -= 1;
            if *builds == 0 {
                scopes.remove(&self.scope);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.counted, tokio::runtime::Handle::try_current()) {
            runtime.spawn(Arc::clone(&self.kit).release());
        }
    }
}
