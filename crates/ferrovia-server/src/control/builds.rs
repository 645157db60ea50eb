//! The builder of images, as the configuration sets it up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_build::BuildLog;
use ferrovia_build::buildkit::cgroup::BuildLimits;
use ferrovia_build::launch::ReexecLauncher;
use ferrovia_build::platform::{Leftovers, Options, Parts, PlatformBuilder};
use ferrovia_build::registry::{Access, Store};
use ferrovia_build::tree::TreeStore;
use ferrovia_control::disk::StoredManifests;
use ferrovia_store::Db;

use super::registries;
use crate::command::Failure;
use crate::config::Config;
use crate::http::serve;
use crate::process::executable;

/// Where Debian installs the plugins of containers' networks.
const CNI_DIR: &str = "/usr/lib/cni";
/// Steps of builds that run at the same time.
const PARALLEL_STEPS: u32 = 4;

/// The builder. Starts nothing.
///
/// # Errors
/// When its settings are wrong or its data cannot be used.
pub fn open(
    config: &Config,
    db: &Db,
    trees: &TreeStore,
    store: &Arc<Store>,
    access: Access,
) -> Result<Arc<PlatformBuilder>, Failure> {
    let build = &config.file.build;
    let mut limits = BuildLimits::for_host(host_memory_bytes());
    if let Some(memory_bytes) = build.memory_bytes {
        limits.memory_bytes = memory_bytes;
    }
    limits.cpu_quota_millis = build.cpu_millis;
    limits.pids = build.pids;
    let parts = Parts {
        store: store.clone(),
        access,
        trees: trees.clone(),
        manifests: Arc::new(StoredManifests(db.clone())),
        launcher: Arc::new(ReexecLauncher {
            executable: executable::path()?,
        }),
        serve: serve::builds_registry(),
    };
    let options = Options {
        data_directory: config.paths.buildkit(),
        run_directory: config.paths.build_run(),
        registry: config.registry_listen,
        hosts: registries::read(config)?,
        extra_ca_file: build.extra_ca_file.clone(),
        group: group(config),
        limits,
        addresses: config.addresses.clone(),
        dns: Vec::new(),
        tool_directories: build.buildkit_dir.iter().cloned().collect(),
        cni_directory: PathBuf::from(CNI_DIR),
        cache_bytes: build.cache_bytes,
        parallel_steps: PARALLEL_STEPS,
        timeout: Duration::from_secs(u64::from(build.timeout_s)),
        origin: None,
        seed_directory: build.seed_dir.clone(),
    };
    Ok(PlatformBuilder::new(parts, options)?)
}

/// What builds hold of the host, for whoever ends the platform.
pub fn leftovers(config: &Config) -> Leftovers {
    let (data, run) = (config.paths.buildkit(), config.paths.build_run());
    Leftovers::new(&data, &run, &group(config), &config.addresses)
}

/// The control group of builds.
fn group(config: &Config) -> String {
    format!("{}-builds", config.addresses.interface_prefix)
}

/// Makes ready what the first build needs, so that nobody waits for it; a build that comes first does the same.
pub async fn prepare(builder: Arc<PlatformBuilder>) {
    if let Err(error) = builder.prepare(&Told).await {
        tracing::warn!("builds are not prepared: {error}; the first build tries again");
    }
}

/// What preparing does goes to control's log.
struct Told;

impl BuildLog for Told {
    fn line(&self, step: Option<&str>, _at_ms: u64, text: &str) {
        tracing::info!(step, "builds are prepared: {text}");
    }
}

/// All memory of the host, from proc_meminfo(5); 0 when it cannot be read, which gives the least limits.
fn host_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| {
        let value = line.strip_prefix("MemTotal:")?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kilobytes.unwrap_or_default().saturating_mul(1024)
}
