//! The planned changes as one transaction: fenced by the lease, refused when the intent is no longer the planned one,
//! with the tables' rows that follow from the new phases.

use ferrovia_build::Builder;
use ferrovia_core::cutover::{Change, Phase, TableRows, table_rows};
use ferrovia_core::error::Report;
use ferrovia_core::id::{DeploymentId, ReplicaId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::table::Version;
use ferrovia_engine::Engine;
use ferrovia_store::cutover::{DeploymentFacts, Situation};
use ferrovia_store::queue::{self, Lease};
use ferrovia_store::replica::{self, NewReplica};
use ferrovia_store::{Tx, build, cutover, deployment, image, intent, table};
use uuid::Uuid;

use super::Pass;
use super::facts::Facts;
use super::last_words;
use crate::error::Error;
use crate::work;

impl<E: Engine + 'static, B: Builder + 'static> Pass<'_, E, B> {
    /// Commits the changes, and gives the rows as they are then.
    pub(super) async fn commit(&self, facts: &Facts, changes: &[Change]) -> Result<Situation, Error> {
        let mut changes = changes.to_vec();
        for change in &mut changes {
            if let Change::End {
                report,
                last_words_of: Some(replica),
                ..
            } = change
            {
                report.log = last_words::read(&self.shared.logs, self.instance, *replica).await;
            }
        }
        let batch = Batch {
            lease: self.lease.clone(),
            situation: facts.situation.clone(),
            changes,
            addresses: self.shared.addresses.clone(),
            now_ms: self.shared.clock.now_ms(),
            seed: Uuid::now_v7(),
        };
        let committed = self
            .shared
            .db
            .tx(move |tx| Box::pin(async move { batch.write(tx).await }))
            .await;
        let (situation, version) = match committed {
            Ok(committed) => committed,
            Err(Error::ImageCondemned(deployment)) => {
                self.start_build_over(facts, deployment).await?;
                return Err(Error::Stale);
            }
            Err(error) => return Err(error),
        };
        if version.is_some() {
            self.shared.tables.changed();
        }
        self.shared.live.changed(situation.place.instance_id);
        Ok(situation)
    }

    /// The image that a deployment is to run is on its way out: it is made again.
    async fn start_build_over(&self, facts: &Facts, id: DeploymentId) -> Result<(), Error> {
        let Some(found) = facts.deployment(id) else {
            return Ok(());
        };
        let (build_id, team, lease) = (found.build_id, facts.situation.team_id, self.lease.clone());
        let now_ms = self.shared.clock.now_ms();
        self.shared
            .db
            .tx(move |tx| {
                Box::pin(async move {
                    lease.fence(tx).await?;
                    build::start_over(tx, build_id, now_ms).await?;
                    queue::enqueue(tx, &work::build(build_id, team)).await
                })
            })
            .await?;
        Ok(())
    }
}

/// What one transaction writes. The body may run more than once, so everything random is decided before.
#[derive(Clone)]
struct Batch {
    lease: Lease,
    situation: Situation,
    changes: Vec<Change>,
    addresses: AddressPlan,
    now_ms: i64,
    seed: Uuid,
}

impl Batch {
    async fn write(self, tx: &mut Tx) -> Result<(Situation, Option<Version>), Error> {
        let instance = self.situation.place.instance_id;
        let before = intent::lock(tx, instance).await?;
        if before.generation != self.situation.intent.generation {
            return Err(Error::Stale);
        }
        let mut moved: Vec<ReplicaId> = Vec::new();
        for (number, change) in self.changes.iter().enumerate() {
            self.write_one(tx, number, change, &mut moved).await?;
        }
        // Not first, as elsewhere: use cases lock an intent or a deployment before they enqueue, and two that lock the
        // same in another order wait for each other. Nothing counts before the commit.
        self.lease.fence(tx).await?;
        let mut after = self.read(tx).await?;
        let rows = wanted_rows(&after);
        let version = table::publish(tx, instance, &after.published, &rows).await?;
        if let Some(version) = version {
            replica::set_phase_revision(tx, &moved, version.revision).await?;
            for row in after.replicas.iter_mut().filter(|row| moved.contains(&row.id)) {
                row.phase_revision = version.revision;
            }
            after.published = table::of_instance(tx, instance).await?;
        }
        Ok((after, version))
    }

    async fn read(&self, tx: &mut Tx) -> Result<Situation, Error> {
        let instance = self.situation.place.instance_id;
        cutover::find(tx, instance).await?.ok_or(Error::Stale)
    }

    fn facts(&self, id: DeploymentId) -> Result<&DeploymentFacts, Error> {
        let mut all = self.situation.deployments.iter();
        all.find(|facts| facts.attempt.id == id).ok_or(Error::Stale)
    }

    async fn write_one(
        &self,
        tx: &mut Tx,
        number: usize,
        change: &Change,
        moved: &mut Vec<ReplicaId>,
    ) -> Result<(), Error> {
        match change {
            Change::Building(id) => deployment::set_building(tx, *id).await?,
            Change::Begin(id) => self.begin(tx, *id).await?,
            Change::End {
                deployment,
                outcome,
                report,
                ..
            } => self.end(tx, *deployment, *outcome, report).await?,
            Change::Succeed { deployment, warnings } => {
                deployment::end(tx, *deployment, Outcome::Succeeded, None, warnings, self.now_ms).await?;
                intent::set_target(tx, self.situation.place.instance_id, Some(*deployment)).await?;
            }
            Change::Allocate {
                deployment,
                ordinal,
                restart_nonce,
            } => {
                let new = NewReplica {
                    id: ReplicaId::from_uuid(nth_id(self.seed, number)),
                    deployment_id: *deployment,
                    instance_id: self.situation.place.instance_id,
                    ordinal: *ordinal,
                    restart_nonce: *restart_nonce,
                    bridge: self.situation.bridge,
                    now_ms: self.now_ms,
                };
                replica::insert(tx, &new, &self.addresses).await?;
                moved.push(new.id);
            }
            Change::Move {
                replica: id,
                to,
                started_at_ms,
            } => {
                // From `admitting` to `starting` nothing of the tables changes, and nothing is to be acknowledged.
                if *to != Phase::Starting || self.was_serving(*id) {
                    moved.push(*id);
                }
                replica::set_phase(tx, *id, *to, *started_at_ms, self.now_ms).await?;
            }
            Change::Tries {
                replica: id,
                tries,
                next_try_ms,
            } => replica::set_tries(tx, *id, *tries, *next_try_ms).await?,
            Change::Release(id) => replica::delete(tx, *id).await?,
        }
        Ok(())
    }

    fn was_serving(&self, id: ReplicaId) -> bool {
        let mut rows = self.situation.replicas.iter();
        rows.any(|row| row.id == id && row.phase == Phase::Serving)
    }

    async fn begin(&self, tx: &mut Tx, id: DeploymentId) -> Result<(), Error> {
        let facts = self.facts(id)?;
        let Some(image) = &facts.image else {
            return Err(Error::ImageCondemned(id));
        };
        if !image::hold(tx, image).await? {
            return Err(Error::ImageCondemned(id));
        }
        let span = |from_ms: i64, to_ms: i64| u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0);
        // A build that was there before costs this deployment nothing.
        let (queue_ms, build_ms) = match (facts.build_started_ms, facts.build_finished_ms) {
            (Some(started), Some(finished)) if finished > facts.created_ms => (
                span(facts.created_ms, started),
                span(started.max(facts.created_ms), finished),
            ),
            _ => (span(facts.created_ms, self.now_ms), 0),
        };
        deployment::begin(tx, id, queue_ms, build_ms, self.now_ms).await?;
        Ok(())
    }

    async fn end(
        &self,
        tx: &mut Tx,
        id: DeploymentId,
        outcome: Outcome,
        report: &Report,
    ) -> Result<(), Error> {
        let facts = self.facts(id)?;
        deployment::end(tx, id, outcome, Some(report), &[], self.now_ms).await?;
        // Its build may have nobody left who waits for it.
        if facts.attempt.outcome != Outcome::Deploying {
            queue::enqueue(tx, &work::build(facts.build_id, self.situation.team_id)).await?;
        }
        Ok(())
    }
}

/// The rows of the tables that follow from a situation.
fn wanted_rows(situation: &Situation) -> TableRows {
    let attempts: Vec<_> = situation
        .deployments
        .iter()
        .map(|facts| facts.attempt.clone())
        .collect();
    table_rows(
        &situation.place,
        &situation.intent,
        &attempts,
        &situation.replicas,
    )
}

/// Whether the tables say something else than what follows from the rows: a domain that is new, an instance that is
/// deleted, an intent that changed a reason.
pub(super) fn is_unpublished(situation: &Situation) -> Result<bool, Error> {
    Ok(table::differs(&situation.published, &wanted_rows(situation))?)
}

/// The same id for the same change however often the transaction's body runs.
fn nth_id(seed: Uuid, number: usize) -> Uuid {
    Uuid::from_u128(seed.as_u128().wrapping_add(number as u128))
}
