//! The tables of edge and node: the order of revisions is the order of commits, and no reader misses a change.

use std::collections::BTreeMap;

use ferrovia_core::cutover::TableRows;
use ferrovia_core::id::InstanceId;
use ferrovia_core::table::{Audience, EdgeRow, Route, RouteTarget, Row, Version};
use ferrovia_store::{Db, Error, table};

use crate::fixture::{Fixture, id};

fn rows(instance: InstanceId, hosts: &[&str], reason: &str) -> TableRows {
    TableRows {
        edge: hosts
            .iter()
            .map(|host| {
                EdgeRow::Route(Route {
                    host: (*host).to_owned(),
                    instance_id: instance,
                    label: "shop/production/web".into(),
                    target: RouteTarget::Unavailable {
                        reason: reason.to_owned(),
                    },
                })
            })
            .collect(),
        node: Vec::new(),
    }
}

async fn publish(db: &Db, instance: InstanceId, rows: TableRows) -> Option<Version> {
    db.tx::<_, Error>(move |tx| {
        Box::pin(async move {
            let there = table::of_instance(tx, instance).await?;
            table::publish(tx, instance, &there, &rows).await
        })
    })
    .await
    .unwrap()
}

async fn since(db: &Db, version: Version) -> Option<table::Changes> {
    db.snapshot::<_, Error>(move |conn| Box::pin(table::changes_since(conn, Audience::Edge, version)))
        .await
        .unwrap()
}

fn at(revision: u64) -> Version {
    Version { epoch: 1, revision }
}

#[tokio::test]
async fn changes_tombstones_and_pruning() {
    let fixture = Fixture::new().await;
    let db = &fixture.test.db;
    let instance = fixture.instance.id;
    assert_eq!(
        publish(db, instance, rows(instance, &["a", "b"], "x")).await,
        Some(at(1))
    );
    assert_eq!(
        publish(db, instance, rows(instance, &["a", "b"], "x")).await,
        None,
        "nothing changed"
    );
    assert_eq!(
        publish(db, instance, rows(instance, &["b", "c"], "x")).await,
        Some(at(2))
    );
    let changes = since(db, at(1)).await.unwrap();
    assert_eq!(
        (changes.head, changes.upserts.len(), changes.deletes),
        (at(2), 1, vec!["host/a".to_owned()])
    );
    assert!(
        since(
            db,
            Version {
                epoch: 0,
                revision: 2
            }
        )
        .await
        .is_none(),
        "another epoch"
    );
    // Another instance takes the key over: the first one's next change leaves it alone.
    let other: InstanceId = id();
    publish(db, other, rows(other, &["a"], "y")).await;
    publish(db, instance, rows(instance, &[], "")).await;
    let (head, left) = db
        .snapshot::<_, Error>(|conn| Box::pin(table::snapshot(conn, Audience::Edge)))
        .await
        .unwrap();
    assert_eq!((head, left.len()), (at(4), 1));
    assert!(left[0].contains("\"y\""));
    let pruned = fixture.tx(|tx| Box::pin(table::prune(tx, 4))).await;
    assert_eq!(pruned, 2);
    assert!(since(db, at(3)).await.is_none(), "what went is no longer known");
    assert!(
        since(db, at(4))
            .await
            .is_some_and(|changes| changes.upserts.is_empty())
    );
}

#[tokio::test]
async fn the_epoch_grows_only_when_a_reader_is_ahead() {
    let fixture = Fixture::new().await;
    let raise = async |above: Version| fixture.tx(move |tx| Box::pin(table::raise(tx, above))).await;
    assert_eq!(raise(at(0)).await, at(0));
    assert_eq!(
        raise(at(7)).await,
        Version {
            epoch: 2,
            revision: 0
        }
    );
    assert_eq!(
        raise(at(7)).await,
        Version {
            epoch: 2,
            revision: 0
        }
    );
    assert_eq!(
        raise(Version {
            epoch: 9,
            revision: 0
        })
        .await
        .epoch,
        10
    );
}

#[tokio::test]
async fn a_reader_that_follows_many_writers_has_what_a_snapshot_has() {
    let fixture = Fixture::new().await;
    let db = fixture.test.db.clone();
    let mut writers = Vec::new();
    for writer in 0..6 {
        let db = db.clone();
        writers.push(tokio::spawn(async move {
            let instance: InstanceId = id();
            for round in 0..15 {
                let own = format!("{writer}-{}", round % 4);
                publish(
                    &db,
                    instance,
                    rows(instance, &[&own, "shared"], &round.to_string()),
                )
                .await;
            }
        }));
    }
    let follower = tokio::spawn({
        let db = db.clone();
        async move {
            let (mut version, mut held) = (at(0), BTreeMap::<String, String>::new());
            loop {
                let changes = since(&db, version).await.unwrap();
                assert!(changes.head >= version);
                version = changes.head;
                for key in changes.deletes {
                    held.remove(&key);
                }
                for text in changes.upserts {
                    let row: EdgeRow = serde_json::from_str(&text).unwrap();
                    held.insert(row.key(), text);
                }
                if version.revision >= 6 * 15 {
                    return (version, held);
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let (version, held) = follower.await.unwrap();
    let (head, mut texts) = db
        .snapshot::<_, Error>(|conn| Box::pin(table::snapshot(conn, Audience::Edge)))
        .await
        .unwrap();
    assert_eq!(version, head);
    let mut followed: Vec<String> = held.into_values().collect();
    followed.sort();
    texts.sort();
    assert_eq!(followed, texts);
}
