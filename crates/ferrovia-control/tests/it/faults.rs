//! Control dies before and after every commit and every engine call of what it does, and another one takes over: it
//! ends right, nothing is left over, nothing runs twice, and somebody answers all the time.
//!
//! Each test goes on until an attempt comes to its end without meeting the place where it should have died: then there
//! are no more such places.

use std::time::Duration;

use ferrovia_core::id::DeploymentId;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::settings::Settings;
use ferrovia_engine::fake::{EventFaults, Fault, Rule, Script, When};
use ferrovia_store::fault::Faults;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{APPLICATION, World};

/// More places than any of these stories has.
const MOST_PLACES: u64 = 400;
/// Times that all connections to the database break during one deployment: after each failure of the same work the
/// next try waits longer.
const BREAKS: usize = 4;

/// What is done, and how it must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    FirstDeploy,
    NextDeploy,
    FailingDeploy,
    Scale,
    Restart,
    Down,
}

/// Where control dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    BeforeCommit,
    AfterCommit,
    BeforeCall,
    AfterCall,
}

impl Death {
    const ALL: [Self; 4] = [
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeCall,
        Self::AfterCall,
    ];

    fn faults(self, place: u64) -> Faults {
        match self {
            Self::BeforeCommit => Faults::before_commit(place + 1),
            Self::AfterCommit => Faults::after_commit(place + 1),
            Self::BeforeCall | Self::AfterCall => Faults::default(),
        }
    }

    fn script(self, place: u64) -> Script {
        let fault = match self {
            Self::BeforeCall => Fault::KillBefore,
            Self::AfterCall => Fault::KillAfter,
            Self::BeforeCommit | Self::AfterCommit => return Script::default(),
        };
        let rule = Rule {
            call: None,
            when: When::Nth(place),
            fault,
        };
        Script {
            rules: vec![rule],
            ..Script::default()
        }
    }
}

/// Brings the world to where the story begins.
async fn prepare(world: &mut World, story: Story, round: u64) {
    match story {
        Story::FirstDeploy => {
            *world.must_answer.lock().unwrap() = false;
            world.rows.down(&world.test.db).await;
        }
        Story::Scale => world.rows.scale(&world.test.db, 1 + (round % 2) as u32).await,
        Story::Down => {
            if world.situation().await.intent.target.is_none() {
                let id = world.deploy("v1", &[]).await;
                world.succeeded(id).await;
            }
        }
        Story::NextDeploy | Story::FailingDeploy | Story::Restart => {}
    }
    world.settled().await;
}

async fn tell(world: &World, story: Story, round: u64) -> Option<DeploymentId> {
    let db = &world.test.db;
    match story {
        Story::FirstDeploy | Story::NextDeploy => Some(world.deploy(&format!("v{round}"), &[]).await),
        Story::FailingDeploy => {
            let crash = [("FAKE_CANNOT_START", "no such file")];
            Some(world.deploy(&format!("bad{round}"), &crash).await)
        }
        Story::Scale => {
            world.rows.scale(db, 2 - (round % 2) as u32).await;
            None
        }
        Story::Restart => {
            world.rows.restart(db).await;
            None
        }
        Story::Down => {
            *world.must_answer.lock().unwrap() = false;
            world.rows.down(db).await;
            None
        }
    }
}

async fn wait_for_end(world: &World, story: Story, deployment: Option<DeploymentId>) {
    if let Some(id) = deployment {
        let ended = world.ended(id).await;
        let wanted = if story == Story::FailingDeploy {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        assert_eq!(ended.outcome, wanted, "{:?}", ended.report);
        if wanted == Outcome::Succeeded {
            assert_eq!(world.situation().await.intent.target, Some(id));
        }
    }
    world.settled().await;
    world.check();
}

async fn dies_everywhere(story: Story, death: Death) {
    let mut world = World::new().await;
    let id = world.deploy("v1", &[]).await;
    world.succeeded(id).await;
    for place in 0..MOST_PLACES {
        prepare(&mut world, story, place).await;
        world.kill().await;
        let faults = death.faults(place);
        world.start(faults.clone()).await;
        world.engine.set_script(death.script(place));
        let deployment = tell(&world, story, place).await;
        let died = tokio::select! {
            () = faults.died() => true,
            () = world.engine.killed() => true,
            () = wait_for_end(&world, story, deployment) => false,
        };
        if !died {
            println!("{story:?}: {place} places, {death:?}");
            assert!(place > 3, "the story has hardly begun");
            return;
        }
        world.kill().await;
        world.engine.set_script(Script::default());
        world.engine.revive();
        world.start(Faults::default()).await;
        wait_for_end(&world, story, deployment).await;
    }
    panic!("{story:?} does not end");
}

/// An engine that does not do one call in six, or does it and does not say so, and loses and repeats its hints.
fn unreliable() -> Script {
    let rule = |fault, chance| Rule {
        call: None,
        when: When::Chance(chance),
        fault,
    };
    Script {
        rules: vec![
            rule(Fault::Unavailable, 0.05),
            rule(Fault::LoseAnswer, 0.05),
            rule(Fault::LoseCall, 0.05),
            rule(Fault::Refuse("busy".into()), 0.02),
        ],
        events: EventFaults {
            lose: 0.3,
            duplicate: 0.1,
            reorder: 0.1,
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_engine_delays_and_breaks_nothing() {
    let world = World::new().await;
    let first = world.deploy("v0", &[]).await;
    world.succeeded(first).await;
    world.engine.set_script(unreliable());
    for round in 1..=8 {
        let id = world.deploy(&format!("v{round}"), &[]).await;
        world.succeeded(id).await;
        if round % 3 == 0 {
            world.rows.restart(&world.test.db).await;
        }
        world.rows.scale(&world.test.db, 1 + round % 3).await;
    }
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_away_fails_a_deployment_at_its_deadline_and_nothing_else() {
    let world = World::new().await;
    let first = world.deploy("v0", &[]).await;
    world.succeeded(first).await;
    world.settled().await;
    let rule = Rule {
        call: None,
        when: When::Always,
        fault: Fault::Unavailable,
    };
    world.engine.set_script(Script {
        rules: vec![rule],
        ..Script::default()
    });
    let settings = Settings {
        start_deadline_ms: 1_500,
        ..Settings::default()
    };
    let id = world.deploy_with("v1", &[], settings).await;
    let ended = world.ended(id).await;
    assert_eq!(ended.report.unwrap().code, "engine_unavailable");
    world.engine.set_script(Script::default());
    world.settled().await;
    let second = world.deploy("v2", &[]).await;
    world.succeeded(second).await;
    world.settled().await;
    world.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_may_break_at_any_moment() {
    let world = World::new().await;
    let first = world.deploy("v0", &[]).await;
    world.succeeded(first).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 1..=6 {
        let id = world.deploy(&format!("v{round}"), &[]).await;
        let breaks = async {
            for _ in 0..BREAKS {
                tokio::time::sleep(Duration::from_millis(random.random_range(5..150))).await;
                world.psql(&format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = '{APPLICATION}'"
                ));
            }
        };
        tokio::join!(breaks, world.succeeded(id));
    }
    world.settled().await;
    world.check();
}

/// The four deaths at once, each in a world of its own: most of the time they wait.
async fn dies_everyhow(story: Story) {
    let [a, b, c, d] = Death::ALL.map(|death| Box::pin(dies_everywhere(story, death)));
    tokio::join!(a, b, c, d);
}

macro_rules! stories {
    ($($name:ident: $story:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                dies_everyhow(Story::$story).await;
            }
        )*
    };
}

stories! {
    first_deploy: FirstDeploy;
    next_deploy: NextDeploy;
    failing_deploy: FailingDeploy;
    scale: Scale;
    restart: Restart;
    down: Down;
}
