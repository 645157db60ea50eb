//! The fake engine in the test's process: the contract, faults, and what time alone does.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ferrovia_core::secret::Secret;
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, ReplicaStatus, Workload};
use ferrovia_engine::fake::{Fault, Memory, Options, Rule, Script, When};
use ferrovia_engine::{Engine, Error, Scope};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::contract::{Subject, holds};
use crate::workload;

struct InMemory {
    engine: Memory,
    addresses: AtomicU32,
}

impl Subject for InMemory {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self) -> ImageReference {
        image()
    }

    fn command(&self) -> Option<Vec<String>> {
        None
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(0x0ad2_0002 + self.addresses.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let engine = Memory::new(Options::default(), Arc::new(now));
    holds(&InMemory {
        engine,
        addresses: AtomicU32::new(0),
    })
    .await;
}

fn image() -> ImageReference {
    ImageReference {
        repository: "127.0.0.1:7071/apps/fvtest/web".into(),
        digest: format!("sha256:{}", "a".repeat(64)),
    }
}

fn made(number: u32, replicas: u32) -> Workload {
    let mut workload = workload::workload(workload::owner("web", number), image());
    let address = |n: u32| Ipv4Addr::from(0x0ad2_0000 + number * 16 + n);
    workload.replicas = (1..=replicas).map(|n| workload::slot(n, address(n))).collect();
    workload
}

fn engine(script: Script) -> (Memory, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(1_000_000));
    let clock = {
        let time = time.clone();
        Arc::new(move || time.load(Ordering::Relaxed))
    };
    (
        Memory::new(
            Options {
                script,
                ..Options::default()
            },
            clock,
        ),
        time,
    )
}

fn one(fault: Fault, nth: u64) -> Script {
    Script {
        rules: vec![Rule {
            call: None,
            when: When::Nth(nth),
            fault,
        }],
        ..Script::default()
    }
}

#[tokio::test]
async fn a_killed_caller_never_hears_again_and_the_next_one_goes_on() {
    let mut workload = made(1, 2);
    workload.variables = vec![("FAKE_START_DELAY_MS".into(), Secret::new("50"))];
    for (nth, running) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
        let (engine, _) = engine(Script::default());
        engine
            .ensure_image(&workload.image, &workload::login())
            .await
            .unwrap();
        // Steps: apply, then create and start of each; the sixth is the next observe.
        engine.set_script(one(Fault::KillBefore, nth));
        tokio::select! {
            biased;
            _ = async { engine.apply(&workload).await.unwrap(); engine.observe(Scope::All).await } => panic!("ended"),
            () = engine.killed() => {}
        }
        let runs = |replica: &&Observed| replica.status == ReplicaStatus::Running;
        assert_eq!(
            engine.replicas().iter().filter(runs).count(),
            running,
            "killed at {nth}"
        );
        engine.revive();
        let observed = engine.apply(&workload).await.unwrap();
        assert_eq!(observed.iter().filter(runs).count(), 2);
        assert_eq!(engine.replicas().len(), 2);
    }
}

#[tokio::test]
async fn a_lost_answer_happened_and_a_lost_call_did_not() {
    let workload = made(1, 1);
    for (fault, there) in [
        (Fault::LoseAnswer, 1),
        (Fault::LoseCall, 0),
        (Fault::Unavailable, 0),
    ] {
        let (engine, _) = engine(one(fault, 1));
        engine
            .ensure_image(&workload.image, &workload::login())
            .await
            .unwrap();
        assert!(engine.prepare(&workload).await.is_err());
        assert_eq!(engine.replicas().len(), there);
    }
}

#[tokio::test]
async fn time_ends_and_restarts_replicas() {
    let (engine, time) = engine(Script::default());
    let mut workload = made(1, 1);
    workload.variables = vec![
        ("FAKE_START_DELAY_MS".into(), Secret::new("50")),
        ("FAKE_EXIT_AFTER_MS".into(), Secret::new("1000")),
        ("FAKE_EXIT_CODE".into(), Secret::new("3")),
    ];
    engine
        .ensure_image(&workload.image, &workload::login())
        .await
        .unwrap();
    let handle = engine.apply(&workload).await.unwrap()[0].handle.clone();
    assert_eq!(engine.answer(&handle, "/"), None);
    time.fetch_add(50, Ordering::Relaxed);
    assert_eq!(engine.answer(&handle, "/"), Some(200));
    engine
        .set_restart(&handle, EngineRestart::UnlessStopped)
        .await
        .unwrap();
    let mut hints = engine.events().await.unwrap();
    assert_eq!(engine.next_due_ms(), Some(1_001_000));
    time.store(1_001_000, Ordering::Relaxed);
    assert_eq!(
        engine.find(&handle).await.unwrap().unwrap().status,
        ReplicaStatus::Restarting
    );
    assert_eq!(
        hints.next().await.unwrap().unwrap().instance_id,
        workload.owner.instance_id
    );
    time.store(1_001_100, Ordering::Relaxed);
    let found = engine.find(&handle).await.unwrap().unwrap();
    assert_eq!(
        (found.status, found.started_at_ms, found.engine_restarts),
        (ReplicaStatus::Running, Some(1_001_100), 1)
    );
    assert!(matches!(engine.remove(&handle).await, Err(Error::InUse(_))));
    engine.stop(&handle, 0).await.unwrap();
    time.fetch_add(100_000, Ordering::Relaxed);
    assert!(
        matches!(engine.find(&handle).await.unwrap().unwrap().status, ReplicaStatus::Exited(exit) if exit.code == 143)
    );
    engine.reboot();
    engine.remove(&handle).await.unwrap();
    engine.remove(&handle).await.unwrap();
    assert!(hints.next().await.is_some());
    assert_eq!(engine.find(&handle).await.unwrap(), None);
}

#[tokio::test]
async fn an_address_has_one_user() {
    let (engine, _) = engine(Script::default());
    let first = made(1, 1);
    let mut second = made(2, 1);
    second.replicas[0].address = first.replicas[0].address;
    engine
        .ensure_image(&first.image, &workload::login())
        .await
        .unwrap();
    let handle = engine.apply(&first).await.unwrap()[0].handle.clone();
    assert!(matches!(
        engine.apply(&second).await,
        Err(Error::Refused { call: "start", .. })
    ));
    engine.stop(&handle, 0).await.unwrap();
    engine.apply(&second).await.unwrap();
    assert_eq!(
        engine
            .observe(Scope::Deployment(second.owner.deployment_id))
            .await
            .unwrap()
            .len(),
        1
    );
}

/// Every call at random, many times: nobody shares a name or an address, and the same seed leads to the same end.
#[tokio::test]
async fn random_lives_keep_the_rules() {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut ends = Vec::new();
    let workloads: Vec<Workload> = (1..=3).map(|number| made(number, 2)).collect();
    for _ in 0..2 {
        let mut chances = StdRng::seed_from_u64(seed);
        let chance = |chance| Rule {
            call: None,
            when: When::Chance(chance),
            fault: Fault::LoseAnswer,
        };
        let (engine, time) = engine(Script {
            rules: vec![chance(0.1)],
            ..Script::default()
        });
        for _ in 0..3_000 {
            time.fetch_add(chances.random_range(0..200), Ordering::Relaxed);
            let mut workload = workloads[chances.random_range(0..workloads.len())].clone();
            workload.variables =
                workload::variables(&[("FAKE_EXIT_AFTER_MS", "150"), ("FAKE_EXIT_CODE", "1")]);
            // The third one wants addresses that the first one has.
            if workload.owner.number == 3 {
                workload.replicas[0].address = workloads[0].replicas[0].address;
            }
            let there = engine.replicas();
            let handle = match there.len() {
                0 => String::new(),
                count => there[chances.random_range(0..count)].handle.clone(),
            };
            let policy = if chances.random_bool(0.5) {
                EngineRestart::No
            } else {
                EngineRestart::UnlessStopped
            };
            // What a call answers depends on what is there; what must hold is looked at below.
            match chances.random_range(0..9) {
                0 => _ = engine.ensure_image(&workload.image, &workload::login()).await,
                1 => _ = engine.apply(&workload).await,
                2 => _ = engine.prepare(&workload).await,
                3 => _ = engine.start(&handle).await,
                4 => _ = engine.stop(&handle, 0).await,
                5 => _ = engine.remove(&handle).await,
                6 => _ = engine.set_restart(&handle, policy).await,
                7 => engine.crash(&handle, 9, false),
                _ => engine.reboot(),
            }
            let now = engine.replicas();
            let running = now
                .iter()
                .filter(|replica| replica.status == ReplicaStatus::Running);
            let mut addresses: Vec<_> = running.map(|replica| replica.address).collect();
            let mut names: Vec<_> = now.iter().map(|replica| &replica.name).collect();
            let counts = (addresses.len(), names.len());
            addresses.sort();
            addresses.dedup();
            names.dedup();
            assert_eq!((addresses.len(), names.len()), counts, "seed {seed}: {now:?}");
        }
        ends.push(engine.replicas());
    }
    assert_eq!(ends[0], ends[1], "seed {seed}");
}
