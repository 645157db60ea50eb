//! Runs handlers for what is due: claims, renews leases while a handler works, and gives them back.
//!
//! A handler whose lease is lost is dropped where it stands. It must therefore do nothing that is wrong when it stops
//! between two awaits, which it must not anyhow: the process may be killed there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::claim::give_up;
use super::{Lease, Outcome, Wake, claim, next_due_ms};
use crate::{Db, Error};

/// Longest pause between two looks for work, in milliseconds: what a lost notification costs.
pub const POLL_MS: u64 = 5_000;
/// Pause after the database did not answer, in milliseconds.
const ERROR_PAUSE_MS: u64 = 1_000;
/// How many renewals a lease's length holds: two may fail before it is lost.
const RENEWALS_PER_LEASE: u32 = 3;

/// What does the work.
pub trait Handler: Send + Sync + 'static {
    /// Works on the lease's key. Every transaction begins with [`Lease::fence`]. A handler that finishes the lease
    /// itself, in its last transaction, gives `None`.
    fn handle(&self, lease: Lease) -> BoxFuture<'_, Option<Outcome>>;
}

/// How many of a class may run at once, in all processes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The class.
    pub class: String,
    /// At most this many at once.
    pub slots: u32,
}

/// Runs one handler for the classes of its lanes.
pub struct Runner {
    /// The database.
    pub db: Db,
    /// Who claims: shown in the rows, and spared by [`super::take_over`]. Another one at each start of a process.
    pub owner: String,
    /// The classes.
    pub lanes: Vec<Lane>,
    /// How long a lease lasts without renewal. Longer than the longest call of a handler: see the architecture.
    pub lease: Duration,
    /// What does the work.
    pub handler: Arc<dyn Handler>,
}

impl Runner {
    /// Works until `stop` turns true; then claims nothing more and returns when what runs has ended.
    pub async fn run(self, wake: Wake, stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let lanes = this.lanes.clone();
        let lanes = lanes
            .into_iter()
            .map(|lane| this.clone().run_lane(lane, wake.clone(), stop.clone()));
        futures_util::future::join_all(lanes).await;
    }

    async fn run_lane(self: Arc<Self>, lane: Lane, mut wake: Wake, mut stop: watch::Receiver<bool>) {
        let mut running = Running::default();
        // Whether this owner may have leases that it does not know of.
        let mut doubt = false;
        while !*stop.borrow() {
            while let Some(given_back) = running.try_ended() {
                doubt |= !given_back;
            }
            let room = lane.slots.saturating_sub(running.count());
            let before = Instant::now();
            let pause = match self.look(&lane, room, &running, &mut doubt).await {
                Ok((leases, pause)) => {
                    for lease in leases {
                        running.add(self.clone(), lease, before);
                    }
                    pause
                }
                Err(error) => {
                    doubt = true;
                    let class = lane.class.as_str();
                    tracing::warn!(
                        class,
                        error = &error as &dyn std::error::Error,
                        "cannot look for work"
                    );
                    Duration::from_millis(ERROR_PAUSE_MS)
                }
            };
            tokio::select! {
                // Without room only a freed slot matters.
                () = wake.wait(pause), if room > 0 => {}
                // Waits for the task itself: a notification from inside it comes before the set knows of its end.
                Some(given_back) = running.ended() => doubt |= !given_back,
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        while running.ended().await.is_some() {}
    }

    /// What was claimed, and how long there is nothing more to claim as far as is known.
    async fn look(
        &self,
        lane: &Lane,
        room: u32,
        running: &Running,
        doubt: &mut bool,
    ) -> Result<(Vec<Lease>, Duration), Error> {
        if *doubt {
            let (owner, class, keys) = (self.owner.clone(), lane.class.clone(), running.keys());
            self.db
                .tx::<_, Error>(move |tx| Box::pin(async move { give_up(tx, &owner, &class, &keys).await }))
                .await?;
            *doubt = false;
        }
        if room == 0 {
            return Ok((Vec::new(), Duration::MAX));
        }
        let leases = claim(&self.db, &self.owner, &lane.class, lane.slots, room, self.lease).await?;
        // Slots that other processes hold come free without a notification: the poll finds that. What was claimed is
        // worked on whatever becomes of this question.
        let due_ms = match self.db.conn().await {
            Ok(mut conn) => next_due_ms(&mut conn, &lane.class).await,
            Err(error) => Err(error),
        };
        let due_ms = due_ms.unwrap_or(Some(ERROR_PAUSE_MS)).unwrap_or(POLL_MS);
        let pause_ms = if leases.is_empty() {
            due_ms.clamp(MIN_PAUSE_MS, POLL_MS)
        } else {
            due_ms.min(POLL_MS)
        };
        Ok((leases, Duration::from_millis(pause_ms)))
    }
}

/// The runs of one lane.
#[derive(Default)]
struct Running {
    tasks: JoinSet<bool>,
    keys: HashMap<tokio::task::Id, (String, String)>,
}

impl Running {
    fn add(&mut self, runner: Arc<Runner>, lease: Lease, claimed: Instant) {
        let key = (lease.kind.clone(), lease.key.clone());
        let task = self.tasks.spawn(run_one(runner, lease, claimed));
        self.keys.insert(task.id(), key);
    }

    fn count(&self) -> u32 {
        u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)
    }

    fn keys(&self) -> Vec<(String, String)> {
        self.keys.values().cloned().collect()
    }

    /// Waits until a run has ended; whether its lease was given back. Safe to drop while it waits.
    async fn ended(&mut self) -> Option<bool> {
        let ended = self.tasks.join_next_with_id().await?;
        Some(self.forget(ended))
    }

    fn try_ended(&mut self) -> Option<bool> {
        let ended = self.tasks.try_join_next_with_id()?;
        Some(self.forget(ended))
    }

    fn forget(&mut self, ended: Result<(tokio::task::Id, bool), tokio::task::JoinError>) -> bool {
        let (id, given_back) = ended.unwrap_or_else(|error| (error.id(), false));
        self.keys.remove(&id);
        given_back
    }
}

/// Shortest pause after a look that claimed nothing, in milliseconds: what is due may be locked or without a slot.
const MIN_PAUSE_MS: u64 = 50;

/// Whether the lease was given back, or is not to be given back.
async fn run_one(runner: Arc<Runner>, lease: Lease, claimed: Instant) -> bool {
    let (kind, key) = (lease.kind.clone(), lease.key.clone());
    // A panic is a failure of this key and not of the lane.
    let work = std::panic::AssertUnwindSafe(runner.handler.handle(lease.clone())).catch_unwind();
    let outcome = tokio::select! {
        outcome = work => outcome,
        error = keep(&runner.db, &lease, claimed) => {
            tracing::warn!(kind, key, error = &error as &dyn std::error::Error, "a run was given up: its lease is lost");
            Ok(None)
        }
    };
    let outcome = outcome.unwrap_or_else(|panic| {
        Some(Outcome::Failed {
            error: panic_text(&*panic),
        })
    });
    if let Some(outcome) = outcome {
        let finished = lease.clone();
        let result = runner
            .db
            .tx(move |tx| Box::pin(async move { finished.finish(tx, &outcome).await }))
            .await;
        if let Err(error) = result {
            tracing::warn!(
                kind,
                key,
                error = &error as &dyn std::error::Error,
                "a lease could not be given back"
            );
            return false;
        }
    }
    true
}

/// Renews the lease until that does not work any more. `claimed` is a time at which the lease was not yet given.
async fn keep(db: &Db, lease: &Lease, claimed: Instant) -> Error {
    // By this process' clock, which may only be too early: the database began to count later.
    let mut until = claimed + lease.length();
    loop {
        tokio::time::sleep(lease.length() / RENEWALS_PER_LEASE).await;
        let asked = Instant::now();
        match tokio::time::timeout_at(until, lease.renew(db)).await {
            Ok(Ok(())) => until = asked + lease.length(),
            Ok(Err(error)) if error.class().is_retryable() && Instant::now() < until => {}
            Ok(Err(error)) => return error,
            Err(_) => return lease.lost(),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}
