//! A whole builder for a live test: registry, BuildKit, network, bases. One at a time, since the network has one name.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ferrovia_build::BuildLog;
use ferrovia_build::bases::{self, Bases};
use ferrovia_build::buildkit::cgroup::BuildLimits;
use ferrovia_build::buildkit::daemon::{self, Buildkit, Lease};
use ferrovia_build::buildkit::progress::Line;
use ferrovia_build::buildkit::secrets::Mask;
use ferrovia_build::buildkit::solve::{Job, SolveError, Solved};
use ferrovia_build::launch::ShellLauncher;
use ferrovia_build::narrator::Narrator;
use ferrovia_build::registry::router;
use ferrovia_core::network::AddressPlan;

use crate::served::Served;

/// Memory of builds in tests, in bytes.
pub const MEMORY_BYTES: u64 = 512 * 1024 * 1024;

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

    pub fn has(&self, text: &str) -> bool {
        self.all().iter().any(|line| line.contains(text))
    }
}

pub struct Site {
    pub served: Served,
    pub kit: Arc<Buildkit>,
    pub bases: Arc<Bases>,
    pub lines: Arc<Lines>,
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

fn cache_directory() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    std::env::var_os("FERROVIA_TEST_CACHE").map_or_else(|| home().join(".cache/ferrovia/test"), PathBuf::from)
}

fn tool_directories() -> Vec<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    vec![home.join(".cache/ferrovia/tools/buildkit-v0.34.2")]
}

/// The host's own bundle of authorities: what a company with a proxy of its own would set.
pub fn extra_authority() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

impl Site {
    async fn start() -> Self {
        let served = Served::start().await;
        let registry = served.host.parse().unwrap();
        let directory = served.directory.path().to_owned();
        let options = daemon::Options {
            tool_directories: tool_directories(),
            data_directory: directory.join("buildkit"),
            run_directory: directory.join("run"),
            group: "ferrovia-fb".into(),
            limits: BuildLimits {
                memory_bytes: MEMORY_BYTES,
                cpu_quota_millis: None,
                cpu_weight: 25,
                pids: 2048,
            },
            addresses: address_plan(),
            dns: host_dns(),
            cni_directory: "/usr/lib/cni".into(),
            cache_bytes: 4_000_000_000,
            parallel_steps: 2,
            registry,
            upstreams: vec![],
            extra_ca_file: extra_authority(),
        };
        let service = router(Arc::clone(&served.store), served.access.clone());
        let kit = Buildkit::new(options, Arc::new(ShellLauncher), service).unwrap();
        let bases = Bases::new(
            bases::Options {
                data_directory: directory.join("bases"),
                registry,
                extra_ca_file: extra_authority(),
                seed_directory: Some(cache_directory()),
            },
            Arc::clone(&served.store),
            served.access.clone(),
            Arc::clone(&kit),
        );
        Self {
            served,
            kit,
            bases,
            lines: Arc::default(),
        }
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
    let _one = ONE.lock().await;
    let site = Arc::new(Site::start().await);
    let ended = tokio::spawn(test(Arc::clone(&site))).await;
    site.kit.purge().await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!Path::new("/run/netns/fbbuild").exists());
    assert!(!Path::new("/sys/fs/cgroup/memory/ferrovia-fb").exists());
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}
