//! The tables between control and its readers: who is waited for, and what a restored database does.

use ferrovia_core::cutover::Phase;
use ferrovia_testkit::wait_for;

use crate::harness::{Edge, PATIENCE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_edge_blocks_no_deploy_but_every_stop() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    world.settled().await;
    let second_edge = Edge::start(world.directory.path(), "second");
    wait_for("the second edge has the route", PATIENCE, async || {
        second_edge.route(&world.rows.host)
    })
    .await;
    let old = world.engine.replicas()[0].clone();
    second_edge.leave(false).await;
    let second = world.deploy("b", &[]).await;
    world.succeeded(second).await;
    wait_for("the old one drains", PATIENCE, async || {
        let situation = world.situation().await;
        let mut rows = situation.replicas.iter();
        rows.any(|row| row.id == old.replica_id && row.phase == Phase::Draining)
            .then_some(())
    })
    .await;
    // Past the drain's end it still runs: the edge that is away may be sending to it.
    let past = world.clock.now_ms() + 6_000;
    wait_for("time passes", PATIENCE, async || {
        (world.clock.now_ms() > past).then_some(())
    })
    .await;
    assert!(
        world
            .engine
            .replicas()
            .iter()
            .any(|container| container.handle == old.handle)
    );
    let back = Edge::start(world.directory.path(), "second");
    world.settled().await;
    world.check();
    back.leave(true).await;
    wait_for("it is forgotten", PATIENCE, async || {
        (world.psql("SELECT count(*) FROM table_reader WHERE name = 'second'") == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_raises_the_epoch() {
    let mut world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    world.settled().await;
    world.stop().await;
    let before = world.edge.version();
    assert!(before.revision > 2);
    world.psql("UPDATE table_head SET revision = 1");
    world.start(Default::default()).await;
    wait_for("the epoch grows", PATIENCE, async || {
        (world.edge.version().epoch > before.epoch).then_some(())
    })
    .await;
    let second = world.deploy("b", &[]).await;
    world.succeeded(second).await;
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstones_go_once_every_reader_knows() {
    let world = World::new().await;
    for tree in ["a", "b", "c"] {
        let id = world.deploy(tree, &[]).await;
        world.succeeded(id).await;
    }
    world.settled().await;
    assert_ne!(
        world.psql("SELECT count(*) FROM table_row WHERE value IS NULL"),
        "0"
    );
    world.clean_up("tables").await;
    wait_for("they go", PATIENCE, async || {
        (world.psql("SELECT count(*) FROM table_row WHERE value IS NULL") == "0").then_some(())
    })
    .await;
    // A reader that knows nothing gets everything that is there.
    let late = Edge::start(world.directory.path(), "late");
    wait_for("it has the route", PATIENCE, async || {
        late.route(&world.rows.host)
    })
    .await;
    let id = world.deploy("d", &[]).await;
    world.succeeded(id).await;
    world.settled().await;
    world.check();
}
