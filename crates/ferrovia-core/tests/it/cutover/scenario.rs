//! Stories with a known end, step by step.

use ferrovia_core::cutover::{BuildStanding, Change, Phase};
use ferrovia_core::outcome::Outcome;

use super::settle;
use super::world::{Kind, World};

fn outcomes(world: &World) -> Vec<Outcome> {
    world.attempts.iter().map(|attempt| attempt.outcome).collect()
}

#[test]
fn a_broken_second_version_leaves_the_first() {
    for (kind, code) in [
        (Kind::CrashesAtStart, "app_crashed"),
        (Kind::NeverAnswers, "app_not_listening"),
        (Kind::CannotStart, "app_cannot_start"),
        (Kind::NoImage, "image_unavailable"),
        (Kind::BuildFails, "build_failed"),
    ] {
        let mut world = World::new();
        world.deploy(Kind::Good);
        settle(&mut world);
        let first = world.replicas.clone();
        world.deploy(kind);
        settle(&mut world);
        assert_eq!(
            outcomes(&world),
            [Outcome::Succeeded, Outcome::Failed],
            "{kind:?}"
        );
        assert_eq!(world.replicas, first, "{kind:?}");
        assert!(
            world.log.iter().any(|line| line.contains(code)),
            "{kind:?}: {:#?}",
            world.log
        );
    }
}

#[test]
fn it_restarts_three_times_before_it_gives_up() {
    let mut world = World::new();
    world.deploy(Kind::CrashesAtStart);
    settle(&mut world);
    let starts = world.log.iter().filter(|line| line.contains("Start {")).count();
    assert_eq!(starts, 4);
    assert!(world.containers.is_empty() && world.replicas.is_empty());
}

#[test]
fn a_newer_one_supersedes_what_waits_and_what_deploys_only_once_it_has_an_image() {
    let mut world = World::new();
    world.deploy(Kind::NeverAnswers);
    world.attempts[0].build = BuildStanding::Succeeded;
    world.pass(&[]);
    assert_eq!(outcomes(&world), [Outcome::Deploying]);
    world.deploy(Kind::BuildFails);
    world.deploy(Kind::Good);
    world.pass(&[]);
    assert_eq!(
        outcomes(&world),
        [Outcome::Deploying, Outcome::Superseded, Outcome::Queued]
    );
    world.attempts[2].build = BuildStanding::Succeeded;
    world.pass(&[]);
    assert_eq!(
        outcomes(&world),
        [Outcome::Superseded, Outcome::Superseded, Outcome::Deploying]
    );
    settle(&mut world);
    assert_eq!(outcomes(&world)[2], Outcome::Succeeded);
}

#[test]
fn scaling_recreates_nothing() {
    let mut world = World::new();
    world.deploy(Kind::Good);
    settle(&mut world);
    let first = world.containers.keys().next().cloned().unwrap();
    world.intent.replicas = 3;
    settle(&mut world);
    assert!(world.containers.contains_key(&first) && world.containers.len() == 3);
    world.intent.replicas = 1;
    settle(&mut world);
    assert_eq!(world.containers.keys().collect::<Vec<_>>(), [&first]);
}

#[test]
fn a_container_that_somebody_removed_comes_back_at_its_address() {
    let mut world = World::new();
    world.deploy(Kind::Good);
    settle(&mut world);
    let before = world.replicas[0].clone();
    world.must_answer = false;
    world.containers.clear();
    settle(&mut world);
    assert_eq!(
        (world.replicas[0].id, world.replicas[0].address),
        (before.id, before.address)
    );
    assert_eq!(world.replicas[0].phase, Phase::Serving);
    assert_eq!(world.containers.len(), 1);
}

#[test]
fn a_held_service_is_left_alone() {
    let mut world = World::new();
    world.deploy(Kind::Good);
    settle(&mut world);
    world.intent.held = true;
    world.intent.restart_nonce += 1;
    let plan = world.pass(&[]);
    assert!(plan.changes.is_empty() && plan.actions.is_empty());
    world.deploy(Kind::Good);
    world.build_step();
    world.build_step();
    world.attempts[1].cancel_requested = true;
    let plan = world.pass(&[]);
    assert!(matches!(
        plan.changes[..],
        [Change::End {
            outcome: Outcome::Cancelled,
            ..
        }]
    ));
}

#[test]
fn without_an_edge_a_deployment_fails_at_its_deadline_and_says_so() {
    let mut world = World::new();
    world.deploy(Kind::Good);
    world.attempts[0].build = BuildStanding::Succeeded;
    for who in 0..2 {
        world.connect(who, false);
    }
    for _ in 0..100 {
        world.observe_all();
        world.acknowledge(2);
        world.pass(&[]);
        world.now_ms += 1_000;
    }
    assert_eq!(outcomes(&world), [Outcome::Failed]);
    assert!(world.log.iter().any(|line| line.contains("edge_unavailable")));
}
