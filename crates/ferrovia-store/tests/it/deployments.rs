//! Builds, deployments, images and replicas: the guarantees that the database gives.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ferrovia_core::cutover::Phase;
use ferrovia_core::error::Report;
use ferrovia_core::id::{BuildId, DeploymentId, InstanceId, ProjectId, ServiceId};
use ferrovia_core::injected::GitSource;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::settings::Settings;
use ferrovia_core::workload::ImageReference;
use ferrovia_store::build::{self, NewBuild, Outcome as BuildOutcome};
use ferrovia_store::deployment::{self, NewDeployment};
use ferrovia_store::image::{self, Image, Kept};
use ferrovia_store::replica::{self, NewReplica};
use ferrovia_store::{Error, Tx, cutover, intent, retention};

use crate::fixture::{Fixture, NOW_MS, id};

pub const DAY_MS: i64 = 24 * 3_600_000;

pub fn reference(number: u8) -> ImageReference {
    ImageReference {
        repository: "127.0.0.1:7071/apps/shop/web".into(),
        digest: format!("sha256:{number:064x}"),
    }
}

fn new_image(number: u8) -> Image {
    Image {
        reference: reference(number),
        size_bytes: 1,
        config: serde_json::json!({"ExposedPorts": {"3000/tcp": {}}}),
        created_ms: NOW_MS,
        condemned_ms: None,
    }
}

/// Images made before a time are not needed but for rollbacks to so many successes.
pub fn kept(made_since_ms: i64, successes: u32) -> Kept {
    Kept {
        made_since_ms,
        deleted_since_ms: NOW_MS,
        successes,
    }
}

/// A build and its deployment with this number.
async fn deploy(fixture: &Fixture, number: u32) -> (BuildId, DeploymentId) {
    deploy_at(fixture, Place::of(fixture), number).await
}

/// Where a deployment belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub project: ProjectId,
    pub service: ServiceId,
    pub instance: InstanceId,
}

impl Place {
    pub fn of(fixture: &Fixture) -> Self {
        Self {
            project: fixture.project.id,
            service: fixture.service.id,
            instance: fixture.instance.id,
        }
    }
}

pub async fn deploy_at(fixture: &Fixture, place: Place, number: u32) -> (BuildId, DeploymentId) {
    let (build_id, deployment_id): (BuildId, DeploymentId) = (id(), id());
    let key = &fixture.data_key;
    let build = NewBuild {
        id: build_id,
        project_id: place.project,
        service_id: place.service,
        tree_digest: Some(format!("sha256:{number}")),
        image_reference: None,
        settings: Default::default(),
        data_key_id: key.id(),
        sealed_variables: key.seal_pairs(&[], &build::place(build_id)).unwrap(),
        rebuild: false,
        created_ms: NOW_MS,
    };
    let deployment = NewDeployment {
        id: deployment_id,
        instance_id: place.instance,
        number,
        build_id,
        settings: Settings::default(),
        data_key_id: key.id(),
        sealed_variables: key.seal_pairs(&[], &deployment::place(deployment_id)).unwrap(),
        source: GitSource::default(),
        upload_ms: Some(7),
        created_ms: NOW_MS,
    };
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                build::insert(tx, &build).await?;
                deployment::insert(tx, &deployment).await
            })
        })
        .await;
    (build_id, deployment_id)
}

pub async fn succeed(tx: &mut Tx, build: BuildId, deployment: DeploymentId, number: u8) -> Result<(), Error> {
    image::ensure(tx, &new_image(number)).await?;
    build::succeed(tx, build, &reference(number), false, NOW_MS).await?;
    deployment::begin(tx, deployment, 1, 2, NOW_MS).await?;
    deployment::end(tx, deployment, Outcome::Succeeded, None, &[], NOW_MS + 5).await
}

#[tokio::test]
async fn a_deployment_goes_through_its_life_once() {
    let fixture = Fixture::new().await;
    let (build_id, id) = deploy(&fixture, 1).await;
    let facts = async || {
        let instance = fixture.instance.id;
        let found = cutover::find(&mut *fixture.conn().await, instance)
            .await
            .unwrap()
            .unwrap();
        found.deployments[0].clone()
    };
    assert_eq!(facts().await.attempt.port, None, "the image is not known");
    assert_eq!(
        build::waiting(&mut *fixture.conn().await, build_id)
            .await
            .unwrap(),
        [(id, fixture.instance.id)]
    );
    assert!(
        !build::is_unwanted(&mut *fixture.conn().await, build_id)
            .await
            .unwrap()
    );
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                deployment::set_building(tx, id).await?;
                deployment::set_building(tx, id).await?;
                succeed(tx, build_id, id, 1).await?;
                // The same end again is no error, another one is.
                deployment::end(tx, id, Outcome::Succeeded, None, &[], NOW_MS + 9).await?;
                let report = Report::new("app_crashed", "no");
                let other = deployment::end(tx, id, Outcome::Failed, Some(&report), &[], NOW_MS + 9).await;
                assert!(matches!(other, Err(Error::Stale { .. })));
                Ok(())
            })
        })
        .await;
    let found = deployment::get(&mut *fixture.conn().await, id).await.unwrap();
    assert_eq!(
        (found.outcome, found.finished_ms),
        (Outcome::Succeeded, Some(NOW_MS + 5))
    );
    assert_eq!(
        (found.durations.total, found.durations.upload),
        (Some(12), Some(7))
    );
    assert_eq!(facts().await.attempt.port, Some(3000));
    assert!(
        build::is_unwanted(&mut *fixture.conn().await, build_id)
            .await
            .unwrap()
    );
    assert!(
        !fixture
            .tx(move |tx| Box::pin(deployment::request_cancel(tx, id)))
            .await
    );
}

#[tokio::test]
async fn a_build_ends_once() {
    let fixture = Fixture::new().await;
    let (build_id, _) = deploy(&fixture, 1).await;
    let ended = fixture
        .tx(move |tx| {
            Box::pin(async move {
                build::begin(tx, build_id, NOW_MS + 1).await?;
                build::begin(tx, build_id, NOW_MS + 2).await?;
                let report = Report::new("cancelled", "the build was cancelled");
                let first =
                    build::end(tx, build_id, BuildOutcome::Cancelled, Some(&report), NOW_MS + 3).await?;
                let second = build::end(tx, build_id, BuildOutcome::Failed, None, NOW_MS + 4).await?;
                Ok((first, second))
            })
        })
        .await;
    assert_eq!(ended, (true, false));
    let found = build::get(&mut *fixture.conn().await, build_id).await.unwrap();
    assert_eq!(
        (found.started_ms, found.finished_ms),
        (Some(NOW_MS + 1), Some(NOW_MS + 3))
    );
}

#[tokio::test]
async fn only_what_nothing_refers_to_is_condemned() {
    let fixture = Fixture::new().await;
    for number in 1..=5 {
        let (build_id, deployment_id) = deploy(&fixture, u32::from(number)).await;
        fixture
            .tx(move |tx| Box::pin(async move { succeed(tx, build_id, deployment_id, number).await }))
            .await;
        let instance = fixture.instance.id;
        if number == 1 {
            fixture
                .tx(move |tx| {
                    Box::pin(async move { intent::set_target(tx, instance, Some(deployment_id)).await })
                })
                .await;
        }
    }
    let later = NOW_MS + DAY_MS;
    let young = fixture
        .tx(move |tx| Box::pin(image::condemn(tx, later, kept(NOW_MS, 2), 100)))
        .await;
    assert!(young.is_empty(), "all of them are too young");
    // The first is the target, the last two are kept for rollbacks.
    let condemned = fixture
        .tx(move |tx| Box::pin(image::condemn(tx, later, kept(later, 2), 100)))
        .await;
    assert_eq!(
        HashSet::from_iter(condemned),
        HashSet::from([reference(2), reference(3)])
    );
    let usable = fixture
        .tx(move |tx| {
            Box::pin(async move {
                Ok((
                    image::hold(tx, &reference(2)).await?,
                    image::hold(tx, &reference(5)).await?,
                ))
            })
        })
        .await;
    assert_eq!(usable, (false, true));
    let refused = fixture
        .test
        .db
        .tx::<_, Error>(|tx| Box::pin(async move { image::ensure(tx, &new_image(2)).await }))
        .await;
    assert!(
        matches!(refused, Err(Error::Taken { .. })),
        "its deletion is on its way"
    );
    fixture
        .tx(|tx| Box::pin(async move { image::remove(tx, &reference(2)).await }))
        .await;
    fixture
        .tx(|tx| Box::pin(async move { image::ensure(tx, &new_image(2)).await }))
        .await;
    let left = image::condemned(&mut *fixture.conn().await, 10).await.unwrap();
    assert_eq!(left, [reference(3)]);
}

#[tokio::test]
async fn an_image_that_somebody_is_about_to_run_is_not_condemned() {
    let fixture = Fixture::new().await;
    let (build_id, deployment_id) = deploy(&fixture, 1).await;
    fixture
        .tx(move |tx| Box::pin(async move { succeed(tx, build_id, deployment_id, 1).await }))
        .await;
    let instance = fixture.instance.id;
    let (held, go) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let (held, go) = (std::sync::Arc::new(held), std::sync::Arc::new(go));
    let (told, gate) = (held.clone(), go.clone());
    let db = fixture.test.db.clone();
    let runner = tokio::spawn(async move {
        db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                assert!(image::hold(tx, &reference(1)).await?);
                told.notify_one();
                gate.notified().await;
                intent::set_target(tx, instance, Some(deployment_id)).await
            })
        })
        .await
    });
    held.notified().await;
    let later = NOW_MS + DAY_MS;
    let meanwhile = fixture
        .tx(move |tx| Box::pin(image::condemn(tx, later, kept(later, 0), 100)))
        .await;
    assert!(meanwhile.is_empty());
    go.notify_one();
    runner.await.unwrap().unwrap();
    let after = fixture
        .tx(move |tx| Box::pin(image::condemn(tx, later, kept(later, 0), 100)))
        .await;
    assert!(after.is_empty());
}

#[tokio::test]
async fn replicas_that_are_made_at_once_get_addresses_of_their_own() {
    let fixture = Fixture::new().await;
    let (_, deployment_id) = deploy(&fixture, 1).await;
    let plan = AddressPlan::default();
    let mut tasks = Vec::new();
    for ordinal in 1..=12 {
        let (db, plan) = (fixture.test.db.clone(), plan.clone());
        let new = NewReplica {
            id: id(),
            deployment_id,
            instance_id: fixture.instance.id,
            ordinal,
            restart_nonce: 0,
            bridge: 1,
            now_ms: NOW_MS,
        };
        tasks.push(tokio::spawn(async move {
            db.tx::<_, Error>(move |tx| Box::pin(async move { replica::insert(tx, &new, &plan).await }))
                .await
        }));
    }
    let mut addresses: HashSet<Ipv4Addr> = HashSet::new();
    for task in tasks {
        addresses.insert(task.await.unwrap().unwrap());
    }
    assert_eq!(addresses.len(), 12);
    let bridge = plan.bridge(1).unwrap();
    assert!(
        addresses
            .iter()
            .all(|address| plan.bridge_of(*address).as_ref() == Some(&bridge))
    );
    let rows = replica::of_instance(&mut *fixture.conn().await, fixture.instance.id)
        .await
        .unwrap();
    assert!(rows.iter().all(|row| row.phase == Phase::Admitting));
    let unsettled = cutover::unsettled(&mut *fixture.conn().await).await.unwrap();
    assert_eq!(unsettled, [fixture.instance.id]);
}

#[tokio::test]
async fn a_deleted_projects_secrets_open_nowhere() {
    let fixture = Fixture::new().await;
    deploy(&fixture, 1).await;
    let (project, version) = (fixture.project.id, fixture.project.version);
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                ferrovia_store::project::delete(tx, project, version, NOW_MS)
                    .await
                    .map(|_| ())
            })
        })
        .await;
    assert_eq!(fixture.tx(|tx| Box::pin(retention::shred(tx, NOW_MS))).await, 0);
    assert!(fixture.tx(|tx| Box::pin(retention::shred(tx, NOW_MS + 1))).await >= 3);
    assert_eq!(
        fixture.tx(|tx| Box::pin(retention::shred(tx, NOW_MS + 1))).await,
        0
    );
    let sealed: Vec<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM data_key")
        .fetch_all(&mut *fixture.conn().await)
        .await
        .unwrap();
    assert!(sealed.iter().all(Vec::is_empty));
}
