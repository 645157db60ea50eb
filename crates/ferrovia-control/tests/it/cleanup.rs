//! What nothing refers to goes, and nothing else.

use std::sync::atomic::Ordering;

use ferrovia_control::GRACE_MS;
use ferrovia_core::settings::Settings;
use ferrovia_engine::Engine;
use ferrovia_testkit::wait_for;

use crate::harness::{PATIENCE, REGISTRY, World, image_of};

const TWO_HOURS_MS: i64 = 2 * 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_images_go_and_those_for_rollbacks_stay() {
    let world = World::new().await;
    for number in 1..=8 {
        let id = world.deploy(&format!("tree-{number}"), &[]).await;
        world.succeeded(id).await;
    }
    world.settled().await;
    world.ahead_ms.fetch_add(TWO_HOURS_MS, Ordering::SeqCst);
    world.clean_up("images").await;
    wait_for("three images go", PATIENCE, async || {
        (world.builder.state.lock().unwrap().images.len() == 5).then_some(())
    })
    .await;
    wait_for("their rows go", PATIENCE, async || {
        (world.psql("SELECT count(*) FROM image") == "5").then_some(())
    })
    .await;
    let on_engine = world.engine.images(&format!("{REGISTRY}/")).await.unwrap();
    assert_eq!(on_engine.len(), 5);
    // What is gone is made again when it is wanted again.
    let again = world.deploy("tree-1", &[]).await;
    world.succeeded(again).await;
    assert_eq!(world.builder.state.lock().unwrap().begun["tree-1"], 2);
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_becomes_final_after_the_grace_period() {
    let world = World::new().await;
    let id = world.deploy("tree", &[("SECRET", "hunter2")]).await;
    world.succeeded(id).await;
    *world.must_answer.lock().unwrap() = false;
    world.rows.delete(&world.test.db, world.clock.now_ms()).await;
    world.settled().await;
    world.clean_up("deleted").await;
    let sealed = || world.psql("SELECT count(*) FROM deployment WHERE octet_length(sealed_variables) > 0");
    wait_for("a round ends", PATIENCE, async || {
        let due = world.psql("SELECT count(*) FROM work_item WHERE key = 'deleted' AND done_seq > 0");
        (due == "1").then_some(())
    })
    .await;
    assert_eq!(sealed(), "1", "it can still be brought back");
    world.ahead_ms.fetch_add(GRACE_MS + 1_000, Ordering::SeqCst);
    world.clean_up("deleted").await;
    wait_for("its secrets go", PATIENCE, async || {
        (sealed() == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_environment_gives_its_images_and_source_back_and_its_neighbour_keeps_its_own() {
    let world = World::new().await;
    let staging = world
        .rows
        .elsewhere(&world.test.db, "staging", world.clock.now_ms())
        .await;
    let (db, keyring, clock) = (&world.test.db, &world.keyring, &world.clock);
    let first = world.deploy("tree-1", &[]).await;
    world.succeeded(first).await;
    let neighbour = staging
        .deploy(db, keyring, clock, "tree-2", &[], Settings::default())
        .await;
    world.succeeded(neighbour).await;
    world.psql(
        "INSERT INTO source_tree (project_id, digest, manifest, size_bytes, created_ms, used_ms)
         SELECT project_id, tree_digest, '[]', 1, created_ms, created_ms FROM build",
    );
    *world.must_answer.lock().unwrap() = false;
    world.rows.delete(db, world.clock.now_ms()).await;
    wait_for("its replica goes", PATIENCE, async || {
        (world.psql("SELECT count(*) FROM replica") == "1").then_some(())
    })
    .await;
    let left = || world.psql("SELECT string_agg(digest, ',' ORDER BY digest) FROM source_tree");
    let rounds = async |ahead_ms| {
        world.ahead_ms.fetch_add(ahead_ms, Ordering::SeqCst);
        for key in ["deleted", "images"] {
            let column = |name| {
                let found = world.psql(&format!("SELECT {name} FROM work_item WHERE key = '{key}'"));
                found.parse::<i64>().unwrap_or(0)
            };
            let wanted = column("wanted_seq");
            world.clean_up(key).await;
            wait_for("a round ends", PATIENCE, async || {
                (column("done_seq") > wanted).then_some(())
            })
            .await;
        }
    };
    rounds(GRACE_MS - 60_000).await;
    assert_eq!(left(), "tree-1,tree-2", "it can still be brought back");
    assert_eq!(world.psql("SELECT count(*) FROM image"), "2");
    rounds(120_000).await;
    wait_for("its image goes", PATIENCE, async || {
        let state = world.builder.state.lock().unwrap();
        (state.images.len() == 1).then_some(())
    })
    .await;
    assert_eq!(left(), "tree-2");
    let kept = image_of("tree-2").to_string();
    assert!(world.builder.state.lock().unwrap().images.contains(&kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condemned_image_is_not_run_but_made_again() {
    let world = World::new().await;
    let first = world.deploy("tree", &[]).await;
    let build_id = world.succeeded(first).await.build_id;
    *world.must_answer.lock().unwrap() = false;
    world.rows.down(&world.test.db).await;
    world.settled().await;
    world.psql("UPDATE image SET condemned_ms = 1");
    let second = world
        .rows
        .redeploy(&world.test.db, &world.keyring, &world.clock, build_id)
        .await;
    world.succeeded(second).await;
    assert_eq!(
        world.psql("SELECT count(*) FROM image WHERE condemned_ms IS NULL"),
        "1"
    );
    assert!(world.builder.state.lock().unwrap().begun["tree"] > 1);
    world.settled().await;
}
