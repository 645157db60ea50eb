//! The guarantees of the work queue, one by one.

use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::TeamId;
use ferrovia_store::queue::{self, Handler, Lane, Lease, Outcome, Runner, Wake, Work, claim};
use ferrovia_store::{BoxFuture, Db, Error};
use ferrovia_testkit::{database, wait_for};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(20);

pub async fn enqueue(db: &Db, work: Work) {
    db.tx::<_, Error>(move |tx| Box::pin(async move { queue::enqueue(tx, &work).await }))
        .await
        .unwrap();
}

async fn finish(db: &Db, lease: &Lease, outcome: Outcome) -> Result<(), Error> {
    let lease = lease.clone();
    db.tx(move |tx| Box::pin(async move { lease.finish(tx, &outcome).await }))
        .await
}

async fn fence(db: &Db, lease: &Lease) -> Result<(), Error> {
    let lease = lease.clone();
    db.tx(move |tx| Box::pin(async move { lease.fence(tx).await }))
        .await
}

async fn claim_one(db: &Db, length: Duration) -> Option<Lease> {
    let mut leases = claim(db, "test", "c", 100, 1, length).await.unwrap();
    assert!(leases.len() <= 1);
    leases.pop()
}

/// Whether the key is due now, whoever holds it.
async fn due_in_ms(db: &Db) -> Option<u64> {
    queue::next_due_ms(&mut db.conn().await.unwrap(), "c")
        .await
        .unwrap()
}

fn team(n: u128) -> TeamId {
    TeamId::from_uuid(Uuid::from_u128(n))
}

#[tokio::test]
async fn enqueues_of_one_key_coalesce_and_what_comes_during_a_run_is_due_after_it() {
    let test = database().await;
    for _ in 0..3 {
        enqueue(&test.db, Work::new("k", "a", "c")).await;
    }
    let first = claim_one(&test.db, LEASE).await.unwrap();
    assert_eq!(
        (first.kind.as_str(), first.key.as_str(), first.attempts),
        ("k", "a", 0)
    );
    assert_eq!(claim_one(&test.db, LEASE).await, None);
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    assert_eq!(claim_one(&test.db, LEASE).await, None, "it runs");
    finish(&test.db, &first, Outcome::Done).await.unwrap();
    let second = claim_one(&test.db, LEASE)
        .await
        .expect("it was enqueued during the run");
    finish(&test.db, &second, Outcome::Done).await.unwrap();
    assert_eq!(due_in_ms(&test.db).await, None, "nothing is left");
}

#[tokio::test]
async fn an_enqueue_is_part_of_its_transaction() {
    let test = database().await;
    let failed = test
        .db
        .tx::<(), _>(|tx| {
            Box::pin(async move {
                queue::enqueue(tx, &Work::new("k", "a", "c")).await?;
                Err(Error::Ending)
            })
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(claim_one(&test.db, LEASE).await, None);
}

#[tokio::test]
async fn a_delay_is_kept_and_an_earlier_time_wins() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c").after_ms(60_000)).await;
    assert_eq!(claim_one(&test.db, LEASE).await, None);
    assert!(due_in_ms(&test.db).await.unwrap() > 50_000);
    enqueue(&test.db, Work::new("k", "a", "c").after_ms(90_000)).await;
    assert!(due_in_ms(&test.db).await.unwrap() <= 60_000);
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let lease = claim_one(&test.db, LEASE).await.unwrap();
    // During a run too: the delay counts from the enqueue, and does not make it due at once.
    enqueue(&test.db, Work::new("k", "a", "c").after_ms(60_000)).await;
    finish(&test.db, &lease, Outcome::Done).await.unwrap();
    assert!(due_in_ms(&test.db).await.unwrap() > 50_000);
}

#[tokio::test]
async fn again_comes_back_after_its_time() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let lease = claim_one(&test.db, LEASE).await.unwrap();
    finish(&test.db, &lease, Outcome::Again { after_ms: 30_000 })
        .await
        .unwrap();
    let ms = due_in_ms(&test.db).await.unwrap();
    assert!((20_000..=30_000).contains(&ms), "{ms}");
    enqueue(&test.db, Work::new("k", "a", "c").event()).await;
    assert!(
        claim_one(&test.db, LEASE).await.is_some(),
        "it did not fail: an event ends the wait"
    );
}

#[tokio::test]
async fn failures_wait_longer_and_longer_and_only_an_intent_ends_the_wait() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let mut longest = 0;
    for attempts in 0..6 {
        let lease = claim_one(&test.db, LEASE).await.expect("it is due");
        assert_eq!(lease.attempts, attempts);
        if attempts == 0 {
            enqueue(&test.db, Work::new("k", "b", "c").after_ms(3_600_000)).await;
        }
        finish(
            &test.db,
            &lease,
            Outcome::Failed {
                error: "no route".repeat(1_000),
            },
        )
        .await
        .unwrap();
        let wait_ms = due_in_ms(&test.db).await.unwrap();
        let full = queue::back_off_ms(attempts + 1, 1.0);
        assert!(
            wait_ms <= full && wait_ms + 3_000 > full / 2,
            "{attempts}: {wait_ms} of {full}"
        );
        longest = longest.max(wait_ms);
        enqueue(&test.db, Work::new("k", "a", "c").event()).await;
        if attempts > 2 {
            assert_eq!(
                claim_one(&test.db, LEASE).await,
                None,
                "an event does not end the wait"
            );
        }
        sqlx::query("UPDATE work_item SET due_at = now() WHERE key = 'a'")
            .execute(&mut *test.db.conn().await.unwrap())
            .await
            .unwrap();
    }
    assert!(longest > 10_000);
    let lease = claim_one(&test.db, LEASE).await.unwrap();
    finish(
        &test.db,
        &lease,
        Outcome::Failed {
            error: "again".to_owned(),
        },
    )
    .await
    .unwrap();
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    assert_eq!(
        claim_one(&test.db, LEASE)
            .await
            .expect("an intent ends the wait")
            .attempts,
        0
    );
}

#[tokio::test]
async fn an_event_during_a_run_that_fails_is_not_lost() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    for expected in [0, 1] {
        sqlx::query("UPDATE work_item SET due_at = now()")
            .execute(&mut *test.db.conn().await.unwrap())
            .await
            .unwrap();
        let lease = claim_one(&test.db, LEASE).await.unwrap();
        assert_eq!(lease.attempts, expected);
        enqueue(&test.db, Work::new("k", "a", "c").event()).await;
        finish(
            &test.db,
            &lease,
            Outcome::Failed {
                error: "x".to_owned(),
            },
        )
        .await
        .unwrap();
    }
    assert!(due_in_ms(&test.db).await.unwrap() <= 2_000);
    sqlx::query("UPDATE work_item SET due_at = now()")
        .execute(&mut *test.db.conn().await.unwrap())
        .await
        .unwrap();
    let lease = claim_one(&test.db, LEASE).await.unwrap();
    enqueue(&test.db, Work::new("k", "a", "c").event()).await;
    finish(&test.db, &lease, Outcome::Done).await.unwrap();
    assert!(
        claim_one(&test.db, LEASE).await.is_some(),
        "the event came during a run that ended well"
    );
}

#[tokio::test]
async fn who_lost_the_lease_writes_nothing_more() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let late = claim_one(&test.db, SHORT).await.unwrap();
    let next = wait_for("the lease runs out", SOON, async || {
        claim_one(&test.db, LEASE).await
    })
    .await;
    assert_eq!(next.attempts, 1, "a run that was killed counts as a failure");
    for result in [
        fence(&test.db, &late).await,
        late.renew(&test.db).await,
        finish(&test.db, &late, Outcome::Done).await,
        finish(&test.db, &late, Outcome::Failed { error: String::new() }).await,
    ] {
        assert!(matches!(result, Err(Error::LeaseLost { .. })), "{result:?}");
    }
    fence(&test.db, &next).await.unwrap();
    finish(&test.db, &next, Outcome::Done).await.unwrap();
    // The key comes back as a new row: the old epochs stay void.
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    claim_one(&test.db, LEASE).await.unwrap();
    for old in [&late, &next] {
        assert!(matches!(fence(&test.db, old).await, Err(Error::LeaseLost { .. })));
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_lost_even_if_nobody_took_it() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let lease = claim_one(&test.db, SHORT).await.unwrap();
    lease.renew(&test.db).await.unwrap();
    wait_for("the lease runs out", SOON, async || {
        fence(&test.db, &lease).await.is_err().then_some(())
    })
    .await;
    assert!(matches!(
        lease.renew(&test.db).await,
        Err(Error::LeaseLost { .. })
    ));
}

/// A transaction that looked at its lease in time may commit late: nobody gets the key before it has ended.
#[tokio::test]
async fn a_fenced_transaction_keeps_the_key_until_it_ends() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    let lease = claim_one(&test.db, SHORT).await.unwrap();
    let (in_it, mut is_in_it) = watch::channel(false);
    let (go_on, may_go_on) = watch::channel(false);
    let (db, fenced) = (test.db.clone(), lease.clone());
    let slow = tokio::spawn(async move {
        db.tx::<_, Error>(move |tx| {
            let mut may_go_on = may_go_on.clone();
            Box::pin(async move {
                fenced.fence(tx).await?;
                in_it.send_replace(true);
                may_go_on.wait_for(|go| *go).await.unwrap();
                Ok(())
            })
        })
        .await
    });
    is_in_it.wait_for(|is| *is).await.unwrap();
    wait_for("the lease runs out", SOON, async || {
        (due_in_ms(&test.db).await == Some(0)).then_some(())
    })
    .await;
    assert_eq!(claim_one(&test.db, LEASE).await, None);
    go_on.send_replace(true);
    slow.await.unwrap().unwrap();
    assert!(claim_one(&test.db, LEASE).await.is_some());
}

#[tokio::test]
async fn a_new_control_need_not_wait_for_the_leases_of_a_dead_one() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "a", "c")).await;
    claim_one(&test.db, LEASE).await.unwrap();
    let taken = test
        .db
        .tx::<_, Error>(|tx| Box::pin(async move { queue::take_over(tx, "new").await }))
        .await;
    assert_eq!(taken.unwrap(), 1);
    assert_eq!(claim_one(&test.db, LEASE).await.unwrap().attempts, 1);
}

#[tokio::test]
async fn slots_hold_over_all_owners_and_come_free() {
    let test = database().await;
    for n in 0..10 {
        enqueue(&test.db, Work::new("k", n, "c")).await;
        enqueue(&test.db, Work::new("k", 100 + n, "other")).await;
    }
    let first = claim(&test.db, "one", "c", 3, 2, LEASE).await.unwrap();
    let second = claim(&test.db, "two", "c", 3, 5, LEASE).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    assert!(claim(&test.db, "two", "c", 3, 5, LEASE).await.unwrap().is_empty());
    finish(&test.db, &first[0], Outcome::Done).await.unwrap();
    assert_eq!(claim(&test.db, "two", "c", 3, 5, LEASE).await.unwrap().len(), 1);
    assert_eq!(
        claim(&test.db, "two", "other", 2, 5, LEASE).await.unwrap().len(),
        2
    );
    let depths = queue::depths(&mut test.db.conn().await.unwrap()).await.unwrap();
    let numbers: Vec<_> = depths
        .iter()
        .map(|d| (d.class.as_str(), d.waiting, d.running, d.failing))
        .collect();
    assert_eq!(numbers, [("c", 6, 3, 0), ("other", 8, 2, 0)]);
}

#[tokio::test]
async fn teams_take_turns_however_much_one_has_enqueued() {
    let test = database().await;
    for n in 0..30 {
        enqueue(&test.db, Work::new("k", n, "c").team(team(1)).priority(9)).await;
    }
    let mut order = Vec::new();
    for turn in 0..12 {
        if turn == 3 {
            enqueue(&test.db, Work::new("k", "of two", "c").team(team(2))).await;
            enqueue(&test.db, Work::new("k", "of three", "c").team(team(3))).await;
            enqueue(&test.db, Work::new("k", "of nobody", "c")).await;
        }
        let lease = claim(&test.db, "test", "c", 1, 1, LEASE)
            .await
            .unwrap()
            .pop()
            .unwrap();
        order.push(lease.team.map_or(0, |team| team.uuid().as_u128()));
        finish(&test.db, &lease, Outcome::Done).await.unwrap();
    }
    let mut next = order[3..6].to_vec();
    next.sort_unstable();
    assert_eq!(next, [0, 2, 3], "{order:?}");
    // With several slots a team that runs nothing comes before one that does.
    enqueue(&test.db, Work::new("k", "of two", "c").team(team(2))).await;
    let both = claim(&test.db, "test", "c", 2, 2, LEASE).await.unwrap();
    let teams: Vec<_> = both.iter().map(|lease| lease.team).collect();
    assert!(
        teams.contains(&Some(team(1))) && teams.contains(&Some(team(2))),
        "{teams:?}"
    );
}

#[tokio::test]
async fn priority_orders_the_work_of_one_team() {
    let test = database().await;
    for (key, priority) in [("low", -1), ("usual", 0), ("high", 5)] {
        enqueue(
            &test.db,
            Work::new("k", key, "c").team(team(1)).priority(priority),
        )
        .await;
    }
    let mut order = Vec::new();
    while let Some(lease) = claim_one(&test.db, LEASE).await {
        order.push(lease.key);
    }
    assert_eq!(order, ["high", "usual", "low"]);
}

struct Report(mpsc::UnboundedSender<Lease>);

impl Handler for Report {
    fn handle(&self, lease: Lease) -> BoxFuture<'_, Option<Outcome>> {
        Box::pin(async move {
            self.0.send(lease.clone()).unwrap();
            assert_ne!(lease.key, "panics");
            Some(Outcome::Done)
        })
    }
}

struct Running {
    leases: mpsc::UnboundedReceiver<Lease>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn run(db: &Db) -> Running {
    let (sender, leases) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let runner = Runner {
        db: db.clone(),
        owner: "runner".to_owned(),
        lanes: vec![Lane {
            class: "c".to_owned(),
            slots: 2,
        }],
        lease: LEASE,
        handler: Arc::new(Report(sender)),
    };
    let task = tokio::spawn(runner.run(Wake::listen(db), stopped));
    Running { leases, stop, task }
}

async fn next_within(leases: &mut mpsc::UnboundedReceiver<Lease>, within: Duration) -> Option<Lease> {
    tokio::time::timeout(within, leases.recv()).await.ok().flatten()
}

#[tokio::test]
async fn an_enqueue_wakes_a_runner_and_a_broken_listener_comes_back() {
    let test = database().await;
    let mut running = run(&test.db);
    let half_a_poll = Duration::from_millis(queue::POLL_MS / 2);
    // Until it listens, the poll finds it.
    enqueue(&test.db, Work::new("k", "first", "c")).await;
    next_within(&mut running.leases, SOON).await.expect("it runs");
    for key in ["second", "third"] {
        enqueue(&test.db, Work::new("k", key, "c")).await;
        assert_eq!(
            next_within(&mut running.leases, half_a_poll)
                .await
                .expect("it is woken")
                .key,
            key
        );
    }
    let killed = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    .execute(&mut *test.db.conn().await.unwrap())
    .await
    .unwrap();
    assert_eq!(killed.rows_affected(), 1);
    wait_for("somebody listens again", SOON, async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        let n: i64 = sqlx::query_scalar(query).fetch_one(&mut *test.db.conn().await.unwrap()).await.unwrap();
        (n == 1).then_some(())
    })
    .await;
    enqueue(&test.db, Work::new("k", "fourth", "c")).await;
    assert_eq!(
        next_within(&mut running.leases, half_a_poll)
            .await
            .expect("it is woken")
            .key,
        "fourth"
    );
    // Without a notification the poll finds it.
    sqlx::query("INSERT INTO work_item (kind, key, class) VALUES ('k', 'silent', 'c')")
        .execute(&mut *test.db.conn().await.unwrap())
        .await
        .unwrap();
    assert_eq!(
        next_within(&mut running.leases, SOON).await.unwrap().key,
        "silent"
    );
    running.stop.send_replace(true);
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_key_only() {
    let test = database().await;
    enqueue(&test.db, Work::new("k", "panics", "c")).await;
    let mut running = run(&test.db);
    next_within(&mut running.leases, SOON).await.unwrap();
    enqueue(&test.db, Work::new("k", "works", "c")).await;
    assert_eq!(next_within(&mut running.leases, SOON).await.unwrap().key, "works");
    wait_for("the failure is kept", SOON, async || {
        let kept =
            sqlx::query_scalar::<_, Option<String>>("SELECT last_error FROM work_item WHERE key = 'panics'")
                .fetch_one(&mut *test.db.conn().await.unwrap())
                .await
                .unwrap();
        kept.is_some_and(|text| text.contains("panicked")).then_some(())
    })
    .await;
    running.stop.send_replace(true);
    running.task.await.unwrap();
}
