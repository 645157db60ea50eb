//! A whole platform in one process, but for its ends: rows in PostgreSQL, control as it is, the fake engine, a builder
//! that makes images of nothing, and an edge and a node that read the real tables over real sockets.

mod builder;
mod edge;
mod node;
pub mod rows;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrovia_control::{Control, Live, Options, Parts, Site, work};
use ferrovia_core::id::{DeploymentId, InstanceId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::secret::Secret;
use ferrovia_core::settings::Settings;
use ferrovia_core::table::Audience;
use ferrovia_core::workload::{EngineRestart, ReplicaStatus};
use ferrovia_engine::RegistryLogin;
use ferrovia_engine::fake::{Memory, Options as FakeOptions};
use ferrovia_store::deployment::Deployment;
use ferrovia_store::fault::Faults;
use ferrovia_store::seal::{Keyring, MasterKeys};
use ferrovia_store::{Clock, Db, cutover, deployment, queue};
use ferrovia_table::{Peers, listen};
use ferrovia_testkit::{TestDb, database, wait_for};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use builder::{TestBuilder, image_of};
pub use edge::Edge;
pub use node::Node;

/// Longest wait for anything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// What control's connections are called.
pub const APPLICATION: &str = "control";
pub const REGISTRY: &str = "127.0.0.1:7071";

pub struct World {
    pub test: TestDb,
    pub engine: Memory,
    pub builder: Arc<TestBuilder>,
    pub keyring: Arc<Keyring>,
    pub directory: TempDir,
    pub clock: Clock,
    /// How far the clock is ahead of the host's, in milliseconds.
    pub ahead_ms: Arc<AtomicI64>,
    pub edge: Edge,
    pub node: Node,
    pub instance: InstanceId,
    pub rows: rows::Rows,
    pub control: Option<Running>,
    /// Whether somebody must answer: set once a version has succeeded.
    pub must_answer: Arc<Mutex<bool>>,
    violations: Arc<Mutex<Vec<String>>>,
    monitor: JoinHandle<()>,
}

pub struct Running {
    pub live: Arc<Live>,
    db: Db,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.monitor.abort();
    }
}

impl World {
    /// One service of one environment, and control at work.
    pub async fn new() -> Self {
        let mut world = Self::without_control().await;
        world.start(Faults::default()).await;
        world
    }

    pub async fn without_control() -> Self {
        let test = database().await;
        let ahead_ms = Arc::new(AtomicI64::new(0));
        let clock = {
            let ahead_ms = ahead_ms.clone();
            Clock::new(move || Clock::system().now_ms() + ahead_ms.load(Ordering::SeqCst))
        };
        let directory = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::new(MasterKeys::ensure(directory.path()).unwrap()));
        let engine_clock = clock.clone();
        let engine = Memory::new(FakeOptions::default(), Arc::new(move || engine_clock.now_ms()));
        let node = Node::start(directory.path(), engine.clone(), clock.clone());
        let edge = Edge::start(directory.path(), "edge");
        let rows = rows::Rows::make(&test.db, &keyring, &clock).await;
        let must_answer = Arc::new(Mutex::new(false));
        let violations = Arc::default();
        let monitor = edge.watch(
            engine.clone(),
            rows.host.clone(),
            must_answer.clone(),
            Arc::clone(&violations),
        );
        Self {
            builder: Arc::new(TestBuilder::default()),
            test,
            engine,
            keyring,
            directory,
            clock,
            ahead_ms,
            edge,
            node,
            instance: rows.instance,
            rows,
            control: None,
            must_answer,
            violations,
            monitor,
        }
    }

    /// Starts control, which dies where `faults` says.
    pub async fn start(&mut self, faults: Faults) {
        // A pool of its own, as a process has.
        let options = ferrovia_store::Options::new(&self.test.url).application_name(APPLICATION);
        let db = Db::connect(&options).await.unwrap();
        let parts = Parts {
            db: db.with_faults(faults),
            clock: self.clock.clone(),
            keyring: self.keyring.clone(),
            engine: Arc::new(self.engine.clone()),
            builder: self.builder.clone(),
            sweeps: Vec::new(),
        };
        let options = Options {
            addresses: AddressPlan::default(),
            site: Site {
                scheme: "http",
                port: 8080,
            },
            registry: RegistryLogin {
                user: "ferrovia".into(),
                password: Secret::new("secret"),
            },
            registry_host: REGISTRY.into(),
            logs: self.directory.path().join("logs"),
            node_socket: self.directory.path().join("node.sock"),
            peers: Peers::same_user(),
            audiences: vec![Audience::Edge, Audience::Node],
            control_slots: 8,
            build_slots: 1,
            build_memory_bytes: 0,
            build_timeout_ms: 20_000,
        };
        let tables = listen(&self.directory.path().join("tables.sock")).unwrap();
        self.edge.restart().await;
        self.node.restart_reader().await;
        let (stop, stopping) = watch::channel(false);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let Ok(control) = Control::new(parts, options).await else {
                return;
            };
            let _ = sender.send(control.live());
            if let Err(error) = control.run(tables, stopping).await {
                println!("control ended: {error}");
            }
        });
        // A control that dies before it lives has nothing to show.
        let live = receiver
            .await
            .unwrap_or_else(|_| Arc::new(Live::new(Vec::new(), 1)));
        self.control = Some(Running { live, db, task, stop });
    }

    /// Ends control where it stands, with its connections.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.control.take() {
            running.task.abort();
            let _ = (&mut running.task).await;
            // What hangs for ever keeps its connection: the server ends those.
            let _ = tokio::time::timeout(Duration::from_millis(20), running.db.close()).await;
        }
    }

    /// Asks control to end.
    pub async fn stop(&mut self) {
        if let Some(mut running) = self.control.take() {
            running.stop.send_replace(true);
            let _ = (&mut running.task).await;
        }
    }

    /// Makes a round of clean-up due.
    pub async fn clean_up(&self, key: &'static str) {
        self.test
            .db
            .tx::<_, ferrovia_store::Error>(move |tx| {
                Box::pin(async move {
                    let work = queue::Work::new(work::CLEANUP, key, work::CLEANUP_CLASS);
                    queue::enqueue(tx, &work).await
                })
            })
            .await
            .unwrap();
    }

    /// A statement on the database itself, as an operator would.
    pub fn psql(&self, statement: &str) -> String {
        let output = std::process::Command::new("psql")
            .args(["-tA", "-v", "ON_ERROR_STOP=1", "-c", statement, &self.test.url])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A new deployment from source, as the use case makes it. `tree` tells one source from another.
    pub async fn deploy(&self, tree: &str, variables: &[(&str, &str)]) -> DeploymentId {
        let settings = Settings {
            start_deadline_ms: 15_000,
            drain_ms: 2_000,
            stop_grace_ms: 1_000,
            ..Settings::default()
        };
        self.deploy_with(tree, variables, settings).await
    }

    pub async fn deploy_with(
        &self,
        tree: &str,
        variables: &[(&str, &str)],
        settings: Settings,
    ) -> DeploymentId {
        self.rows
            .deploy(
                &self.test.db,
                &self.keyring,
                &self.clock,
                tree,
                variables,
                settings,
            )
            .await
    }

    pub async fn deployment(&self, id: DeploymentId) -> Deployment {
        deployment::get(&mut self.test.db.conn().await.unwrap(), id)
            .await
            .unwrap()
    }

    /// Waits until a deployment has ended.
    pub async fn ended(&self, id: DeploymentId) -> Deployment {
        let ended = async || {
            let found = self.deployment(id).await;
            found.outcome.is_final().then_some(found)
        };
        let waiting = tokio::time::timeout(PATIENCE, wait_for("the deployment ends", PATIENCE * 2, ended));
        let Ok(ended) = waiting.await else {
            panic!("it does not end: {}", self.describe().await);
        };
        if ended.outcome == Outcome::Succeeded {
            *self.must_answer.lock().unwrap() = true;
        }
        ended
    }

    pub async fn succeeded(&self, id: DeploymentId) -> Deployment {
        let ended = self.ended(id).await;
        assert_eq!(ended.outcome, Outcome::Succeeded, "{:?}", ended.report);
        ended
    }

    /// Waits until everything is as the intent wants it and nothing is left over.
    pub async fn settled(&self) {
        let settled = async || {
            let situation = self.situation().await;
            let wanted = match situation.intent.target {
                Some(_) if !situation.place.deleted => situation.intent.replicas as usize,
                _ => 0,
            };
            let containers = self.engine.replicas();
            let good = situation.replicas.iter().all(|row| {
                Some(row.deployment_id) == situation.intent.target
                    && row.phase == ferrovia_core::cutover::Phase::Serving
                    && row.restart_nonce == situation.intent.restart_nonce
            }) && containers.iter().all(|container| {
                Some(container.deployment_id) == situation.intent.target
                    && container.status == ReplicaStatus::Running
                    && container.restart == EngineRestart::UnlessStopped
            });
            (good && situation.replicas.len() == wanted && containers.len() == wanted).then_some(())
        };
        let waiting = tokio::time::timeout(PATIENCE, wait_for("everything settles", PATIENCE * 2, settled));
        if waiting.await.is_err() {
            panic!("it does not settle: {}", self.describe().await);
        }
    }

    pub async fn situation(&self) -> cutover::Situation {
        let instance = self.instance;
        self.test
            .db
            .snapshot::<_, ferrovia_store::Error>(move |conn| Box::pin(cutover::find(conn, instance)))
            .await
            .unwrap()
            .unwrap()
    }

    /// Everything that may tell why something does not come to its end.
    pub async fn describe(&self) -> String {
        let live = self.control.as_ref().map(|running| running.live.clone());
        let waiting = live.as_ref().map(|live| live.waiting_of(self.instance));
        let readers = live.as_ref().map(|live| live.readers());
        let seen = live.as_ref().map(|live| live.observations_of(self.instance));
        let work = self.psql("SELECT * FROM work_item WHERE class <> 'cleanup'");
        let situation = self.situation().await;
        format!(
            "waiting: {waiting:#?}\nreaders: {readers:#?}\nseen: {seen:#?}\nwork: {}\nrows: {:#?}\n\
             deployments: {:#?}\ncontainers: {:#?}",
            work,
            situation.replicas,
            situation
                .deployments
                .iter()
                .map(|facts| &facts.attempt)
                .collect::<Vec<_>>(),
            self.engine.replicas()
        )
    }

    /// Nothing that must always hold was broken so far.
    pub fn check(&self) {
        let violations = self.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}
