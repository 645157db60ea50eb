//! Deployments from the row to the route, each with a known end.

use ferrovia_core::cutover::Waiting;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::settings::Settings;
use ferrovia_core::table::RouteTarget;
use ferrovia_core::workload::ReplicaStatus;
use ferrovia_testkit::wait_for;

use crate::harness::{PATIENCE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_and_a_second_version() {
    let world = World::new().await;
    let first = world.deploy("a", &[("GREETING", "$HOME \"x\"\nü")]).await;
    let ended = world.succeeded(first).await;
    assert!(ended.durations.deploy.is_some() && ended.durations.total.is_some());
    world.settled().await;
    let container = &world.engine.replicas()[0];
    let variables = world.engine.variables(&container.handle).unwrap();
    let get = |name: &str| {
        variables
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(get("GREETING"), Some("$HOME \"x\"\nü"));
    assert_eq!(get("PORT"), Some("8080"));
    assert_eq!(get("RAILWAY_PUBLIC_DOMAIN"), Some(world.rows.host.as_str()));
    let second = world.deploy("b", &[]).await;
    world.succeeded(second).await;
    let Some(RouteTarget::Deployments { deployments }) = world.edge.route(&world.rows.host) else {
        panic!("no route");
    };
    let winner: Vec<_> = deployments
        .iter()
        .filter(|deployment| deployment.weight > 0)
        .collect();
    assert!(winner.len() == 1 && winner[0].deployment_id == second);
    world.settled().await;
    assert_eq!(world.node.members().len(), 1);
    world.check();
}

/// A tree, its variables and settings, and the code of its report.
type Broken<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a Settings, &'a str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_versions_leave_the_old_one_and_say_why() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    let health = Settings {
        health_path: Some("/health".into()),
        start_deadline_ms: 1_500,
        ..Settings::default()
    };
    let quick = Settings {
        start_deadline_ms: 1_500,
        ..Settings::default()
    };
    let cases: [Broken; 5] = [
        (
            "crash",
            &[
                ("FAKE_EXIT_AFTER_MS", "1"),
                ("FAKE_EXIT_CODE", "3"),
                ("FAKE_START_DELAY_MS", "1000"),
            ],
            &Settings::default(),
            "app_crashed",
        ),
        (
            "loopback",
            &[("FAKE_LISTEN", "loopback")],
            &quick,
            "app_not_listening",
        ),
        (
            "health",
            &[("FAKE_HEALTH_STATUS", "500")],
            &health,
            "app_unhealthy",
        ),
        (
            "command",
            &[("FAKE_CANNOT_START", "no such file")],
            &quick,
            "app_cannot_start",
        ),
        ("broken", &[], &quick, "build_failed"),
    ];
    for (tree, variables, settings, code) in cases {
        let id = world.deploy_with(tree, variables, settings.clone()).await;
        let ended = world.ended(id).await;
        assert_eq!(ended.outcome, Outcome::Failed, "{tree}");
        let report = ended.report.unwrap();
        assert_eq!(report.code, code, "{tree}: {report:?}");
        assert!(
            report.hint.is_some() || code == "build_failed",
            "{tree}: {report:?}"
        );
        assert_eq!(world.situation().await.intent.target, Some(first));
    }
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_one_supersedes_and_a_cancelled_one_leaves_nothing() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    let slow = [("FAKE_START_DELAY_MS", "60000")];
    let second = world.deploy("b", &slow).await;
    wait_for("it deploys", PATIENCE, async || {
        (world.deployment(second).await.outcome == Outcome::Deploying).then_some(())
    })
    .await;
    let third = world.deploy("c", &[]).await;
    world.succeeded(third).await;
    assert_eq!(world.deployment(second).await.outcome, Outcome::Superseded);
    let fourth = world
        .deploy_with(
            "d",
            &slow,
            Settings {
                start_deadline_ms: 60_000,
                ..Settings::default()
            },
        )
        .await;
    wait_for("it starts", PATIENCE, async || {
        let containers = world.engine.replicas();
        let started = containers
            .iter()
            .any(|container| container.deployment_id == fourth && container.status == ReplicaStatus::Running);
        started.then_some(())
    })
    .await;
    world.rows.cancel(&world.test.db, fourth).await;
    assert_eq!(world.ended(fourth).await.outcome, Outcome::Cancelled);
    world.settled().await;
    assert_eq!(world.situation().await.intent.target, Some(third));
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale_restart_down_and_delete() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    let before = world.engine.replicas()[0].handle.clone();
    world.rows.scale(&world.test.db, 3).await;
    world.settled().await;
    assert!(
        world
            .engine
            .replicas()
            .iter()
            .any(|container| container.handle == before)
    );
    world.rows.restart(&world.test.db).await;
    world.settled().await;
    assert!(
        world
            .engine
            .replicas()
            .iter()
            .all(|container| container.handle != before)
    );
    world.rows.scale(&world.test.db, 1).await;
    world.settled().await;
    world.check();
    *world.must_answer.lock().unwrap() = false;
    world.rows.down(&world.test.db).await;
    world.settled().await;
    assert!(world.engine.replicas().is_empty());
    assert!(matches!(
        world.edge.route(&world.rows.host),
        Some(RouteTarget::Unavailable { .. })
    ));
    let second = world.deploy("b", &[]).await;
    world.succeeded(second).await;
    *world.must_answer.lock().unwrap() = false;
    world.rows.delete(&world.test.db, world.clock.now_ms()).await;
    world.settled().await;
    wait_for("the route goes", PATIENCE, async || {
        world.edge.route(&world.rows.host).is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_keep_the_old_version_until_they_end() {
    let world = World::new().await;
    let first = world
        .deploy_with(
            "a",
            &[],
            Settings {
                drain_ms: 60_000,
                ..Settings::default()
            },
        )
        .await;
    world.succeeded(first).await;
    let old = world.engine.replicas()[0].clone();
    world.edge.set_open(old.replica_id, 2);
    let second = world.deploy("b", &[]).await;
    world.succeeded(second).await;
    wait_for("the old one drains", PATIENCE, async || {
        let situation = world.situation().await;
        let draining = situation
            .replicas
            .iter()
            .any(|row| row.id == old.replica_id && row.phase == ferrovia_core::cutover::Phase::Draining);
        draining.then_some(())
    })
    .await;
    let runs = || {
        world
            .engine
            .replicas()
            .iter()
            .any(|container| container.handle == old.handle && container.status == ReplicaStatus::Running)
    };
    assert!(runs());
    world.edge.set_open(old.replica_id, 0);
    wait_for("it stops", PATIENCE, async || (!runs()).then_some(())).await;
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_vanished_comes_back_and_a_stray_one_goes() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    world.settled().await;
    *world.must_answer.lock().unwrap() = false;
    let container = world.engine.replicas()[0].clone();
    {
        use ferrovia_engine::Engine;
        world.engine.stop(&container.handle, 0).await.unwrap();
        world.engine.remove(&container.handle).await.unwrap();
    }
    wait_for("it comes back", PATIENCE, async || {
        let containers = world.engine.replicas();
        let back = containers
            .iter()
            .any(|new| new.handle != container.handle && new.replica_id == container.replica_id);
        back.then_some(())
    })
    .await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redeploy_makes_new_replicas_of_the_same_image() {
    let world = World::new().await;
    let first = world.deploy("a", &[("COLOUR", "red")]).await;
    let build_id = world.succeeded(first).await.build_id;
    let second = world
        .rows
        .redeploy(&world.test.db, &world.keyring, &world.clock, build_id)
        .await;
    let ended = world.succeeded(second).await;
    assert_eq!(ended.durations.build, Some(0));
    world.settled().await;
    let variables = world
        .engine
        .variables(&world.engine.replicas()[0].handle)
        .unwrap();
    assert!(
        variables.iter().all(|(name, _)| name != "COLOUR"),
        "the snapshot is the new deployment's own"
    );
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_control_was_dead_is_found() {
    use ferrovia_engine::Engine;
    let mut world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    world.rows.scale(&world.test.db, 2).await;
    world.settled().await;
    // One is about to go: the other must be known to the edge, which goes on with what it has.
    wait_for("the edge knows both", PATIENCE, async || {
        match world.edge.route(&world.rows.host) {
            Some(RouteTarget::Deployments { deployments }) => {
                let named: usize = deployments
                    .iter()
                    .map(|deployment| deployment.replicas.len())
                    .sum();
                (named == 2).then_some(())
            }
            _ => None,
        }
    })
    .await;
    world.kill().await;
    let gone = world.engine.replicas()[0].clone();
    world.engine.stop(&gone.handle, 0).await.unwrap();
    world.engine.remove(&gone.handle).await.unwrap();
    world.start(Default::default()).await;
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_service_is_left_alone_and_a_wide_one_starts_together() {
    let world = World::new().await;
    world.rows.scale(&world.test.db, 4).await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    assert_eq!(world.engine.replicas().len(), 4);
    world.settled().await;
    world.rows.hold(&world.test.db, true).await;
    let second = world.deploy("b", &[]).await;
    let live = world.control.as_ref().unwrap().live.clone();
    wait_for("it says that it is held", PATIENCE, async || {
        (live.waiting_of(world.instance) == [Waiting::Held]).then_some(())
    })
    .await;
    assert!(!world.deployment(second).await.outcome.is_final());
    world.rows.hold(&world.test.db, false).await;
    world.succeeded(second).await;
    world.settled().await;
    world.check();
}

/// Services that are deployed at once, many times as many as there are slots.
const CROWD: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_services_gets_its_turn() {
    let world = World::new().await;
    let mut all = Vec::new();
    for number in 0..CROWD {
        let rows = world
            .rows
            .another(&world.test.db, &format!("s{number}"), world.clock.now_ms())
            .await;
        all.push(rows);
    }
    let began = std::time::Instant::now();
    let mut ids = Vec::new();
    for rows in &all {
        let settings = Settings::default();
        let id = rows
            .deploy(
                &world.test.db,
                &world.keyring,
                &world.clock,
                "same",
                &[],
                settings,
            )
            .await;
        ids.push(id);
    }
    for id in ids {
        let ended = world.ended(id).await;
        assert_eq!(ended.outcome, Outcome::Succeeded, "{:?}", ended.report);
    }
    println!("{CROWD} services in {:?}", began.elapsed());
    assert_eq!(world.engine.replicas().len(), CROWD);
    for rows in &all {
        assert!(world.edge.route(&rows.host).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_address_left_a_deployment_ends_and_the_old_one_stays() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    world.settled().await;
    // As many as a bridge may have, of a service that is not looked at.
    let other = world
        .rows
        .another(&world.test.db, "full", world.clock.now_ms())
        .await;
    world.psql(&format!(
        "UPDATE intent SET held = true WHERE instance_id = '{0}';
         INSERT INTO replica (id, deployment_id, instance_id, ordinal, address, restart_nonce, phase, phase_revision, phase_ms)
         SELECT gen_random_uuid(), '{first}', '{0}', n, '10.210.0.0'::inet + n, 0, 'serving', 0, 0
         FROM generate_series(2, 1000) AS n ON CONFLICT DO NOTHING",
        other.instance
    ));
    let settings = Settings {
        start_deadline_ms: 1_500,
        ..Settings::default()
    };
    let second = world.deploy_with("b", &[], settings).await;
    let report = world.ended(second).await.report.unwrap();
    assert!(report.message.contains("address"), "{report:?}");
    world.psql(&format!(
        "DELETE FROM replica WHERE instance_id = '{}'",
        other.instance
    ));
    world.settled().await;
    let third = world.deploy("c", &[]).await;
    world.succeeded(third).await;
    world.settled().await;
    world.check();
}
