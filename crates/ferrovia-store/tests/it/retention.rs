//! What is deleted gives its images and trees back, and looking for them keeps nobody waiting.

use std::sync::Arc;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::workload::ImageReference;
use ferrovia_store::image::Kept;
use ferrovia_store::{Error, environment, image, instance, intent, project, retention, service, source_tree};
use tokio::sync::Notify;

use crate::deployments::{DAY_MS, Place, deploy_at, kept, reference, succeed};
use crate::fixture::{Fixture, NOW_MS, new_environment, new_instance, new_project, new_service};

/// A version that runs, with its image and its tree.
async fn run(fixture: &Fixture, place: Place, number: u8) {
    let (build_id, deployment_id) = deploy_at(fixture, place, u32::from(number)).await;
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                let (tree, manifest) = (format!("sha256:{number}"), Default::default());
                source_tree::ensure(tx, place.project, &tree, &manifest, 1, NOW_MS).await?;
                succeed(tx, build_id, deployment_id, number).await?;
                intent::set_target(tx, place.instance, Some(deployment_id)).await
            })
        })
        .await;
}

/// Another project with a service in an environment.
async fn neighbour(fixture: &Fixture) -> Place {
    let (team, key) = (fixture.team.id, fixture.data_key.id());
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                let project = project::insert(tx, &new_project(team, "other", key)).await?.id;
                let environment = environment::insert(tx, &new_environment(project, "production")).await?;
                let service = service::insert(tx, &new_service(project, "web")).await?.id;
                let new = new_instance(service, environment.id);
                let instance = instance::insert(tx, &new, &AddressPlan::default()).await?.id;
                Ok(Place {
                    project,
                    service,
                    instance,
                })
            })
        })
        .await
}

/// A round of clean-up: the images that it condemns, and how many trees it forgets.
async fn clean_up(fixture: &Fixture, deleted_since_ms: i64) -> (Vec<ImageReference>, u64) {
    let later = NOW_MS + DAY_MS;
    let kept = Kept {
        deleted_since_ms,
        ..kept(later, 5)
    };
    fixture
        .tx(move |tx| {
            Box::pin(async move {
                let condemned = image::condemn(tx, later, kept, 100).await?;
                let trees = retention::drop_trees(tx, later, deleted_since_ms).await?;
                Ok((condemned, trees))
            })
        })
        .await
}

#[tokio::test]
async fn what_was_deleted_is_kept_for_its_grace_and_no_longer() {
    for what in ["environment", "service", "project"] {
        let fixture = Fixture::new().await;
        let other = neighbour(&fixture).await;
        run(&fixture, Place::of(&fixture), 1).await;
        run(&fixture, other, 2).await;
        let environment = (fixture.environment.id, fixture.environment.version);
        let service = (fixture.service.id, fixture.service.version);
        let project = (fixture.project.id, fixture.project.version);
        fixture
            .tx(move |tx| {
                Box::pin(async move {
                    match what {
                        "environment" => environment::delete(tx, environment.0, environment.1, NOW_MS).await,
                        "service" => service::delete(tx, service.0, service.1, NOW_MS).await,
                        _ => project::delete(tx, project.0, project.1, NOW_MS).await,
                    }
                })
            })
            .await;
        assert_eq!(clean_up(&fixture, NOW_MS).await, (vec![], 0), "{what}");
        let gone = clean_up(&fixture, NOW_MS + 1).await;
        assert_eq!(gone, (vec![reference(1)], 1), "{what}");
        let trees = source_tree::list_digests(&mut *fixture.conn().await, other.project)
            .await
            .unwrap();
        assert_eq!(trees, ["sha256:2"], "{what}");
    }
}

#[tokio::test]
async fn a_look_for_what_is_not_needed_keeps_nobody_from_what_is() {
    let fixture = Fixture::new().await;
    run(&fixture, Place::of(&fixture), 1).await;
    let (looked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, gate) = (looked.clone(), go.clone());
    let db = fixture.test.db.clone();
    let look = tokio::spawn(async move {
        db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                let later = NOW_MS + DAY_MS;
                let condemned = image::condemn(tx, later, kept(later, 0), 100).await?;
                told.notify_one();
                gate.notified().await;
                Ok(condemned)
            })
        })
        .await
    });
    looked.notified().await;
    let held = fixture
        .tx(|tx| Box::pin(async move { image::hold(tx, &reference(1)).await }))
        .await;
    assert!(held);
    go.notify_one();
    assert!(look.await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn a_round_has_its_limit_and_the_next_goes_on() {
    let fixture = Fixture::new().await;
    // The last one is the target: its predecessors are only for rollbacks.
    for number in 1..=4 {
        run(&fixture, Place::of(&fixture), number).await;
    }
    let later = NOW_MS + DAY_MS;
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let round = fixture
            .tx(move |tx| Box::pin(image::condemn(tx, later, kept(later, 0), 2)))
            .await;
        rounds.push(round.len());
    }
    assert_eq!(rounds, [2, 1, 0]);
}
