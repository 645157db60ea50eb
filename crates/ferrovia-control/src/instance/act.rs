//! The planned engine calls. Each may fail without harm: what it met is noted for the next plan.

use std::time::Duration;

use ferrovia_build::Builder;
use ferrovia_core::cutover::{Action, ImageStanding, Problem, Replica};
use ferrovia_core::id::{DeploymentId, ReplicaId};
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, ReplicaStatus};
use ferrovia_engine::{Engine, Error as EngineError};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::Pass;
use super::facts::Facts;
use super::workload::workload;
use crate::control::ENGINE_CALL_MS;
use crate::error::Error;
use crate::live::Ring;

/// Longest fetch of an image, in milliseconds; the start deadline is usually shorter.
const FETCH_MS: u64 = 1_800_000;
/// What a stop may take beyond its grace, in milliseconds.
const STOP_MARGIN_MS: u64 = 30_000;

/// What a call gave.
enum Met {
    Containers(Vec<Observed>),
    Started(ReplicaId, String, i64),
    Restart(String, EngineRestart),
    /// It runs on beside the pass.
    Beside,
    Failed(Option<ReplicaId>, EngineError),
    /// Not the engine's fault: rows or keys.
    Broken(Error),
}

impl<E: Engine + 'static, B: Builder + 'static> Pass<'_, E, B> {
    /// Makes the calls, all at once. Whether anything was done; `Err` tells how many failures came in a row.
    pub(super) async fn act(&self, facts: &mut Facts, actions: &[Action]) -> Result<bool, u32> {
        let met = {
            let known = &*facts;
            join_all(actions.iter().map(|action| self.call(known, action))).await
        };
        let mut acted = false;
        let mut failures = 0;
        for met in met {
            match met {
                Met::Containers(observed) => facts.merge(observed),
                Met::Started(replica, handle, at_ms) => {
                    self.shared.live.started(self.instance, replica);
                    if let Some(container) = facts.container_mut(&handle) {
                        container.status = ReplicaStatus::Running;
                        container.started_at_ms = Some(at_ms);
                    }
                }
                Met::Restart(handle, restart) => {
                    if let Some(container) = facts.container_mut(&handle) {
                        container.restart = restart;
                    }
                }
                Met::Beside => continue,
                Met::Failed(replica, error) => {
                    failures = failures.max(self.note(facts, replica, &error));
                    continue;
                }
                Met::Broken(error) => {
                    tracing::warn!(instance = %self.instance, error = &error as &dyn std::error::Error, "a workload could not be made");
                    let why = error.to_string();
                    failures = failures.max(
                        self.shared
                            .live
                            .add_problem(self.instance, Problem::Engine { why }),
                    );
                    continue;
                }
            }
            acted = true;
        }
        if failures > 0 { Err(failures) } else { Ok(acted) }
    }

    /// Notes what a failed call met. Gives how many failures came in a row; 0 when the plan goes on from it at once.
    fn note(&self, facts: &mut Facts, replica: Option<ReplicaId>, error: &EngineError) -> u32 {
        facts.observe = true;
        let live = &self.shared.live;
        match (error, replica) {
            (EngineError::CannotStart(why), Some(replica)) => {
                let at_ms = self.shared.clock.now_ms();
                let why = why.clone();
                live.add_problem(self.instance, Problem::CannotStart { replica, why, at_ms });
                0
            }
            (EngineError::Gone(_), _) => 0,
            _ => {
                tracing::info!(instance = %self.instance, "an engine call failed: {error}");
                let why = error.to_string();
                live.add_problem(self.instance, Problem::Engine { why })
            }
        }
    }

    async fn call(&self, facts: &Facts, action: &Action) -> Met {
        let engine = &self.shared.engine;
        match action {
            Action::FetchImage(deployment) => self.fetch(facts, *deployment).await,
            Action::Prepare { deployment, replicas } => self.prepare(facts, *deployment, replicas).await,
            Action::Start { replica, handle } => {
                // The run begins after this moment: what was seen before is of an earlier one.
                let at_ms = self.shared.clock.now_ms();
                match limited("start", engine.start(handle)).await {
                    Ok(()) => Met::Started(*replica, handle.clone(), at_ms),
                    Err(error) => Met::Failed(Some(*replica), error),
                }
            }
            Action::SetRestart { handle, restart } => {
                match limited("set restart", engine.set_restart(handle, *restart)).await {
                    Ok(()) => Met::Restart(handle.clone(), *restart),
                    Err(error) => Met::Failed(None, error),
                }
            }
            Action::Stop { handle, grace_ms } => {
                let (engine, handle, grace_ms) = (engine.clone(), handle.clone(), *grace_ms);
                let limit = Duration::from_millis(u64::from(grace_ms) + STOP_MARGIN_MS);
                self.beside(format!("stop {handle}"), async move {
                    match timeout(limit, engine.stop(&handle, grace_ms)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::info!(handle, "a container was not stopped: {error}"),
                        Err(_) => {
                            tracing::info!(handle, "the engine did not say that a container was stopped")
                        }
                    }
                });
                Met::Beside
            }
            Action::Remove { handle } => {
                let (engine, handle) = (engine.clone(), handle.clone());
                self.beside(format!("remove {handle}"), async move {
                    if let Err(error) = limited("remove", engine.remove(&handle)).await {
                        tracing::info!(handle, "a container was not removed: {error}");
                    }
                });
                Met::Beside
            }
        }
    }

    /// Runs a long call beside the pass, once at a time for each key; it rings the instance when it ends.
    fn beside(&self, key: String, call: impl Future<Output = ()> + Send + 'static) {
        let live = self.shared.live.clone();
        let instance = self.instance;
        self.shared.beside.spawn(key, async move {
            call.await;
            live.ring(instance, Ring::Engine);
        });
    }

    async fn fetch(&self, facts: &Facts, deployment: DeploymentId) -> Met {
        let Some(image) = facts.deployment(deployment).and_then(|facts| facts.image.clone()) else {
            return Met::Beside;
        };
        let live = &self.shared.live;
        // Most often it is there.
        match limited("find image", self.shared.engine.find_image(&image)).await {
            Ok(Some(_)) => {
                live.set_image(&image, ImageStanding::Ready);
                return Met::Containers(Vec::new());
            }
            Ok(None) => {}
            Err(error) => return Met::Failed(None, error),
        }
        let tries = match live.image(&image) {
            ImageStanding::Failed { tries, .. } => tries,
            _ => 0,
        };
        live.set_image(&image, ImageStanding::Fetching);
        let (shared, instance) = (self.shared.clone(), self.instance);
        self.shared.beside.spawn(format!("fetch {image}"), async move {
            let limit = Duration::from_millis(FETCH_MS);
            let fetched = timeout(limit, shared.engine.ensure_image(&image, &shared.registry)).await;
            let why = match fetched {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("it took longer than {} s", FETCH_MS / 1_000)),
            };
            let standing = match why {
                None => ImageStanding::Ready,
                Some(why) => ImageStanding::Failed {
                    why,
                    at_ms: shared.clock.now_ms(),
                    tries: tries + 1,
                },
            };
            shared.live.set_image(&image, standing);
            shared.live.ring(instance, Ring::Live);
        });
        Met::Beside
    }

    async fn prepare(&self, facts: &Facts, deployment: DeploymentId, ids: &[ReplicaId]) -> Met {
        let Some(found) = facts.deployment(deployment) else {
            return Met::Beside;
        };
        let replicas: Vec<&Replica> = facts
            .situation
            .replicas
            .iter()
            .filter(|replica| ids.contains(&replica.id))
            .collect();
        let made = async {
            let key = {
                let mut conn = self.shared.db.conn().await?;
                self.shared.keyring.get(&mut conn, found.data_key_id).await?
            };
            workload(&self.shared.site, &facts.situation, found, &key, &replicas)
        };
        let workload = match made.await {
            Ok(workload) => workload,
            Err(error) => return Met::Broken(error),
        };
        match limited("prepare", self.shared.engine.prepare(&workload)).await {
            Ok(observed) => Met::Containers(observed),
            Err(EngineError::Image { image, why }) => {
                // It was there and is not any more.
                self.forget_image(&workload.image);
                Met::Failed(None, EngineError::Image { image, why })
            }
            Err(error) => Met::Failed(ids.first().copied(), error),
        }
    }

    fn forget_image(&self, image: &ImageReference) {
        self.shared.live.set_image(image, ImageStanding::Unknown);
    }
}

/// A call with the bound that every engine call has: shorter than a lease.
async fn limited<T>(
    call: &'static str,
    future: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match timeout(Duration::from_millis(ENGINE_CALL_MS), future).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::Unknown {
            call,
            timeout_ms: ENGINE_CALL_MS,
        }),
    }
}
