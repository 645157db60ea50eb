//! Probes of one run of a replica: they begin when it starts and end with it.

mod ask;
mod listening;
mod schedule;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferrovia_core::id::ReplicaId;
use ferrovia_core::observation::Health;
use ferrovia_core::table::Probe;
use ferrovia_engine::Engine;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use crate::clock::now_ms;
use schedule::{Outcome, Schedule};

/// Probes under way at once.
const MAX_AT_ONCE: usize = 128;
/// How long a start may take before it is looked where it listens, in milliseconds.
const LISTENING_AFTER_MS: u64 = 1_500;
/// How often that is looked at, in milliseconds.
const LISTENING_EVERY_MS: u64 = 1_000;

/// What one run's probes found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The replica.
    pub replica: ReplicaId,
    /// The run: its start in milliseconds since 1970.
    pub started_at_ms: i64,
    /// What was found.
    pub news: News,
}

/// A piece of what was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// What the probes say now.
    Health(Health),
    /// What `GET /` answered once.
    Root(u16),
    /// Where it listens instead.
    ListensOn(Vec<String>),
}

/// What is to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The replica.
    pub replica: ReplicaId,
    /// The engine's id of it.
    pub handle: String,
    /// The run's start, in milliseconds since 1970.
    pub started_at_ms: i64,
    /// Where it is.
    pub address: Ipv4Addr,
    /// How it is probed.
    pub probe: Probe,
    /// Host header of requests.
    pub host: String,
}

/// What all probes share.
#[derive(Clone)]
pub struct Prober {
    engine: Arc<dyn Engine>,
    findings: mpsc::Sender<Finding>,
    at_once: Arc<Semaphore>,
    count: Arc<AtomicUsize>,
    proc: PathBuf,
}

impl Prober {
    /// Findings go to `findings`; `proc` is `/proc`.
    pub fn new(engine: Arc<dyn Engine>, findings: mpsc::Sender<Finding>, proc: PathBuf) -> Self {
        Self {
            engine,
            findings,
            at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            count: Arc::default(),
            proc,
        }
    }

    /// Probes a run until it is dropped.
    pub async fn run(self, target: Target) {
        let _counted = Counted::new(&self.count);
        match target.probe {
            Probe::Alive { after_ms } => {
                let left = target.started_at_ms + i64::from(after_ms) - now_ms();
                self.tell(&target, News::Health(Health::Starting { last: None }))
                    .await;
                sleep(Duration::from_millis(left.max(0).unsigned_abs())).await;
                let health = Health::Healthy { since_ms: now_ms() };
                self.tell(&target, News::Health(health)).await;
                std::future::pending().await
            }
            Probe::Tcp { port } => self.port(&target, port, None).await,
            Probe::Http { port, ref path } => self.port(&target, port, Some(path)).await,
        }
    }

    async fn port(&self, target: &Target, port: u16, path: Option<&str>) {
        let address = SocketAddrV4::new(target.address, port);
        let mut schedule = Schedule::new(now_ms());
        let mut told = None;
        let mut look_at = Instant::now() + Duration::from_millis(LISTENING_AFTER_MS);
        let mut listens_on = Vec::new();
        let mut process = None;
        loop {
            let outcome = self.once(address, path, &target.host).await;
            let good = outcome == Outcome::Good;
            schedule.take(outcome, now_ms());
            if told.as_ref() != Some(schedule.health()) {
                let first = good && !matches!(told, Some(Health::Healthy { .. } | Health::Unhealthy { .. }));
                told = Some(schedule.health().clone());
                self.tell(target, News::Health(schedule.health().clone())).await;
                if first && path.is_none() {
                    self.root(target, address).await;
                }
            }
            let starting = matches!(schedule.health(), Health::Starting { .. });
            if starting && Instant::now() >= look_at {
                look_at = Instant::now() + Duration::from_millis(LISTENING_EVERY_MS);
                let found = self.elsewhere(target, port, &mut process).await;
                if found != listens_on {
                    listens_on.clone_from(&found);
                    self.tell(target, News::ListensOn(found)).await;
                }
            } else if good && !listens_on.is_empty() {
                listens_on.clear();
                self.tell(target, News::ListensOn(Vec::new())).await;
            }
            let replicas = self.count.load(Ordering::Relaxed);
            sleep(Duration::from_millis(schedule.pause_ms(
                now_ms(),
                replicas,
                rand::random(),
            )))
            .await;
        }
    }

    async fn once(&self, address: SocketAddrV4, path: Option<&str>, host: &str) -> Outcome {
        // The semaphore is never closed; without a permit the probe is only less bounded.
        let _permit = self.at_once.acquire().await;
        match path {
            Some(path) => ask::http(address, path, host).await,
            None => ask::tcp(address).await,
        }
    }

    /// Asks `/` once, beside the probes: a TCP probe says nothing about what visitors will see.
    async fn root(&self, target: &Target, address: SocketAddrV4) {
        if let Ok(status) = ask::status(address, "/", &target.host).await {
            self.tell(target, News::Root(status)).await;
        }
    }

    async fn elsewhere(&self, target: &Target, port: u16, process: &mut Option<u32>) -> Vec<String> {
        if process.is_none() {
            *process = self.engine.process_id(&target.handle).await.unwrap_or_default();
        }
        process.map_or_else(Vec::new, |process| {
            listening::elsewhere(&self.proc, process, port)
        })
    }

    async fn tell(&self, target: &Target, news: News) {
        let finding = Finding {
            replica: target.replica,
            started_at_ms: target.started_at_ms,
            news,
        };
        // The receiver is gone only when the node ends.
        let _ = self.findings.send(finding).await;
    }
}

/// Counts a probed replica while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
