//! What every engine must do: the trait's documentation as a test, run against each engine.

use std::net::Ipv4Addr;
use std::time::Duration;

use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, ReplicaStatus, Workload};
use ferrovia_engine::{Engine, Error, Scope};
use ferrovia_testkit::wait_for;
use futures_util::StreamExt;

use crate::workload;

const SOON: Duration = Duration::from_secs(30);

/// An engine under test, with what the suite cannot know.
pub trait Subject {
    /// The engine.
    fn engine(&self) -> &dyn Engine;
    /// An image that can be fetched, and runs until it is stopped, or as `FAKE_EXIT_AFTER_MS` and `FAKE_EXIT_CODE` say.
    fn image(&self) -> ImageReference;
    /// What makes it behave so.
    fn command(&self) -> Option<Vec<String>>;
    /// An address that nobody has.
    fn address(&self) -> Ipv4Addr;
}

/// Runs the whole suite.
pub async fn holds(subject: &dyn Subject) {
    images(subject).await;
    making(subject).await;
    names_are_not_shared(subject).await;
    life(subject).await;
    ends_by_itself(subject).await;
    the_engine_starts_it_again(subject).await;
    nothing_is_there(subject).await;
}

fn made(subject: &dyn Subject, service: &str, replicas: u32) -> Workload {
    let mut workload = workload::workload(workload::owner(service, 3), subject.image());
    workload.command = subject.command();
    workload.replicas = (1..=replicas)
        .map(|n| workload::slot(n, subject.address()))
        .collect();
    workload
}

async fn images(subject: &dyn Subject) {
    let engine = subject.engine();
    let image = subject.image();
    let info = engine.ensure_image(&image, &workload::login()).await.unwrap();
    assert_eq!(
        engine.ensure_image(&image, &workload::login()).await.unwrap(),
        info
    );
    assert_eq!(engine.find_image(&image).await.unwrap(), Some(info));
    assert!(engine.images(&image.repository).await.unwrap().contains(&image));
    assert!(engine.images("fvtest.invalid/").await.unwrap().is_empty());
    let missing = ImageReference {
        digest: format!("sha256:{}", "0".repeat(64)),
        ..image
    };
    assert_eq!(engine.find_image(&missing).await.unwrap(), None);
    engine.remove_image(&missing).await.unwrap();
    let mut workload = made(subject, "noimage", 1);
    workload.image = missing;
    assert!(matches!(engine.apply(&workload).await, Err(Error::Image { .. })));
}

async fn making(subject: &dyn Subject) {
    let engine = subject.engine();
    let mut workload = made(subject, "making", 2);
    let prepared = engine.prepare(&workload).await.unwrap();
    assert!(
        prepared
            .iter()
            .all(|replica| replica.status == ReplicaStatus::Created),
        "{prepared:?}"
    );
    assert_eq!(
        handles(&engine.prepare(&workload).await.unwrap()),
        handles(&prepared)
    );
    for (replica, slot) in prepared.iter().zip(&workload.replicas) {
        assert_eq!(
            (replica.replica_id, replica.ordinal, replica.address),
            (slot.id, slot.ordinal, slot.address)
        );
        assert_eq!(replica.deployment_id, workload.owner.deployment_id);
        assert_eq!(replica.instance_id, workload.owner.instance_id);
        assert_eq!(replica.environment_id, workload.owner.environment_id);
        assert_eq!(
            (&replica.spec_hash, replica.restart),
            (&workload.spec_hash, EngineRestart::No)
        );
        assert!(
            replica
                .name
                .ends_with(&format!("-fvtest-production-making-v3-{}", slot.ordinal)),
            "{}",
            replica.name
        );
        assert_eq!(replica.started_at_ms, None);
        assert_eq!(
            engine.find(&replica.handle).await.unwrap().as_ref(),
            Some(replica)
        );
    }
    let applied = engine.apply(&workload).await.unwrap();
    assert_eq!(handles(&applied), handles(&prepared));
    assert!(
        applied
            .iter()
            .all(|replica| replica.status == ReplicaStatus::Running),
        "{applied:?}"
    );
    assert!(applied.iter().all(|replica| replica.started_at_ms.is_some()));
    workload.replicas.push(workload::slot(3, subject.address()));
    let scaled = engine.apply(&workload).await.unwrap();
    assert_eq!(scaled[..2], applied[..]);
    let owner = &workload.owner;
    for scope in [
        Scope::Deployment(owner.deployment_id),
        Scope::Instance(owner.instance_id),
        Scope::Environment(owner.environment_id),
    ] {
        assert_eq!(engine.observe(scope).await.unwrap(), scaled);
    }
    assert!(handles(&engine.observe(Scope::All).await.unwrap()).ends_with(&handles(&scaled)));
    assert!(
        engine
            .observe(Scope::Deployment(workload::id()))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        engine.remove_image(&workload.image).await,
        Err(Error::InUse(_))
    ));
    clear(engine, &scaled).await;
    assert!(
        engine
            .observe(Scope::Instance(owner.instance_id))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn names_are_not_shared(subject: &dyn Subject) {
    let engine = subject.engine();
    let workload = made(subject, "names", 1);
    let first = engine.prepare(&workload).await.unwrap();
    let mut changed = workload.clone();
    changed.spec_hash = "another".into();
    assert_eq!(
        engine.apply(&changed).await,
        Err(Error::NameTaken(first[0].name.clone()))
    );
    let mut moved = workload.clone();
    moved.replicas = vec![workload::slot(1, subject.address())];
    assert_eq!(
        engine.apply(&moved).await,
        Err(Error::NameTaken(first[0].name.clone()))
    );
    moved.replicas[0].restart_nonce = 1;
    let restarted = engine.prepare(&moved).await.unwrap();
    assert_eq!(restarted[0].name, format!("{}-r1", first[0].name));
    clear(engine, &first).await;
    clear(engine, &restarted).await;
}

async fn life(subject: &dyn Subject) {
    let engine = subject.engine();
    let workload = made(subject, "life", 1);
    let mut hints = engine.events().await.unwrap();
    let running = engine.apply(&workload).await.unwrap().remove(0);
    let handle = running.handle.as_str();
    let mut hint = async || loop {
        let hint = hints.next().await.expect("the stream goes on").unwrap();
        if hint.instance_id == workload.owner.instance_id {
            return;
        }
    };
    tokio::time::timeout(SOON, hint()).await.expect("a hint");
    let stats = engine.stats(handle).await.unwrap().expect("figures");
    assert_eq!(stats.memory_limit_bytes, workload.resources.memory_bytes);
    assert!(stats.pids >= 1, "{stats:?}");
    engine.start(handle).await.unwrap();
    assert_eq!(engine.find(handle).await.unwrap().unwrap(), running);
    assert!(matches!(engine.remove(handle).await, Err(Error::InUse(_))));
    engine
        .set_restart(handle, EngineRestart::UnlessStopped)
        .await
        .unwrap();
    assert_eq!(
        engine.find(handle).await.unwrap().unwrap().restart,
        EngineRestart::UnlessStopped
    );
    engine.stop(handle, 5_000).await.unwrap();
    engine.stop(handle, 5_000).await.unwrap();
    let stopped = engine.find(handle).await.unwrap().unwrap();
    let ReplicaStatus::Exited(exit) = &stopped.status else {
        panic!("{stopped:?}")
    };
    assert!(
        exit.code == 143 && !exit.out_of_memory && exit.at_ms >= running.started_at_ms.unwrap(),
        "{exit:?}"
    );
    assert_eq!(engine.stats(handle).await.unwrap(), None);
    assert_eq!(engine.process_id(handle).await.unwrap(), None);
    assert_eq!(
        engine.apply(&workload).await.unwrap(),
        std::slice::from_ref(&stopped),
        "what ended is left as it is"
    );
    engine.start(handle).await.unwrap();
    let again = engine.find(handle).await.unwrap().unwrap();
    assert_eq!(again.status, ReplicaStatus::Running);
    assert!(again.started_at_ms > running.started_at_ms);
    engine.stop(handle, 0).await.unwrap();
    engine.remove(handle).await.unwrap();
    engine.remove(handle).await.unwrap();
    assert_eq!(engine.find(handle).await.unwrap(), None);
}

async fn ends_by_itself(subject: &dyn Subject) {
    let engine = subject.engine();
    let mut workload = made(subject, "ends", 1);
    workload.variables = workload::variables(&[("FAKE_EXIT_AFTER_MS", "300"), ("FAKE_EXIT_CODE", "3")]);
    let handle = engine.apply(&workload).await.unwrap().remove(0).handle;
    let exit = wait_for("it ends", SOON, async || exit_of(engine, &handle).await).await;
    assert_eq!((exit.code, exit.out_of_memory, exit.error), (3, false, None));
    engine.remove(&handle).await.unwrap();
}

async fn the_engine_starts_it_again(subject: &dyn Subject) {
    let engine = subject.engine();
    let mut workload = made(subject, "again", 1);
    workload.variables = workload::variables(&[("FAKE_EXIT_AFTER_MS", "300"), ("FAKE_EXIT_CODE", "3")]);
    let handle = engine.apply(&workload).await.unwrap().remove(0).handle;
    engine
        .set_restart(&handle, EngineRestart::UnlessStopped)
        .await
        .unwrap();
    let restarts = async || {
        let found = engine.find(&handle).await.unwrap().unwrap();
        (found.engine_restarts >= 2).then_some(())
    };
    wait_for("two restarts", SOON, restarts).await;
    engine.set_restart(&handle, EngineRestart::No).await.unwrap();
    wait_for("it stays down", SOON, async || exit_of(engine, &handle).await).await;
    engine
        .set_restart(&handle, EngineRestart::UnlessStopped)
        .await
        .unwrap();
    assert!(
        exit_of(engine, &handle).await.is_some(),
        "a policy starts nothing"
    );
    engine.stop(&handle, 0).await.unwrap();
    engine.remove(&handle).await.unwrap();
}

async fn nothing_is_there(subject: &dyn Subject) {
    let engine = subject.engine();
    let handle = "0123456789abcdef".repeat(4);
    assert_eq!(engine.find(&handle).await.unwrap(), None);
    assert_eq!(engine.stats(&handle).await.unwrap(), None);
    assert_eq!(engine.log_file(&handle).await.unwrap(), None);
    assert_eq!(engine.process_id(&handle).await.unwrap(), None);
    engine.stop(&handle, 0).await.unwrap();
    engine.remove(&handle).await.unwrap();
    assert!(matches!(engine.start(&handle).await, Err(Error::Gone(_))));
    assert!(matches!(
        engine.set_restart(&handle, EngineRestart::No).await,
        Err(Error::Gone(_))
    ));
    assert!(!engine.info().await.unwrap().name.is_empty());
}

async fn exit_of(engine: &dyn Engine, handle: &str) -> Option<ferrovia_core::workload::Exit> {
    match engine.find(handle).await.unwrap()?.status {
        ReplicaStatus::Exited(exit) => Some(exit),
        _ => None,
    }
}

/// Stops and removes.
pub async fn clear(engine: &dyn Engine, replicas: &[Observed]) {
    for replica in replicas {
        engine.stop(&replica.handle, 0).await.unwrap();
        engine.remove(&replica.handle).await.unwrap();
    }
}

fn handles(replicas: &[Observed]) -> Vec<&str> {
    replicas.iter().map(|replica| replica.handle.as_str()).collect()
}
