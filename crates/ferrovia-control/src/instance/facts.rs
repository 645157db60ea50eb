//! What a pass knows: containers and rows, read when they may have changed, and what is known only while control runs.

use std::time::Duration;

use ferrovia_core::cutover::Problem;
use ferrovia_core::cutover::{Attempt, View};
use ferrovia_core::id::InstanceId;
use ferrovia_core::workload::Observed;
use ferrovia_engine::{Engine, Scope};
use ferrovia_store::cutover::{self, DeploymentFacts, Situation};
use ferrovia_store::{Db, Error as StoreError};
use tokio::time::{Instant, timeout};

use crate::control::{ENGINE_CALL_MS, Shared};
use crate::error::Error;

/// What was read is believed for so long without a ring, in milliseconds.
const FRESH_MS: u64 = 1_000;

/// What a pass knows.
pub(super) struct Facts {
    pub(super) situation: Situation,
    /// `None` when the engine could not be asked.
    pub(super) containers: Option<Vec<Observed>>,
    /// How often in a row the engine did not answer; 0 when it did.
    pub(super) engine_failures: u32,
    /// The rows must be read again.
    pub(super) reread: bool,
    /// The containers must be looked at again.
    pub(super) observe: bool,
    read_at: Instant,
    observed_at: Instant,
}

impl Facts {
    /// Looks at everything; `None` when there is no such instance. The containers first: see [`View::replicas`].
    pub(super) async fn read<E: Engine, B>(
        shared: &Shared<E, B>,
        instance: InstanceId,
    ) -> Result<Option<Self>, Error> {
        let observed_at = Instant::now();
        let observed = observe(shared, instance).await;
        let read_at = Instant::now();
        let Some(situation) = read(&shared.db, instance).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            engine_failures: observed.as_ref().err().copied().unwrap_or(0),
            containers: observed.ok(),
            situation,
            reread: false,
            observe: false,
            read_at,
            observed_at,
        }))
    }

    /// Looks again at what may have changed. Whether the instance is still there.
    pub(super) async fn refresh<E: Engine, B>(
        &mut self,
        shared: &Shared<E, B>,
        instance: InstanceId,
    ) -> Result<bool, Error> {
        let old = Duration::from_millis(FRESH_MS);
        if self.observe || self.containers.is_none() || self.observed_at.elapsed() >= old {
            self.observed_at = Instant::now();
            let observed = observe(shared, instance).await;
            self.engine_failures = observed.as_ref().err().copied().unwrap_or(0);
            self.containers = observed.ok();
            self.observe = false;
            // A container is judged by rows that were read after it was seen.
            self.reread |= self.has_strangers();
        }
        if self.reread || self.read_at.elapsed() >= old {
            self.read_at = Instant::now();
            let Some(situation) = read(&shared.db, instance).await? else {
                return Ok(false);
            };
            self.situation = situation;
            self.reread = false;
        }
        Ok(true)
    }

    /// Takes over what a commit of this pass left behind.
    pub(super) fn take(&mut self, situation: Situation) {
        self.read_at = Instant::now();
        self.situation = situation;
        self.reread = false;
    }

    fn has_strangers(&self) -> bool {
        self.containers.iter().flatten().any(|container| {
            self.situation
                .replicas
                .iter()
                .all(|replica| replica.id != container.replica_id)
        })
    }

    /// Puts what an engine call gave in the place of what was known of these containers.
    pub(super) fn merge(&mut self, observed: Vec<Observed>) {
        let Some(containers) = &mut self.containers else {
            return;
        };
        containers.retain(|old| observed.iter().all(|new| new.handle != old.handle));
        containers.extend(observed);
    }

    /// A container as it is known.
    pub(super) fn container_mut(&mut self, handle: &str) -> Option<&mut Observed> {
        self.containers
            .iter_mut()
            .flatten()
            .find(|container| container.handle == handle)
    }

    pub(super) fn deployment(&self, id: ferrovia_core::id::DeploymentId) -> Option<&DeploymentFacts> {
        self.situation
            .deployments
            .iter()
            .find(|facts| facts.attempt.id == id)
    }

    /// What the planner sees.
    pub(super) fn view<E, B>(&self, shared: &Shared<E, B>) -> View {
        let situation = &self.situation;
        let instance = situation.place.instance_id;
        let attempts = situation.deployments.iter().map(|facts| Attempt {
            image: facts
                .image
                .as_ref()
                .map_or(facts.attempt.image.clone(), |image| shared.live.image(image)),
            ..facts.attempt.clone()
        });
        View {
            now_ms: shared.clock.now_ms(),
            deleted: situation.place.deleted,
            intent: situation.intent.clone(),
            attempts: attempts.collect(),
            replicas: situation.replicas.clone(),
            containers: self.containers.clone(),
            observations: shared.live.observations_of(instance),
            readers: shared.live.readers(),
            problems: shared.live.problems(instance),
        }
    }
}

async fn read(db: &Db, instance: InstanceId) -> Result<Option<Situation>, StoreError> {
    db.snapshot::<_, StoreError>(move |conn| Box::pin(cutover::find(conn, instance)))
        .await
}

/// The instance's containers; how often in a row the engine did not say.
async fn observe<E: Engine, B>(shared: &Shared<E, B>, instance: InstanceId) -> Result<Vec<Observed>, u32> {
    let limit = Duration::from_millis(ENGINE_CALL_MS);
    let why = match timeout(limit, shared.engine.observe(Scope::Instance(instance))).await {
        Ok(Ok(observed)) => return Ok(observed),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it did not answer in {ENGINE_CALL_MS} ms"),
    };
    tracing::debug!(%instance, "the engine could not be asked: {why}");
    Err(shared.live.add_problem(instance, Problem::Engine { why }))
}
