//! A whole builder for a live test: registry, BuildKit, network, bases. One at a time, since the network has one name.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_build::bases::Bases;
use ferrovia_build::buildkit::cgroup::BuildLimits;
use ferrovia_build::buildkit::daemon::{Buildkit, Lease};
use ferrovia_build::buildkit::progress::Line;
use ferrovia_build::buildkit::secrets::Mask;
use ferrovia_build::buildkit::solve::{Job, SolveError, Solved};
use ferrovia_build::fetch::Hosts;
use ferrovia_build::launch::ShellLauncher;
use ferrovia_build::narrator::Narrator;
use ferrovia_build::platform::{Leftovers, Manifests, Options, Parts, PlatformBuilder};
use ferrovia_build::tree::TreeStore;
use ferrovia_build::{BuildError, BuildLog, BuildRequest, BuildSource, Builder, BuiltImage, PlannedBuild};
use ferrovia_core::id::{BuildId, ProjectId, ServiceId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::settings::BuildSettings;
use ferrovia_core::tree::Manifest;

use crate::served::Served;
use crate::served::serve;
use crate::trees::{put_all, scan};

/// Memory of builds in tests, in bytes.
pub const MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// Control group of builds in tests.
const GROUP: &str = "ferrovia-fb";

static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Lines of a build.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl BuildLog for Lines {
    fn line(&self, step: Option<&str>, _at_ms: u64, text: &str) {
        let line = format!("{}: {text}", step.unwrap_or_default());
        eprintln!("{line}");
        self.0.lock().unwrap().push(line);
    }
}

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn has(&self, text: &str) -> bool {
        self.all().iter().any(|line| line.contains(text))
    }
}

pub struct Site {
    pub served: Served,
    pub builder: Arc<PlatformBuilder>,
    pub trees: TreeStore,
    pub manifests: Arc<KnownManifests>,
    pub kit: Arc<Buildkit>,
    pub bases: Arc<Bases>,
    pub lines: Arc<Lines>,
}

/// Manifests that were uploaded.
#[derive(Default)]
pub struct KnownManifests(Mutex<HashMap<(ProjectId, String), Manifest>>);

#[async_trait]
impl Manifests for KnownManifests {
    async fn find(&self, project: ProjectId, digest: &str) -> Result<Option<Manifest>, BuildError> {
        let known = self.0.lock().unwrap();
        Ok(known.get(&(project, digest.to_owned())).cloned())
    }
}

pub fn address_plan() -> AddressPlan {
    AddressPlan {
        members: "10.240.0.0/16".parse().unwrap(),
        services: "10.241.0.0/16".parse().unwrap(),
        builds: "10.242.0.0/24".parse().unwrap(),
        interface_prefix: "fb".into(),
    }
}

/// Who answers names on this host: `node` does not run in these tests.
fn host_dns() -> Vec<std::net::Ipv4Addr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let servers = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    servers.collect()
}

/// Base images are made once for all tests, those of the whole platform too.
fn seed_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-bases")
}

fn tool_directories() -> Vec<PathBuf> {
    let given = std::env::var_os("FERROVIA_TEST_BUILDKIT_DIR").map(PathBuf::from);
    let home = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    vec![given.unwrap_or_else(|| home.join(".cache/ferrovia/tools/buildkit-v0.34.2"))]
}

/// The host's own bundle of authorities: what a company with a proxy of its own would set.
pub fn extra_authority() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

impl Site {
    async fn start(hosts: Hosts) -> Self {
        let served = Served::start().await;
        let registry = served.host.parse().unwrap();
        let directory = served.directory.path().to_owned();
        let manifests = Arc::new(KnownManifests::default());
        let trees = TreeStore::new(directory.join("trees-store"));
        let parts = Parts {
            store: Arc::clone(&served.store),
            access: served.access.clone(),
            trees: trees.clone(),
            manifests: Arc::clone(&manifests) as Arc<dyn Manifests>,
            launcher: Arc::new(ShellLauncher),
            serve: serve(),
        };
        let options = Options {
            data_directory: directory.join("buildkit"),
            run_directory: directory.join("run"),
            registry,
            hosts,
            extra_ca_file: extra_authority(),
            group: GROUP.into(),
            limits: BuildLimits {
                memory_bytes: MEMORY_BYTES,
                cpu_quota_millis: None,
                cpu_weight: 100,
                pids: 2048,
            },
            addresses: address_plan(),
            dns: host_dns(),
            tool_directories: tool_directories(),
            cni_directory: "/usr/lib/cni".into(),
            cache_bytes: 4_000_000_000,
            parallel_steps: 2,
            timeout: Duration::from_secs(900),
            origin: None,
            seed_directory: Some(seed_directory()),
        };
        let builder = PlatformBuilder::new(parts, options).unwrap();
        Self {
            kit: Arc::clone(builder.kit()),
            bases: Arc::clone(builder.bases()),
            served,
            builder,
            trees,
            manifests,
            lines: Arc::default(),
        }
    }

    /// What the site's builds hold of the host.
    pub fn leftovers(&self) -> Leftovers {
        let directory = self.served.directory.path();
        let (data, run) = (directory.join("buildkit"), directory.join("run"));
        Leftovers::new(&data, &run, GROUP, &address_plan())
    }

    /// A directory as an uploaded tree of a project; its digest.
    pub async fn upload(&self, project: ProjectId, directory: &Path) -> String {
        let (entries, contents) = scan(directory);
        put_all(&self.trees, project, &contents).await;
        let manifest = Manifest::new(entries).unwrap();
        let digest = manifest.digest().to_string();
        let mut known = self.manifests.0.lock().unwrap();
        known.insert((project, digest.clone()), manifest);
        digest
    }

    /// The request of a build of a tree.
    pub async fn request(&self, directory: &Path) -> BuildRequest {
        let project = ProjectId::from_uuid(uuid::Uuid::from_u128(7));
        let digest = self.upload(project, directory).await;
        BuildRequest {
            build_id: BuildId::from_uuid(uuid::Uuid::now_v7()),
            project_id: project,
            service_id: ServiceId::from_uuid(uuid::Uuid::from_u128(8)),
            source: BuildSource::Tree { digest },
            settings: BuildSettings::default(),
            variables: Vec::new(),
        }
    }

    /// Plans and builds, as control does.
    pub async fn build(&self, request: &BuildRequest) -> Result<(PlannedBuild, BuiltImage), BuildError> {
        let planned = self.builder.plan(request).await?;
        let built = self.builder.build(request, &planned, &*self.lines).await?;
        Ok((planned, built))
    }

    pub async fn lease(&self) -> Lease {
        let narrator = Narrator::new(&*self.lines);
        let (canary, _grant) = self
            .bases
            .canary(&narrator)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        self.kit
            .acquire(canary)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The name of a base, for a `FROM` line.
    pub async fn base(&self, key: &str) -> String {
        let narrator = Narrator::new(&*self.lines);
        let base = self.bases.ensure(key, &narrator).await;
        base.unwrap_or_else(|error| panic!("{error:?}")).image
    }

    /// A directory with a Dockerfile.
    pub fn tree(&self, name: &str, dockerfile: &str) -> PathBuf {
        let directory = self.served.directory.path().join("trees").join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
        directory
    }

    /// A job that pushes to the repository `apps/p/web`.
    pub fn job(&self, tree: &Path) -> Job {
        let id = format!("b{}", uuid::Uuid::now_v7().simple());
        let mut job = Job::new(id.clone(), "web", tree);
        job.output = Some(format!("{}/apps/p/web:{id}", self.served.host));
        job
    }

    pub async fn run(&self, lease: &Lease, mut job: Job) -> Result<Solved, SolveError> {
        let scope = ferrovia_build::registry::Scope::Repositories {
            push: vec!["apps/p/".into()],
            pull: vec!["bases/".into()],
        };
        let grant = self.served.access.grant("build", scope);
        job.logins.push((self.served.host.clone(), grant.login().clone()));
        let mask = Mask::new(job.secrets.iter().map(|(_, secret)| secret));
        let lines = Arc::clone(&self.lines);
        let mut sink = move |line: Line| lines.line(line.step.as_deref(), 0, &line.text);
        job.run(lease, mask, &mut sink).await
    }
}

/// Runs a test with a builder and takes everything away afterwards, when the test failed too.
pub async fn with_site<F, T>(test: F)
where
    F: FnOnce(Arc<Site>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    with_hosts(Hosts::default(), test).await;
}

/// As [`with_site`], with settings of other registries.
pub async fn with_hosts<F, T>(hosts: Hosts, test: F)
where
    F: FnOnce(Arc<Site>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let _one = ONE.lock().await;
    let site = Arc::new(Site::start(hosts).await);
    let ended = tokio::spawn(test(Arc::clone(&site))).await;
    // As when control was killed: nobody tells BuildKit to end.
    let leftovers = site.leftovers();
    // Also of a test that never built: an earlier one may have been killed.
    std::fs::create_dir_all(site.served.directory.path().join("run")).unwrap();
    leftovers
        .remove()
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!leftovers.exist());
    assert!(!Path::new("/sys/class/net/fbbuild").exists());
    assert!(!Path::new("/run/netns/fbbuild").exists());
    assert!(!Path::new("/sys/fs/cgroup/memory/ferrovia-fb").exists());
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}
