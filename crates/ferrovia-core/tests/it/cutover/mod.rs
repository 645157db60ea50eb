//! The planner against a simulated world: random interleavings of what people want, what applications do, what edges
//! and nodes acknowledge, and of faults at every step.

mod checks;
mod engine;
mod scenario;
mod world;

use ferrovia_core::cutover::Plan;
use ferrovia_core::outcome::Outcome;
use proptest::prelude::*;
use world::{Fate, Kind, World};

/// Something happens.
#[derive(Debug, Clone)]
enum Event {
    Deploy(Kind),
    CancelNewest,
    Restart,
    Scale(u32),
    Down,
    Hold(bool),
    BuildStep,
    /// Control looks; the fates of its steps.
    Pass(Vec<Fate>),
    EngineAnswers(bool),
    Advance(i64),
    Observe,
    Acknowledge(usize),
    Report(usize, bool),
    Connect(usize, bool),
    /// Everything goes well for some rounds, among those that are connected.
    GoWell(u8),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        5 => Just(Kind::Good),
        1 => Just(Kind::CrashesAtStart),
        1 => Just(Kind::NeverAnswers),
        1 => Just(Kind::CannotStart),
        1 => Just(Kind::NoImage),
        1 => Just(Kind::BuildFails),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Done),
        1 => Just(Fate::Refused),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::CallLost),
        1 => Just(Fate::Killed),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => kind().prop_map(Event::Deploy),
        1 => Just(Event::CancelNewest),
        1 => Just(Event::Restart),
        1 => (0_u32..4).prop_map(Event::Scale),
        1 => any::<bool>().prop_map(Event::Hold),
        6 => Just(Event::BuildStep),
        20 => proptest::collection::vec(fate(), 0..4).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(Event::EngineAnswers),
        6 => prop_oneof![Just(10), Just(100), Just(1_100), Just(9_000), Just(700_000)].prop_map(Event::Advance),
        8 => Just(Event::Observe),
        12 => (0_usize..3).prop_map(Event::Acknowledge),
        6 => (0_usize..3, any::<bool>()).prop_map(|(who, busy)| Event::Report(who, busy)),
        2 => (0_usize..3, any::<bool>()).prop_map(|(who, there)| Event::Connect(who, there)),
        1 => Just(Event::Down),
        8 => (1_u8..14).prop_map(Event::GoWell),
    ]
}

fn happen(world: &mut World, event: &Event) {
    world.note(format!("-- {event:?}"));
    match event {
        Event::Deploy(kind) => {
            if world.attempts.len() < 12 {
                world.deploy(*kind);
            }
        }
        Event::CancelNewest => {
            if let Some(attempt) = world.attempts.last_mut() {
                attempt.cancel_requested = true;
            }
        }
        Event::Restart => world.intent.restart_nonce += 1,
        Event::Scale(count) => {
            world.intent.replicas = *count;
            world.must_answer &= *count > 0;
        }
        Event::Down => {
            world.intent.target = None;
            world.must_answer = false;
            for attempt in &mut world.attempts {
                attempt.cancel_requested |= !attempt.outcome.is_final();
            }
        }
        Event::Hold(held) => world.intent.held = *held,
        Event::BuildStep => world.build_step(),
        Event::Pass(fates) => {
            world.pass(fates);
        }
        Event::EngineAnswers(answers) => world.engine_answers = *answers,
        Event::Advance(by_ms) => {
            world.now_ms += by_ms;
            for holder in &mut world.readers {
                if holder.reader.connected {
                    holder.reader.last_seen_ms = world.now_ms;
                }
            }
        }
        Event::Observe => world.observe_all(),
        Event::Acknowledge(who) => world.acknowledge(*who),
        Event::Report(who, busy) => world.report(*who, *busy),
        Event::Connect(who, there) => world.connect(*who, *there),
        Event::GoWell(rounds) => {
            for _ in 0..*rounds {
                go_well(world);
                world.now_ms += 20;
            }
        }
    }
    world.check_answers();
}

/// One round in which nothing goes wrong.
fn go_well(world: &mut World) -> Plan {
    world.build_step();
    world.observe_all();
    for who in 0..3 {
        world.acknowledge(who);
        world.report(who, false);
    }
    world.pass(&[])
}

/// Nothing goes wrong any more: everything must come to its end.
fn settle(world: &mut World) {
    world.note("== settle");
    world.intent.held = false;
    world.engine_answers = true;
    for who in 0..3 {
        world.connect(who, true);
    }
    let mut quiet = 0;
    for _ in 0..2_000 {
        let plan = go_well(world);
        if plan.changes.is_empty() && plan.actions.is_empty() {
            quiet += 1;
            if quiet > 3 && plan.waiting.is_empty() {
                return;
            }
            let next_ms = plan.wake_at_ms.unwrap_or(world.now_ms + 100);
            world.now_ms = next_ms.clamp(world.now_ms + 10, world.now_ms + 500);
        } else {
            quiet = 0;
            world.now_ms += 10;
        }
        for holder in &mut world.readers {
            holder.reader.last_seen_ms = world.now_ms;
        }
        world.check_answers();
    }
    panic!(
        "it never ends:\n{}",
        world.log[world.log.len().saturating_sub(60)..].join("\n")
    );
}

fn check_end(world: &World) {
    let log = || world.log.join("\n");
    for attempt in &world.attempts {
        assert!(
            attempt.outcome.is_final(),
            "`v{}` did not end\n{}",
            attempt.number,
            log()
        );
    }
    let wanted = match (world.deleted, world.intent.target) {
        (false, Some(_)) => world.intent.replicas as usize,
        _ => 0,
    };
    assert_eq!(
        world.replicas.len(),
        wanted,
        "rows are left over: {:?}\n{}",
        world.replicas,
        log()
    );
    assert_eq!(
        world.containers.len(),
        wanted,
        "containers are left over\n{}",
        log()
    );
    for container in world.containers.values() {
        assert_eq!(Some(container.deployment_id), world.intent.target, "{}", log());
        assert_eq!(
            container.restart,
            ferrovia_core::workload::EngineRestart::UnlessStopped,
            "{}",
            log()
        );
    }
    for row in &world.replicas {
        assert_eq!(row.restart_nonce, world.intent.restart_nonce, "{}", log());
    }
    if let Some(target) = world.intent.target {
        let attempt = world
            .attempts
            .iter()
            .find(|attempt| attempt.id == target)
            .unwrap();
        assert_eq!(attempt.outcome, Outcome::Succeeded);
    }
}

/// `PROPTEST_CASES` asks for more than the gate has time for. A failure prints its events, shrunk.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|cases| cases.parse().ok())
            .unwrap_or(400),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_it_ends_right_and_somebody_answers(events in proptest::collection::vec(event(), 1..160)) {
        let mut world = World::new();
        for event in &events {
            happen(&mut world, event);
        }
        settle(&mut world);
        check_end(&world);
    }

    #[test]
    fn a_deleted_service_leaves_nothing(events in proptest::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for event in &events {
            happen(&mut world, event);
        }
        world.deleted = true;
        world.must_answer = false;
        settle(&mut world);
        check_end(&world);
        prop_assert!(world.containers.is_empty());
    }
}
