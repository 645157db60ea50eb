//! What `Db::tx` promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use ferrovia_store::fault::Faults;
use ferrovia_store::{Db, Error, Options};
use ferrovia_testkit::{database, wait_for};

async fn teams(db: &Db) -> i64 {
    let mut conn = db.conn().await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM team")
        .fetch_one(&mut *conn)
        .await
        .unwrap()
}

async fn add_team(db: &Db, name: &'static str) -> Result<(), Error> {
    db.tx(move |tx| {
        Box::pin(async move {
            sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), $1, 0)")
                .bind(name)
                .execute(&mut **tx)
                .await?;
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn commits_what_succeeds_and_undoes_what_fails() {
    let test = database().await;
    add_team(&test.db, "a").await.unwrap();
    let failed = test
        .db
        .tx::<(), _>(|tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM team").execute(&mut **tx).await?;
                Err(Error::Ending)
            })
        })
        .await;
    assert!(matches!(failed, Err(Error::Ending)));
    assert_eq!(teams(&test.db).await, 1);
    let again = add_team(&test.db, "a").await.unwrap_err();
    assert!(again.is_unique("team_name_key"), "{again:?}");
}

#[tokio::test]
async fn an_error_that_was_swallowed_is_no_commit() {
    let test = database().await;
    let result = test
        .db
        .tx::<(), Error>(|tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), 'a', 0)")
                    .execute(&mut **tx)
                    .await?;
                let _ = sqlx::query("SELECT 1 / 0").execute(&mut **tx).await;
                Ok(())
            })
        })
        .await;
    assert!(matches!(result, Err(Error::Statement(_))), "{result:?}");
    assert_eq!(teams(&test.db).await, 0);
}

/// The driver's trap: a `BEGIN` whose future is dropped leaves a connection in a transaction that swallows writes.
#[tokio::test]
async fn a_dropped_caller_poisons_no_connection() {
    let test = database().await;
    let db = Db::connect(&Options::new(&test.url).max_connections(1))
        .await
        .unwrap();
    let mut lost = 0;
    for polls in 1..12 {
        let mut future = Box::pin(add_team(
            &db,
            Box::leak(format!("dropped-{polls}").into_boxed_str()),
        ));
        for _ in 0..polls {
            let done = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
        lost += 1;
        drop(future);
        // Outside a transaction: in a poisoned connection this would not be there for others.
        let mut conn = db.conn().await.unwrap();
        sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), $1, 0)")
            .bind(format!("kept-{polls}"))
            .execute(&mut *conn)
            .await
            .unwrap();
        let seen = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM team WHERE name LIKE 'kept-%'")
            .fetch_one(&mut *test.db.conn().await.unwrap())
            .await
            .unwrap();
        assert_eq!(seen, i64::from(polls));
    }
    // The dropped ones went on to their end.
    wait_for("every transaction ended", Duration::from_secs(5), async || {
        (teams(&test.db).await == 2 * lost).then_some(())
    })
    .await;
}

/// The same trap with the driver's own `begin`, to know when it is gone.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the trap itself is shown")]
async fn the_driver_still_has_the_trap() {
    let test = database().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect(&test.url)
        .await
        .unwrap();
    // The server may answer while the future is polled for the first time: then there is nothing to drop.
    loop {
        let mut begin = Box::pin(pool.begin());
        match std::future::poll_fn(|cx| Poll::Ready(begin.as_mut().poll(cx))).await {
            Poll::Pending => break,
            Poll::Ready(tx) => tx.unwrap().rollback().await.unwrap(),
        }
    }
    sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), 'swallowed', 0)")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(
        teams(&test.db).await,
        0,
        "the driver is mended: `Db::tx` need not be detached any more"
    );
}

#[tokio::test]
async fn a_panic_reaches_the_caller_and_its_transaction_is_gone() {
    let test = database().await;
    let db = test.db.clone();
    let task = tokio::spawn(async move {
        db.tx::<(), Error>(|tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), 'a', 0)")
                    .execute(&mut **tx)
                    .await?;
                panic!("on purpose")
            })
        })
        .await
    });
    assert!(task.await.unwrap_err().is_panic());
    add_team(&test.db, "a").await.unwrap();
    assert_eq!(teams(&test.db).await, 1);
}

/// A server that is gone without a word: here one that is stopped in the midst of a transaction.
#[tokio::test]
async fn a_server_that_says_nothing_does_not_hold_the_caller() {
    use rustix::process::{Pid, Signal, kill_process};

    let test = database().await;
    let options = Options {
        tx_deadline_ms: 300,
        ..Options::new(&test.url).max_connections(2)
    };
    let db = Db::connect(&options).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let result = db
        .tx::<(), Error>(move |tx| {
            Box::pin(async move {
                let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
                    .fetch_one(&mut **tx)
                    .await?;
                kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
                tell.send(pid).unwrap();
                sqlx::query("SELECT 1").execute(&mut **tx).await?;
                Ok(())
            })
        })
        .await;
    assert!(matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    add_team(&db, "another connection").await.unwrap();
    let pid = told.recv().await.unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
}

#[tokio::test]
async fn who_loses_against_others_is_tried_again() {
    let test = database().await;
    add_team(&test.db, "a").await.unwrap();
    add_team(&test.db, "b").await.unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let swap = |first: &'static str, second: &'static str| {
        let (db, tries) = (test.db.clone(), tries.clone());
        async move {
            db.tx::<(), Error>(move |tx| {
                Box::pin(async move {
                    tries.fetch_add(1, Ordering::SeqCst);
                    let update = "UPDATE team SET created_ms = created_ms + 1 WHERE name = $1";
                    sqlx::query(update).bind(first).execute(&mut **tx).await?;
                    sqlx::query("SELECT pg_sleep(0.05)").execute(&mut **tx).await?;
                    sqlx::query(update).bind(second).execute(&mut **tx).await?;
                    Ok(())
                })
            })
            .await
        }
    };
    let (left, right) = tokio::join!(swap("a", "b"), swap("b", "a"));
    left.unwrap();
    right.unwrap();
    assert!(tries.load(Ordering::SeqCst) > 2, "there was no deadlock to try");
    let sum = sqlx::query_scalar::<_, i64>("SELECT sum(created_ms)::bigint FROM team")
        .fetch_one(&mut *test.db.conn().await.unwrap())
        .await
        .unwrap();
    assert_eq!(sum, 4);
}

#[tokio::test]
async fn death_before_a_commit_undoes_it_and_death_after_keeps_it() {
    let test = database().await;
    for (faults, kept) in [(Faults::before_commit(2), 1), (Faults::after_commit(2), 2)] {
        let dying = test.db.with_faults(faults.clone());
        let life = tokio::spawn(async move {
            for name in ["one", "two", "three"] {
                let _ = add_team(&dying, name).await;
            }
        });
        faults.died().await;
        assert_eq!(faults.commits(), 2);
        life.abort();
        wait_for("its transactions are over", Duration::from_secs(5), async || {
            let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
            let open: i64 = sqlx::query_scalar(open).fetch_one(&mut *test.db.conn().await.unwrap()).await.unwrap();
            (open == 0).then_some(())
        })
        .await;
        assert_eq!(teams(&test.db).await, kept);
        sqlx::query("DELETE FROM team WHERE name = 'one'")
            .execute(&mut *test.db.conn().await.unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_does_not_move_and_cannot_write() {
    let test = database().await;
    let db = test.db.clone();
    let seen = test
        .db
        .snapshot::<_, Error>(move |conn| {
            Box::pin(async move {
                let count = "SELECT count(*) FROM team";
                let before: i64 = sqlx::query_scalar(count).fetch_one(&mut *conn).await?;
                add_team(&db, "a").await?;
                let after: i64 = sqlx::query_scalar(count).fetch_one(&mut *conn).await?;
                let written = sqlx::query("DELETE FROM team").execute(&mut *conn).await;
                Ok((before, after, written.is_err()))
            })
        })
        .await
        .unwrap();
    assert_eq!(seen, (0, 0, true));
    assert_eq!(teams(&test.db).await, 1);
}

#[tokio::test]
async fn migrating_again_and_together_does_nothing() {
    let test = database().await;
    let options = Options::new(&test.url);
    let all = futures_util::future::join_all((0..6).map(|_| test.db.migrate(&options))).await;
    all.into_iter().for_each(Result::unwrap);
}
