//! A node as a process of its own, so that SIGKILL is SIGKILL and its memory is its own.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::{DeploymentId, EnvironmentId, InstanceId, ReplicaId};
use ferrovia_core::observation::Observation;
use ferrovia_core::settings::RestartPolicy;
use ferrovia_core::table::{Member, MemberPhase, NodeRow, Probe, ServiceAddress};
use ferrovia_engine::docker::{DockerEngine, Options as DockerOptions};
use ferrovia_log::{Limits, Reader, place};
use ferrovia_node::{Network, Options, run};
use ferrovia_table::Peers;
use ferrovia_table::observe::{AllFigures, Observer, ObserverHandle};
use ferrovia_testkit::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uuid::Uuid;

use crate::place::Place;
use crate::rig::SOON;

/// What the child is told.
const DIRECTORY: &str = "FERROVIA_NODE_TEST_DIRECTORY";
const SOCKET: &str = "FERROVIA_NODE_TEST_SOCKET";
const PREFIX: &str = "FERROVIA_NODE_TEST_PREFIX";
const OCTET: &str = "FERROVIA_NODE_TEST_OCTET";

/// The process: a node until SIGTERM.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let variable = |name| std::env::var(name).unwrap();
    let place = Place {
        socket: variable(SOCKET).into(),
        prefix: variable(PREFIX),
        octet: variable(OCTET).parse().unwrap(),
    };
    tracing_subscriber::fmt()
        .with_env_filter("info,ferrovia_node=debug,ferrovia_table=debug")
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // As `ferroviad node` runs it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let engine = DockerEngine::new(DockerOptions {
            socket: place.socket.clone(),
            installation: place.installation(),
            addresses: place.plan(),
            files: directory.join("engine"),
        });
        let options = Options {
            engine: Arc::new(engine),
            table: directory.join("table"),
            logs: directory.join("logs"),
            log_limits: Limits::default(),
            tables_socket: directory.join("tables.sock"),
            node_socket: directory.join("node.sock"),
            peers: Peers::same_user(),
            network: Some(Network {
                addresses: place.plan(),
                edge_listens: vec![],
                opened: vec![],
                resolvers: directory.join("resolv.conf"),
            }),
        };
        let stop = async move {
            terminate.recv().await;
        };
        run(options, stop).await.unwrap();
    });
}

pub fn member(address: Ipv4Addr, mark: u32) -> NodeRow {
    NodeRow::Member(replica(address, mark))
}

pub fn replica(address: Ipv4Addr, mark: u32) -> Member {
    let id = Uuid::from_u128(u128::from(u32::from(address)));
    Member {
        address,
        replica_id: ReplicaId::from_uuid(id),
        deployment_id: DeploymentId::from_uuid(id),
        instance_id: InstanceId::from_uuid(id),
        environment_id: EnvironmentId::from_uuid(Uuid::from_u128(u128::from(mark))),
        mark,
        probe: Probe::Tcp { port: 8080 },
        restart: RestartPolicy::default(),
        phase: MemberPhase::Serving,
    }
}

pub fn starting(address: Ipv4Addr) -> Member {
    Member {
        phase: MemberPhase::Starting,
        ..replica(address, 1)
    }
}

pub fn service(name: &str, address: Ipv4Addr, mark: u32, backends: &[Ipv4Addr]) -> NodeRow {
    NodeRow::Service(ServiceAddress {
        instance_id: InstanceId::from_uuid(Uuid::from_u128(u128::from(u32::from(address)))),
        environment_id: EnvironmentId::from_uuid(Uuid::from_u128(u128::from(mark))),
        mark,
        name: name.parse().unwrap(),
        address,
        backends: backends.to_vec(),
        asleep: false,
    })
}

/// A node that runs, and its directory, which goes with it.
pub struct Node {
    pub seen: ObserverHandle,
    place: Place,
    process: Child,
    observing: tokio::task::JoinHandle<()>,
    directory: TempDir,
}

impl Node {
    pub fn start(directory: TempDir, place: &Place) -> Self {
        let process = spawn(directory.path(), place);
        let socket = directory.path().join("node.sock");
        let (observer, seen) = Observer::new(socket, Peers::same_user());
        Self {
            seen,
            place: place.clone(),
            process,
            observing: tokio::spawn(observer.run()),
            directory,
        }
    }

    /// Ends as on SIGTERM.
    pub fn stop(&mut self) {
        kill_process(self.id(), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.log_end());
    }

    /// Ends as by SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Begins again after an end.
    pub fn restart(&mut self) {
        self.process = spawn(self.directory.path(), &self.place);
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// The observation of a replica once it is as wanted.
    pub async fn see(
        &self,
        what: &str,
        replica: ReplicaId,
        wanted: impl Fn(&Observation) -> bool,
    ) -> Observation {
        wait_for(what, SOON, async || {
            let seen = self.seen.observations().borrow().clone();
            let observation = seen.replicas.get(&replica)?;
            (seen.connected && wanted(observation)).then(|| Observation::clone(observation))
        })
        .await
    }

    /// Asks for figures, until the test ends.
    pub fn figures(&self) -> watch::Receiver<AllFigures> {
        let socket = self.directory.path().join("node.sock");
        let (mut observer, handle) = Observer::new(socket, Peers::same_user());
        let figures = observer.with_figures();
        tokio::spawn(async move {
            let _handle = handle;
            observer.run().await;
        });
        figures
    }

    pub fn log(&self, instance: InstanceId) -> Reader {
        Reader::new(place::of_instance(&self.directory.path().join("logs"), instance))
    }

    /// Its proportional share of memory, in KiB: all of it, and what is not a mapped file.
    pub fn memory_kib(&self) -> (u64, u64) {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let rollup = std::fs::read_to_string(path).unwrap();
        let find = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (find("Pss:"), find("Pss_Anon:"))
    }

    /// CPU time of all its threads so far.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = tasks.map(|task| {
            let times = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            let nanos = times.split_whitespace().next().map(str::parse::<u64>);
            nanos.and_then(Result::ok).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

fn spawn(directory: &Path, place: &Place) -> Child {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("node.log"))
        .unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "node::child", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(SOCKET, &place.socket)
        .env(PREFIX, &place.prefix)
        .env(OCTET, place.octet.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Node {
    fn drop(&mut self) {
        self.observing.abort();
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("the end of the node's log:\n{}", self.log_end());
        }
    }
}
