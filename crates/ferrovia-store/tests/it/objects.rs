//! Objects by name, by version, soft deletion, and what is given once: marks, addresses, host names, numbers, keys.

use std::collections::HashSet;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::permission::Scope;
use ferrovia_core::settings::{PortSetting, Settings};
use ferrovia_store::idempotency::{self, Begun};
use ferrovia_store::token::{self, NewToken};
use ferrovia_store::{Error, audit, domain, environment, installation, instance, project, service, team};
use serde_json::json;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW_MS, id, name, new_environment, new_instance, new_project, new_service};

#[tokio::test]
async fn an_installation_is_made_once() {
    let f = Fixture::new().await;
    let first = f
        .tx(|tx| Box::pin(installation::ensure(tx, Uuid::from_u128(1), 1)))
        .await;
    let second = f
        .tx(|tx| Box::pin(installation::ensure(tx, Uuid::from_u128(2), 2)))
        .await;
    assert_eq!(first, second);
    assert_eq!(
        team::find_first(&mut *f.conn().await).await.unwrap().unwrap(),
        f.team
    );
}

#[tokio::test]
async fn names_are_taken_among_the_living_only() {
    let f = Fixture::new().await;
    let (team, key, project) = (f.team.id, f.data_key.id(), f.project.clone());
    let again = f
        .test
        .db
        .tx(move |tx| Box::pin(async move { project::insert(tx, &new_project(team, "shop", key)).await }));
    assert!(matches!(again.await, Err(Error::Taken { what: "project", .. })));
    let found = project::find_by_name(&mut *f.conn().await, team, &name("shop"))
        .await
        .unwrap();
    assert_eq!(found.as_ref(), Some(&project));

    let stale = f
        .test
        .db
        .tx(move |tx| Box::pin(project::delete(tx, project.id, 7, NOW_MS)));
    assert!(matches!(stale.await, Err(Error::Stale { .. })));
    assert_eq!(
        f.tx(move |tx| Box::pin(project::delete(tx, project.id, 1, NOW_MS)))
            .await,
        2
    );
    let twice = f
        .test
        .db
        .tx(move |tx| Box::pin(project::delete(tx, project.id, 2, NOW_MS)));
    assert!(matches!(twice.await, Err(Error::NotFound { .. })));
    assert_eq!(
        project::find_by_name(&mut *f.conn().await, team, &name("shop"))
            .await
            .unwrap(),
        None
    );
    let deleted = project::get(&mut *f.conn().await, project.id).await.unwrap();
    assert_eq!(deleted.deleted_ms, Some(NOW_MS));
    let new =
        f.tx(move |tx| Box::pin(async move { project::insert(tx, &new_project(team, "shop", key)).await }));
    assert_ne!(new.await.id, project.id);
}

#[tokio::test]
async fn lists_go_on_after_a_name() {
    let f = Fixture::new().await;
    let project = f.project.id;
    f.tx(move |tx| {
        Box::pin(async move {
            for text in ["a", "a-1", "b", "b2", "c"] {
                environment::insert(tx, &new_environment(project, text)).await?;
                service::insert(tx, &new_service(project, text)).await?;
            }
            Ok(())
        })
    })
    .await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = environment::list(&mut *f.conn().await, project, after.as_ref(), 2)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page.into_iter().map(|environment| environment.name.to_string()));
    }
    assert_eq!(seen, ["a", "a-1", "b", "b2", "c", "production"]);
    let services = service::list(&mut *f.conn().await, project, Some(&name("b")), 9)
        .await
        .unwrap();
    assert_eq!(services.len(), 3);
    assert_eq!(
        project::list(&mut *f.conn().await, f.team.id, None, 9)
            .await
            .unwrap(),
        std::slice::from_ref(&f.project)
    );
}

#[tokio::test]
async fn marks_are_never_given_again() {
    let f = Fixture::new().await;
    assert!(f.environment.mark > 0);
    let (old, project) = (f.environment.id, f.project.id);
    let new = f
        .tx(move |tx| {
            Box::pin(async move {
                environment::delete(tx, old, 1, NOW_MS).await?;
                environment::insert(tx, &new_environment(project, "production")).await
            })
        })
        .await;
    assert!(new.mark > f.environment.mark);
    let bridges = environment::members_by_bridge(&mut *f.conn().await)
        .await
        .unwrap();
    assert_eq!(
        bridges
            .iter()
            .map(|b| (b.bridge, b.environments, b.replicas))
            .collect::<Vec<_>>(),
        [(0, 1, 0)]
    );
}

#[tokio::test]
async fn settings_change_by_version() {
    let f = Fixture::new().await;
    let instance = f.instance.clone();
    let settings = Settings {
        port: PortSetting::Number(3000),
        ..Settings::default()
    };
    let new = settings.clone();
    let version = f
        .tx(move |tx| Box::pin(async move { instance::update_settings(tx, instance.id, 1, &new).await }))
        .await;
    assert_eq!(version, 2);
    let new = settings.clone();
    let stale = f
        .test
        .db
        .tx(move |tx| Box::pin(async move { instance::update_settings(tx, instance.id, 1, &new).await }));
    assert!(matches!(stale.await, Err(Error::Stale { .. })));
    let read = instance::get(&mut *f.conn().await, instance.id).await.unwrap();
    assert_eq!((read.settings, read.version), (settings, 2));
    let place = instance::find_by_place(&mut *f.conn().await, f.service.id, f.environment.id)
        .await
        .unwrap();
    assert_eq!(place.unwrap().id, instance.id);
    assert_eq!(
        instance::of_environment(&mut *f.conn().await, f.environment.id)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        instance::of_service(&mut *f.conn().await, f.service.id)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn deployment_numbers_have_no_gaps_and_no_twins() {
    let f = Fixture::new().await;
    let id = f.instance.id;
    let take = |_| {
        let db = f.test.db.clone();
        async move {
            db.tx(move |tx| Box::pin(instance::take_deployment_number(tx, id)))
                .await
                .unwrap()
        }
    };
    let mut numbers = futures_util::future::join_all((0..20).map(take)).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<u32>>());
}

#[tokio::test]
async fn addresses_are_unique_under_a_crowd_and_gaps_are_filled() {
    let f = Fixture::new().await;
    let plan = AddressPlan {
        services: "10.211.0.0/27".parse().unwrap(),
        ..AddressPlan::default()
    };
    let project = f.project.id;
    let make = |n: u32| {
        let (db, plan, environment) = (f.test.db.clone(), plan.clone(), f.environment.id);
        async move {
            db.tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    let service = service::insert(tx, &new_service(project, &format!("s{n}"))).await?;
                    instance::insert(tx, &new_instance(service.id, environment), &plan).await
                })
            })
            .await
        }
    };
    // 30 usable addresses, one of which the fixture has.
    let all = futures_util::future::join_all((0..29).map(make)).await;
    let made: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    let addresses: HashSet<_> = made.iter().map(|instance| instance.virtual_address).collect();
    assert_eq!(addresses.len(), 29);
    assert!(!addresses.contains(&f.instance.virtual_address));
    assert!(
        addresses
            .iter()
            .all(|a| plan.services.contains(a) && !matches!(a.octets()[3], 0 | 31))
    );
    assert!(matches!(make(99).await, Err(Error::Exhausted { .. })));
    let gone = made[7].clone();
    let sql = "WITH i AS (DELETE FROM intent WHERE instance_id = $1) DELETE FROM instance WHERE id = $1";
    sqlx::query(sql)
        .bind(gone.id.uuid())
        .execute(&mut *f.conn().await)
        .await
        .unwrap();
    assert_eq!(make(100).await.unwrap().virtual_address, gone.virtual_address);
}

#[tokio::test]
async fn host_names_get_a_suffix_when_taken_and_never_move() {
    let f = Fixture::new().await;
    let instance = f.instance.id;
    let generate = |apps: &'static str| {
        f.tx(move |tx| {
            Box::pin(async move {
                let names = (name("web"), name("production"));
                domain::generate(tx, id(), instance, (&names.0, &names.1), apps, NOW_MS).await
            })
        })
    };
    let first = generate("localhost").await;
    assert_eq!(first.host, "web-production.localhost");
    f.tx(move |tx| Box::pin(domain::delete_of_instance(tx, instance, NOW_MS)))
        .await;
    assert_eq!(
        domain::find_by_host(&mut *f.conn().await, &first.host)
            .await
            .unwrap(),
        None
    );
    let second = generate("localhost").await;
    assert!(
        second.host.starts_with("web-production-") && second.host != first.host,
        "{}",
        second.host
    );
    assert_eq!(generate("example.com").await.host, "web-production.example.com");

    let deployment = id();
    let own = f
        .tx(move |tx| {
            Box::pin(async move {
                let web = name("web");
                domain::generate_for_deployment(tx, id(), (instance, deployment), &web, "localhost", NOW_MS)
                    .await
            })
        })
        .await;
    assert_eq!(own.host, format!("web-{}.localhost", deployment.short()));
    let living = domain::of_instance(&mut *f.conn().await, instance).await.unwrap();
    assert_eq!(living.len(), 3);
    assert_eq!(living[2], own);
}

#[tokio::test]
async fn tokens_are_found_by_their_text_until_revoked() {
    let f = Fixture::new().await;
    let (team, project) = (f.team.id, f.project.id);
    let text = token::generate().unwrap();
    assert!(text.expose().starts_with(token::PREFIX) && text.expose().len() > 60);
    for scope in [Scope::Owner, Scope::Deploy { project_id: project }] {
        let text = token::generate().unwrap();
        let new = NewToken {
            id: id(),
            team_id: team,
            name: "ci".to_owned(),
            scope,
            created_ms: NOW_MS,
        };
        let given = text.clone();
        let made = f
            .tx(move |tx| Box::pin(async move { token::insert(tx, &new, &given).await }))
            .await;
        assert_eq!(made.scope, scope);
        let found = token::find_valid(&mut *f.conn().await, &text)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found, made);
        assert!(token::is_touch_due(&found, NOW_MS));
        f.tx(move |tx| Box::pin(token::touch(tx, made.id, NOW_MS))).await;
        let found = token::find_valid(&mut *f.conn().await, &text)
            .await
            .unwrap()
            .unwrap();
        assert!(!token::is_touch_due(&found, NOW_MS + 1_000) && token::is_touch_due(&found, NOW_MS + 60_000));
        assert!(
            !token::list(&mut *f.conn().await, team, None, 9)
                .await
                .unwrap()
                .is_empty()
        );
        f.tx(move |tx| Box::pin(token::revoke(tx, team, made.id, NOW_MS)))
            .await;
        assert_eq!(
            token::find_valid(&mut *f.conn().await, &text).await.unwrap(),
            None
        );
        let again = f
            .test
            .db
            .tx(move |tx| Box::pin(token::revoke(tx, team, made.id, NOW_MS)))
            .await;
        assert!(matches!(again, Err(Error::NotFound { .. })));
    }
    assert_eq!(
        token::find_valid(&mut *f.conn().await, &text).await.unwrap(),
        None
    );
    assert!(
        token::list(&mut *f.conn().await, team, None, 9)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn audit_goes_newest_first() {
    let f = Fixture::new().await;
    let team_id = f.team.id;
    for n in 0..5 {
        let entry = audit::Entry {
            id: Uuid::from_u128(n),
            team_id,
            actor: "root".to_owned(),
            action: "project.create".to_owned(),
            target: format!("shop{n}"),
            request_id: "r".to_owned(),
            at_ms: NOW_MS,
        };
        f.tx(move |tx| Box::pin(async move { audit::insert(tx, &entry).await }))
            .await;
    }
    let page = audit::list(&mut *f.conn().await, team_id, Some(Uuid::from_u128(4)), 2)
        .await
        .unwrap();
    assert_eq!(
        page.iter().map(|entry| entry.target.as_str()).collect::<Vec<_>>(),
        ["shop3", "shop2"]
    );
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_does_nothing() {
    let f = Fixture::new().await;
    let token = id();
    let request = |digest: &'static [u8], now_ms: i64| {
        let (db, project) = (f.test.db.clone(), f.project.id);
        async move {
            db.tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    let begun = idempotency::begin(tx, token, "key", digest, now_ms).await?;
                    if begun == Begun::New {
                        let service =
                            service::insert(tx, &new_service(project, &format!("s{now_ms}"))).await?;
                        let body = json!({"id": service.id});
                        idempotency::finish(tx, token, "key", 201, &body).await?;
                        return Ok(Begun::Answered { status: 201, body });
                    }
                    Ok(begun)
                })
            })
            .await
            .unwrap()
        }
    };
    // All at once: one does it, the others wait for it.
    let answers = futures_util::future::join_all((0..8).map(|_| request(b"a", NOW_MS))).await;
    assert!(
        answers
            .iter()
            .all(|answer| *answer == answers[0] && matches!(answer, Begun::Answered { .. }))
    );
    assert_eq!(request(b"b", NOW_MS).await, Begun::Other);
    let later = NOW_MS + idempotency::KEPT_MS + 1;
    assert_ne!(
        request(b"b", later).await,
        answers[0],
        "a day later the key is new"
    );
    assert_eq!(
        f.tx(move |tx| Box::pin(idempotency::forget_old(tx, later, 9)))
            .await,
        0
    );
    let much_later = later + idempotency::KEPT_MS + 1;
    assert_eq!(
        f.tx(move |tx| Box::pin(idempotency::forget_old(tx, much_later, 9)))
            .await,
        1
    );
}
