//! A Docker engine for one test: an installation, a bridge and names of its own, all taken away at the end. What dead
//! tests left is taken away at the start. One image with what the tests run is made once and stays on the engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::workload::{ImageReference, Workload};
use ferrovia_engine::docker::{DockerEngine, Options};
use ferrovia_engine::{Engine, Error};
use ferrovia_testkit::wait_for;
use ipnet::Ipv4Net;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::contract::Subject;
use crate::registry::Image;
use crate::workload::{self, login};

/// Where another Docker than the host's own can be named, to try other versions.
const SOCKET_VARIABLE: &str = "FERROVIA_TEST_DOCKER_SOCKET";
/// Where the test image comes from when the engine does not have it; also the beginning of its name.
const REGISTRY: ([u8; 4], u16) = ([127, 0, 0, 1], 7199);
/// The image's name; the number changes with the recipe.
const REPOSITORY: &str = "fvtest/debian-1";
/// What is installed in it.
const PACKAGES: &str = "nginx-light,postgresql,redis-server,gosu";
/// Bridges that tests may have at a time: the blocks of 10.220.0.0/16.
const BLOCKS: u32 = 64;

/// Runs until it is stopped, or as the variables of the fake engine say.
const SCRIPT: &str = r#"
if [ -n "$FAKE_EXIT_AFTER_MS" ]; then
  sleep "$(printf '%d.%03d' $((FAKE_EXIT_AFTER_MS / 1000)) $((FAKE_EXIT_AFTER_MS % 1000)))"
  exit "${FAKE_EXIT_CODE:-0}"
fi
exec sleep infinity
"#;

/// An engine with nothing on it.
pub struct Lab {
    /// The engine.
    pub engine: DockerEngine,
    /// What it was made with.
    pub options: Options,
    /// The image that everything in it runs.
    pub image: ImageReference,
    directory: TempDir,
    addresses: AtomicU32,
}

/// Docker's socket.
pub fn socket() -> String {
    std::env::var(SOCKET_VARIABLE).unwrap_or_else(|_| "/var/run/docker.sock".to_owned())
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static IMAGE: OnceCell<ImageReference> = OnceCell::const_new();

impl Lab {
    /// An engine with a bridge of its own.
    pub async fn new() -> Self {
        sweep();
        let directory = TempDir::new().unwrap();
        let pid = std::process::id();
        let own = COUNT.fetch_add(1, Ordering::Relaxed);
        for attempt in 0..BLOCKS {
            let block = (pid + own * 7 + attempt) % BLOCKS;
            let net = Ipv4Net::new(Ipv4Addr::from(0x0adc_0000 + block * 1024), 22).unwrap();
            let options = Options {
                socket: socket().into(),
                installation: format!("fvtest-{pid}-{own}"),
                addresses: AddressPlan {
                    members: net,
                    interface_prefix: format!("fe{:x}x{own}b", pid & 0xffff),
                    ..AddressPlan::default()
                },
                files: directory.path().join("files"),
            };
            let engine = DockerEngine::new(options.clone());
            match engine.ensure_bridge(0).await {
                Ok(()) => {
                    let image = IMAGE.get_or_init(|| ensure_image(&engine)).await.clone();
                    return Self {
                        engine,
                        options,
                        image,
                        directory,
                        addresses: AtomicU32::new(0),
                    };
                }
                Err(Error::Network(_)) => {}
                Err(error) => panic!("Docker at `{}`: {error}", socket()),
            }
        }
        panic!("every bridge for tests is in use");
    }

    /// A workload of the image with one replica that runs a shell script.
    pub fn script(&self, service: &str, script: &str) -> Workload {
        let mut workload = self.workload(service);
        workload.command = Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        workload
    }

    /// A workload of the image with one replica.
    pub fn workload(&self, service: &str) -> Workload {
        let mut workload = workload::workload(workload::owner(service, 1), self.image.clone());
        workload.replicas = vec![workload::slot(1, self.address())];
        workload
    }

    /// A directory that containers may write to.
    pub fn shared_directory(&self) -> PathBuf {
        let path = self.directory.path().join("shared");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Waits until a script has written a file into the shared directory, whole.
    pub async fn written(&self, name: &str) -> Vec<u8> {
        let path = self.shared_directory().join(name);
        wait_for(name, Duration::from_secs(30), async || std::fs::read(&path).ok()).await
    }
}

impl Subject for Lab {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self) -> ImageReference {
        self.image.clone()
    }

    fn command(&self) -> Option<Vec<String>> {
        Some(["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec())
    }

    fn address(&self) -> Ipv4Addr {
        let base = u32::from(self.options.addresses.members.network());
        Ipv4Addr::from(base + 2 + self.addresses.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        clear(&self.options.installation);
    }
}

/// Runs Docker's own client.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(["--host", &format!("unix://{}", socket())])
        .args(arguments)
        .output()
        .expect("the Docker client");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Takes away what an installation has.
fn clear(installation: &str) {
    let label = format!("label=ferrovia.installation={installation}");
    for id in docker(&["ps", "-aq", "--filter", &label]).split_whitespace() {
        docker(&["rm", "-fv", id]);
    }
    for id in docker(&["network", "ls", "-q", "--filter", &label]).split_whitespace() {
        docker(&["network", "rm", id]);
    }
}

/// Takes away what tests left that are not there any more.
fn sweep() {
    let format = "{{.Label \"ferrovia.installation\"}}";
    let networks = docker(&[
        "network",
        "ls",
        "--filter",
        "label=ferrovia.installation",
        "--format",
        format,
    ]);
    for installation in networks.split_whitespace() {
        let pid = installation
            .strip_prefix("fvtest-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            clear(installation);
        }
    }
}

/// The image with everything that the tests run, made from Debian's packages when the engine does not have it.
async fn ensure_image(engine: &DockerEngine) -> ImageReference {
    let registry = SocketAddr::from(REGISTRY);
    let there = async || {
        engine
            .images(&format!("{registry}/{REPOSITORY}"))
            .await
            .unwrap()
            .into_iter()
            .next()
    };
    if let Some(image) = there().await {
        return image;
    }
    let directory = TempDir::new().unwrap();
    let base = directory.path().join("base.tar");
    let include = format!("--include={PACKAGES}");
    let target = base.to_str().unwrap();
    let arguments = ["--quiet", "--variant=minbase", &include, "bookworm", target];
    let status = tokio::process::Command::new("mmdebstrap")
        .args(arguments)
        .status()
        .await
        .expect("mmdebstrap");
    assert!(status.success(), "mmdebstrap: {status}");
    let entries = directory.path().join("entries.tar");
    std::fs::write(&entries, entry_points()).unwrap();
    let config = json!({ "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] });
    // Another test run may serve the same image at this moment.
    let mut image = Some(Image::new(REPOSITORY, vec![base, entries], &config));
    let served = wait_for(
        "the test image",
        Duration::from_secs(120),
        async || match there().await {
            Some(found) => Some(Err(found)),
            None => {
                tokio::net::TcpListener::bind(registry).await.ok()?;
                Some(Ok(image.take()?.serve(registry).await.unwrap()))
            }
        },
    );
    match served.await {
        Err(found) => found,
        Ok(registry) => {
            engine.ensure_image(&registry.reference, &login()).await.unwrap();
            registry.reference.clone()
        }
    }
}

/// Entry points that do what those of the official images do: take their files over, then drop privileges.
fn entry_points() -> Vec<u8> {
    let scripts = [
        ("entry/nginx", include_str!("entry/nginx.sh")),
        ("entry/postgres", include_str!("entry/postgres.sh")),
        ("entry/redis", include_str!("entry/redis.sh")),
    ];
    let mut archive = tar::Builder::new(Vec::new());
    for (path, script) in scripts {
        let mut header = tar::Header::new_gnu();
        header.set_size(script.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, script.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}
