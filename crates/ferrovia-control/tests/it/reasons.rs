//! Why a version is not healthy is told while it is on its way, and not only at its deadline.

use ferrovia_build::tree::TreeStore;
use ferrovia_control::usecase::{Actor, OpContext, Parts, PublicSite, UseCases};
use ferrovia_core::error::Report;
use ferrovia_core::id::DeploymentId;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::outcome::{Outcome, State};
use ferrovia_core::permission::Scope;
use ferrovia_core::settings::Settings;
use ferrovia_testkit::wait_for;

use crate::harness::{PATIENCE, World};

fn cases(world: &World) -> UseCases {
    UseCases::new(Parts {
        db: world.test.db.clone(),
        clock: world.clock.clone(),
        keyring: world.keyring.clone(),
        addresses: AddressPlan::default(),
        site: PublicSite {
            apps_domain: "localhost".into(),
            scheme: "http",
            port: 8080,
        },
        trees: TreeStore::new(world.directory.path().join("trees")),
        logs: world.directory.path().join("logs"),
        live: world.control.as_ref().unwrap().live.clone(),
        version: "0.0.0-test".into(),
    })
}

fn owner(world: &World) -> OpContext {
    OpContext {
        actor: Actor::Host { uid: 0 },
        team_id: world.rows.team,
        scope: Scope::Owner,
        request_id: "test".into(),
        repeat: None,
    }
}

/// What is told of a deployment while it has not ended, once it is this.
async fn told(world: &World, id: DeploymentId, code: &str) -> (Report, State) {
    let (cases, ctx) = (cases(world), owner(world));
    let look = async || {
        let view = cases.get_deployment(&ctx, id).await.unwrap();
        assert_eq!(view.deployment.report, None);
        let reason = view.reason.filter(|reason| reason.code == code)?;
        Some((reason, view.state))
    };
    wait_for("a reason is told", PATIENCE, look).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_is_told_before_the_deadline() {
    let world = World::new().await;
    let first = world.deploy("a", &[]).await;
    world.succeeded(first).await;
    let loopback = world.deploy("b", &[("FAKE_LISTEN", "loopback")]).await;
    let (reason, state) = told(&world, loopback, "app_not_listening").await;
    assert_eq!(state, State::Starting);
    assert!(reason.message.contains("127.0.0.1:8080"), "{}", reason.message);
    assert!(reason.hint.unwrap().contains("0.0.0.0:$PORT"));

    let health = Settings {
        health_path: Some("/health".into()),
        ..Settings::default()
    };
    let refusing = world
        .deploy_with("c", &[("FAKE_HEALTH_STATUS", "503")], health)
        .await;
    let (reason, _) = told(&world, refusing, "app_unhealthy").await;
    assert!(
        reason.message.contains("`GET /health` answered 503"),
        "{}",
        reason.message
    );

    world.rows.hold(&world.test.db, true).await;
    let held = world.deploy("d", &[]).await;
    told(&world, held, "instance_held").await;
    world.rows.hold(&world.test.db, false).await;
    let succeeded = world.succeeded(held).await;
    assert_eq!(succeeded.outcome, Outcome::Succeeded);
    let view = cases(&world).get_deployment(&owner(&world), held).await.unwrap();
    assert_eq!(view.reason, None);
    world.check();
}
