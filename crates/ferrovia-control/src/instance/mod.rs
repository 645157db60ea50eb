//! The cut-over of one instance: observe, plan (pure, in `ferrovia_core::cutover`), apply.
//!
//! One pass looks, commits the planned changes in one transaction, makes the planned engine calls, and looks again
//! until nothing is left to do. Then it lingers a little: what comes next is most often an acknowledgement or an
//! observation a few milliseconds later, and a pass that is still there goes on at once, without the way through the
//! queue. It leaves at once when others wait for its slot. What it needs to know it reads again only when something says that it changed, or when it is old.
//!
//! Long calls (fetching an image, stopping a container) run beside the pass, at most one for each image or container,
//! and ring it when they end.

mod act;
mod commit;
mod facts;
mod last_words;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use ferrovia_build::Builder;
use ferrovia_core::cutover::{self, Change, Phase, Plan, Problem, Waiting};
use ferrovia_core::id::InstanceId;
use ferrovia_engine::Engine;
use ferrovia_store::Error as StoreError;
use ferrovia_store::queue::{Lease, Outcome};
use tokio::time::{Instant, sleep_until};

use crate::control::Shared;
use crate::error::Error;
use crate::live::{Bell, Waits};
use facts::Facts;

/// How long a pass stays after its last step, in milliseconds: longer than an acknowledgement and the start of a quick
/// application take.
const LINGER_MS: u64 = 1_500;
/// Longest pass, in milliseconds: others wait for its slot.
const MAX_PASS_MS: u64 = 20_000;
/// A waiting instance is looked at again after this time though nothing rang, in milliseconds: what a lost hint costs.
const RECHECK_MS: u64 = 30_000;
/// Wait after the first failed engine call, in milliseconds; it doubles with each further one.
const FIRST_RETRY_MS: u64 = 250;
/// Longest wait after a failed engine call, in milliseconds.
const MAX_RETRY_MS: u64 = 10_000;

/// One pass for the instance of a lease.
pub(crate) async fn reconcile<E: Engine + 'static, B: Builder + 'static>(
    shared: &Arc<Shared<E, B>>,
    lease: &Lease,
) -> Result<Outcome, Error> {
    let Ok(instance) = lease.key.parse::<InstanceId>() else {
        return Ok(Outcome::Done);
    };
    let presence = shared.live.enter(instance);
    if let Some(team) = lease.team {
        shared.live.set_team(instance, team);
    }
    Pass {
        shared,
        lease,
        instance,
    }
    .run(&presence.bell)
    .await
}

struct Pass<'a, E, B> {
    shared: &'a Arc<Shared<E, B>>,
    lease: &'a Lease,
    instance: InstanceId,
}

impl<E: Engine + 'static, B: Builder + 'static> Pass<'_, E, B> {
    async fn run(&self, bell: &Bell) -> Result<Outcome, Error> {
        let end = Instant::now() + Duration::from_millis(MAX_PASS_MS);
        let mut leave = Instant::now() + Duration::from_millis(LINGER_MS);
        let Some(mut facts) = Facts::read(self.shared, self.instance).await? else {
            return Ok(Outcome::Done);
        };
        loop {
            bell.take_live();
            let view = facts.view(self.shared);
            let plan = cutover::plan(&view);
            self.shared.live.set_waits(self.instance, waits(&plan, &facts));
            let mut stepped = false;
            if !plan.changes.is_empty() || commit::is_unpublished(&facts.situation)? {
                match self.commit(&facts, &plan.changes).await {
                    Ok(situation) => facts.take(situation),
                    // Somebody else changed what the plan was made from.
                    Err(error) if error.is_stale() => facts.reread = true,
                    Err(Error::Store(error @ StoreError::Exhausted { .. })) => {
                        return self.without_addresses(&facts, &plan, &error).await;
                    }
                    Err(error) => return Err(error),
                }
                stepped = true;
            }
            if !plan.actions.is_empty() && !facts.reread {
                match self.act(&mut facts, &plan.actions).await {
                    Ok(acted) => stepped |= acted,
                    Err(failures) => return Ok(self.retry(failures)),
                }
            }
            if stepped {
                leave = Instant::now() + Duration::from_millis(LINGER_MS);
            } else if Instant::now() >= leave.min(end)
                || !waits_for_more(&plan)
                || self.shared.live.is_crowded()
            {
                return Ok(self.ended(&plan, &facts));
            } else {
                let wake = self.wake(&plan).min(leave);
                tokio::select! {
                    () = bell.rung() => {}
                    () = sleep_until(wake) => {}
                }
            }
            if Instant::now() >= end {
                return Ok(Outcome::Again { after_ms: 0 });
            }
            facts.reread |= bell.take_rows();
            facts.observe |= bell.take_engine();
            if !facts.refresh(self.shared, self.instance).await? {
                return Ok(Outcome::Done);
            }
        }
    }

    /// Commits everything but new replicas, since there are no addresses for them: a deployment must end all the same.
    async fn without_addresses(
        &self,
        facts: &Facts,
        plan: &Plan,
        error: &StoreError,
    ) -> Result<Outcome, Error> {
        let why = error.to_string();
        tracing::warn!(instance = %self.instance, "no replica can be made: {why}");
        let failures = self
            .shared
            .live
            .add_problem(self.instance, Problem::Engine { why });
        let mut changes = plan.changes.clone();
        changes.retain(|change| !matches!(change, Change::Allocate { .. }));
        if !changes.is_empty() {
            self.commit(facts, &changes).await?;
        }
        Ok(self.retry(failures))
    }

    /// When the plan wants to be made again, by tokio's clock.
    fn wake(&self, plan: &Plan) -> Instant {
        Instant::now() + Duration::from_millis(self.wait_ms(plan))
    }

    fn wait_ms(&self, plan: &Plan) -> u64 {
        let now_ms = self.shared.clock.now_ms();
        plan.wake_at_ms
            .map_or(RECHECK_MS, |at_ms| {
                u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0)
            })
            .min(RECHECK_MS)
    }

    /// What the queue is told when nothing is left to do now.
    fn ended(&self, plan: &Plan, facts: &Facts) -> Outcome {
        if facts.engine_failures > 0 {
            return self.retry(facts.engine_failures);
        }
        self.shared.live.engine_is_well(self.instance);
        if plan.waiting.is_empty() && plan.wake_at_ms.is_none() || plan.waiting == [Waiting::Held] {
            return Outcome::Done;
        }
        Outcome::Again {
            after_ms: self.wait_ms(plan),
        }
    }

    /// The engine did not do what it was asked: soon again, and later each time.
    fn retry(&self, failures: u32) -> Outcome {
        let doubled = FIRST_RETRY_MS.saturating_mul(1 << failures.clamp(1, 10).saturating_sub(1));
        let full = doubled.min(MAX_RETRY_MS);
        Outcome::Again {
            after_ms: full / 2 + rand::random_range(0..=full / 2),
        }
    }
}

/// Whether what the plan waits for may come at any moment.
fn waits_for_more(plan: &Plan) -> bool {
    plan.waiting
        .iter()
        .any(|waiting| !matches!(waiting, Waiting::Held | Waiting::Engine))
}

/// What rings this instance once the pass has left.
fn waits(plan: &Plan, facts: &Facts) -> Waits {
    let replicas = &facts.situation.replicas;
    Waits {
        revision: plan
            .waiting
            .iter()
            .any(|waiting| {
                matches!(
                    waiting,
                    Waiting::Admission(_)
                        | Waiting::Acknowledgement(_)
                        | Waiting::Drain(_)
                        | Waiting::Address(_)
                )
            })
            .then(|| {
                replicas
                    .iter()
                    .map(|replica| replica.phase_revision)
                    .min()
                    .unwrap_or(0)
            }),
        draining: replicas
            .iter()
            .filter(|replica| replica.phase == Phase::Draining)
            .map(|replica| (replica.id, replica.phase_revision))
            .collect(),
        waiting: plan.waiting.clone(),
    }
}
