//! The work queue under a crowd: several processes (each with connections of its own) with many workers, random work,
//! failures, panics, and processes that are killed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrovia_core::id::TeamId;
use ferrovia_store::queue::{self, Handler, Lane, Lease, Outcome, Runner, Wake, Work};
use ferrovia_store::{BoxFuture, Db, Error, Options};
use ferrovia_testkit::{database, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use uuid::Uuid;

const CLASSES: [(&str, u32); 2] = [("wide", 3), ("narrow", 1)];
const KEYS: u32 = 24;
const ENQUEUES: u32 = 400;
const LEASE: Duration = Duration::from_secs(3);

/// What the outside world sees: the only judge.
#[derive(Default)]
struct World {
    /// Grows before each enqueue, by key.
    wanted: HashMap<String, u64>,
    /// What `wanted` was when the last run that ended well began, by key.
    done: HashMap<String, u64>,
    running: HashMap<String, u32>,
    running_of_class: HashMap<String, u32>,
    most_of_class: HashMap<String, u32>,
    runs: u32,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct Judge {
    world: Arc<Mutex<World>>,
    calm: Arc<AtomicBool>,
}

/// Leaves the world when dropped: at the end of a run, and when its process is killed.
struct Run {
    world: Arc<Mutex<World>>,
    key: String,
    class: String,
}

impl Run {
    fn begin(world: &Arc<Mutex<World>>, lease: &Lease) -> (Self, u64) {
        let (key, class) = (lease.key.clone(), lease.class.clone());
        let mut w = world.lock().unwrap();
        w.runs += 1;
        let at_once = w.running.entry(key.clone()).or_default();
        *at_once += 1;
        if *at_once > 1 {
            w.wrong.push(format!("{key} runs twice"));
        }
        let of_class = w.running_of_class.entry(class.clone()).or_default();
        *of_class += 1;
        let of_class = *of_class;
        let most = w.most_of_class.entry(class.clone()).or_default();
        *most = of_class.max(*most);
        let seen = w.wanted.get(&key).copied().unwrap_or_default();
        drop(w);
        (
            Self {
                world: world.clone(),
                key,
                class,
            },
            seen,
        )
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut w = self
            .world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *w.running.get_mut(&self.key).unwrap() -= 1;
        *w.running_of_class.get_mut(&self.class).unwrap() -= 1;
    }
}

impl Handler for Judge {
    fn handle(&self, lease: Lease) -> BoxFuture<'_, Option<Outcome>> {
        let (run, seen) = Run::begin(&self.world, &lease);
        Box::pin(async move {
            let fate = if self.calm.load(Ordering::SeqCst) {
                99
            } else {
                rand::random_range(0..100)
            };
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..8))).await;
            let outcome = match fate {
                0..6 => Outcome::Failed {
                    error: "on purpose".to_owned(),
                },
                6..8 => std::panic::panic_any("on purpose"),
                8..20 => Outcome::Again {
                    after_ms: rand::random_range(0..30),
                },
                _ => Outcome::Done,
            };
            if outcome == Outcome::Done {
                self.world.lock().unwrap().done.insert(lease.key.clone(), seen);
            }
            drop(run);
            Some(outcome)
        })
    }
}

fn class_of(key: u32) -> &'static str {
    CLASSES[usize::from(key.is_multiple_of(4))].0
}

async fn process(url: &str, n: u32, judge: &Judge) -> (tokio::task::JoinHandle<()>, watch::Sender<bool>) {
    let db = Db::connect(&Options::new(url).max_connections(4)).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let lane = |(class, slots): (&str, u32)| Lane {
        class: class.to_owned(),
        slots,
    };
    let runner = Runner {
        owner: format!("process-{n}"),
        lanes: CLASSES.into_iter().map(lane).collect(),
        lease: LEASE,
        handler: Arc::new(judge.clone()),
        db: db.clone(),
    };
    (tokio::spawn(runner.run(Wake::listen(&db), stopped)), stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_with_failures_and_kills_keeps_every_promise() {
    let seed: u64 =
        std::env::var("FERROVIA_TEST_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("FERROVIA_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = database().await;
    let judge = Judge {
        world: Arc::default(),
        calm: Arc::default(),
    };
    // All at once first, so that the slots are fought for.
    let world = judge.world.clone();
    let all = test.db.tx::<_, Error>(move |tx| {
        Box::pin(async move {
            for key in 0..KEYS {
                queue::enqueue(tx, &Work::new("k", key, class_of(key))).await?;
                *world.lock().unwrap().wanted.entry(key.to_string()).or_default() += 1;
            }
            Ok(())
        })
    });
    all.await.unwrap();
    let mut processes = Vec::new();
    for n in 0..4 {
        processes.push(process(&test.url, n, &judge).await);
    }
    for n in 0..ENQUEUES {
        let key = random.random_range(0..KEYS);
        let team = TeamId::from_uuid(Uuid::from_u128(u128::from(key % 3)));
        let mut work = Work::new("k", key, class_of(key))
            .team(team)
            .after_ms(random.random_range(0..20));
        if random.random_bool(0.3) {
            work = work.event();
        }
        let is_undone = random.random_bool(0.1);
        let world = judge.world.clone();
        let result = test.db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                queue::enqueue(tx, &work).await?;
                if is_undone {
                    return Err(Error::Ending);
                }
                // Before the commit: a run that begins in between has seen it, and one more run is right as well.
                *world.lock().unwrap().wanted.entry(work.key.clone()).or_default() += 1;
                Ok(())
            })
        });
        assert_eq!(result.await.is_err(), is_undone);
        if n % 100 == 50 {
            let victim = random.random_range(0..processes.len());
            processes[victim].0.abort();
            processes[victim] = process(&test.url, 100 + n, &judge).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..4))).await;
    }
    judge.calm.store(true, Ordering::SeqCst);
    wait_for("the queue is empty", Duration::from_secs(120), async || {
        let left = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM work_item")
            .fetch_one(&mut *test.db.conn().await.unwrap())
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    for (task, stop) in processes {
        stop.send_replace(true);
        task.await.unwrap();
    }
    let world = judge.world.lock().unwrap();
    assert!(world.wrong.is_empty(), "{:?}", world.wrong);
    for (key, wanted) in &world.wanted {
        assert_eq!(world.done.get(key), Some(wanted), "{key} was lost");
    }
    for (class, slots) in CLASSES {
        let most = world.most_of_class[class];
        assert!(most <= slots, "{class}: {most} at once");
    }
    assert_eq!(
        world.most_of_class["wide"], 3,
        "the slots were never all used: the test tested nothing"
    );
    assert!(world.runs < ENQUEUES * 2, "{} runs", world.runs);
}

/// Every team gets its turn within as many turns as there are teams with work, whatever was enqueued before.
#[tokio::test]
async fn no_team_starves() {
    let seed: u64 =
        std::env::var("FERROVIA_TEST_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("FERROVIA_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = database().await;
    let mut waiting: HashMap<u128, (u32, u32)> = HashMap::new();
    for turn in 0..150 {
        for _ in 0..random.random_range(0..3) {
            // Team 1 floods; the others come now and then.
            let team = if random.random_bool(0.7) {
                1
            } else {
                random.random_range(2..6)
            };
            let key = format!("{turn}-{}", random.random::<u32>());
            let work = Work::new("k", key, "c").team(TeamId::from_uuid(Uuid::from_u128(team)));
            super::queue::enqueue(&test.db, work.priority(random.random_range(-5..5))).await;
            waiting.entry(team).or_default().0 += 1;
        }
        let Some(lease) = queue::claim(&test.db, "test", "c", 1, 1, LEASE)
            .await
            .unwrap()
            .pop()
        else {
            assert!(waiting.values().all(|(entries, _)| *entries == 0));
            continue;
        };
        let served = lease.team.unwrap().uuid().as_u128();
        test.db
            .tx::<_, Error>(move |tx| Box::pin(async move { lease.finish(tx, &Outcome::Done).await }))
            .await
            .unwrap();
        let teams = waiting.len() as u32;
        for (team, (entries, skipped)) in &mut waiting {
            if *team == served {
                *entries -= 1;
                *skipped = 0;
            } else if *entries > 0 {
                *skipped += 1;
                assert!(
                    *skipped <= teams,
                    "team {team} was passed over {skipped} times, turn {turn}"
                );
            }
        }
    }
}
