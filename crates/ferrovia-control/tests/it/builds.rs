//! Builds: found again, cancelled at once, tried again where that may help, and begun again after a crash.

use ferrovia_core::outcome::Outcome;
use ferrovia_log::{Query, Reader, place};
use ferrovia_store::build::{self, Outcome as BuildOutcome};
use ferrovia_testkit::wait_for;

use crate::harness::{PATIENCE, World};

/// Upload, queue and build of a tree that was built before, together, in milliseconds.
const REUSE_MS: u64 = 1_000;

/// A stop takes no longer, whatever runs.
const STOP: std::time::Duration = std::time::Duration::from_secs(4);

async fn build_of(world: &World, id: ferrovia_core::id::DeploymentId) -> build::Build {
    let build_id = world.deployment(id).await.build_id;
    build::get(&mut world.test.db.conn().await.unwrap(), build_id)
        .await
        .unwrap()
}

async fn runs(world: &World, wanted: u32) {
    wait_for("the build runs, or does not", PATIENCE, async || {
        (world.builder.state.lock().unwrap().running == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_tree_is_not_built_again() {
    let world = World::new().await;
    let first = world.deploy("same", &[]).await;
    world.succeeded(first).await;
    let second = world.deploy("same", &[]).await;
    let ended = world.succeeded(second).await;
    assert!(build_of(&world, second).await.reused);
    assert_eq!(world.builder.state.lock().unwrap().begun["same"], 1);
    let durations = ended.durations;
    let spent = durations.upload.unwrap() + durations.queue.unwrap() + durations.build.unwrap();
    assert!(spent < REUSE_MS, "{durations:?}");
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_build_ends_at_once() {
    let world = World::new().await;
    let id = world.deploy("slow", &[]).await;
    runs(&world, 1).await;
    wait_for("the deployment says so", PATIENCE, async || {
        (world.deployment(id).await.outcome == Outcome::Building).then_some(())
    })
    .await;
    world.rows.cancel(&world.test.db, id).await;
    assert_eq!(world.ended(id).await.outcome, Outcome::Cancelled);
    runs(&world, 0).await;
    wait_for("the build ends", PATIENCE, async || {
        (build_of(&world, id).await.outcome == BuildOutcome::Cancelled).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_deployment_takes_the_slot() {
    let world = World::new().await;
    let slow = world.deploy("slow", &[]).await;
    runs(&world, 1).await;
    let newer = world.deploy("quick", &[]).await;
    world.succeeded(newer).await;
    assert_eq!(world.deployment(slow).await.outcome, Outcome::Superseded);
    runs(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_pass_is_tried_again_and_what_may_not_is_told() {
    let world = World::new().await;
    let flaky = world.deploy("flaky", &[]).await;
    world.succeeded(flaky).await;
    assert_eq!(world.builder.state.lock().unwrap().begun["flaky"], 2);
    let broken = world.deploy("broken", &[]).await;
    let ended = world.ended(broken).await;
    let report = ended.report.unwrap();
    assert_eq!(
        (ended.outcome, report.code.as_str()),
        (Outcome::Failed, "build_failed")
    );
    assert!(report.log.iter().any(|line| line.contains("building broken")));
    let directory = place::of_build(&world.directory.path().join("logs"), ended.build_id);
    let lines = Reader::new(directory).read(&Query::default()).unwrap();
    assert_eq!(
        (lines[0].source.as_str(), lines[0].text.as_str()),
        ("build", "building broken")
    );
    let unplanned = world.deploy("no-plan", &[]).await;
    assert_eq!(
        world.ended(unplanned).await.report.unwrap().code,
        "nothing_detected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_control_died_in_begins_again() {
    let mut world = World::new().await;
    let id = world.deploy("slow", &[]).await;
    runs(&world, 1).await;
    world.kill().await;
    runs(&world, 0).await;
    world.start(Default::default()).await;
    runs(&world, 1).await;
    assert_eq!(world.builder.state.lock().unwrap().begun["slow"], 2);
    let asked = std::time::Instant::now();
    world.stop().await;
    assert!(asked.elapsed() < STOP, "a build keeps control from ending");
    runs(&world, 0).await;
    world.start(Default::default()).await;
    world.rows.cancel(&world.test.db, id).await;
    assert_eq!(world.ended(id).await.outcome, Outcome::Cancelled);
}
