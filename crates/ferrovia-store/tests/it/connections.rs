//! What the pool keeps open.

use std::time::Duration;

use ferrovia_store::{Db, Options};
use ferrovia_testkit::{database, wait_for};

/// How often connections are closed here, in milliseconds.
const TRIM_MS: u64 = 100;
/// Longest wait.
const WITHIN: Duration = Duration::from_secs(30);

async fn open(db: &Db, name: &str) -> i64 {
    let mut conn = db.conn().await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1")
        .bind(name)
        .fetch_one(&mut *conn)
        .await
        .unwrap()
}

#[tokio::test]
async fn connections_of_a_burst_are_closed_though_the_pool_is_in_use() {
    let test = database().await;
    let options = Options {
        trim_ms: TRIM_MS,
        ..Options::new(&test.url).application_name("burst")
    };
    let db = Db::connect(&options).await.unwrap();
    let mut burst = Vec::new();
    for _ in 0..options.max_connections {
        burst.push(db.conn().await.unwrap());
    }
    assert_eq!(open(&test.db, "burst").await, i64::from(options.max_connections));
    drop(burst);
    // Asking through the pool itself, again and again, takes each connection in its turn.
    wait_for("one connection is left", WITHIN, async || {
        (open(&db, "burst").await == 1).then_some(())
    })
    .await;
    let both = (db.conn().await.unwrap(), db.conn().await.unwrap());
    assert_eq!(open(&test.db, "burst").await, 2, "it grows again");
    drop(both);
    db.close().await;
}
