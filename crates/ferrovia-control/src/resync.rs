//! The comparison of the whole engine with the rows: one bulk call, one query, and only differences become due.
//!
//! It finds what no event told of: hints that were lost, containers that somebody else took away, deployments whose
//! work item vanished. Containers of instances that the database does not know (it was restored to a time before them)
//! are taken away here, since no instance's pass would.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::cutover::Phase;
use ferrovia_core::id::{InstanceId, ReplicaId};
use ferrovia_core::settings::DEFAULT_STOP_GRACE_MS;
use ferrovia_core::workload::{EngineRestart, Observed, ReplicaStatus};
use ferrovia_engine::{Engine, Scope};
use ferrovia_store::queue::{self, Lease, Outcome, Work};
use ferrovia_store::{cutover, replica};
use tokio::time::timeout;

use crate::control::{ENGINE_CALL_MS, Shared};
use crate::error::Error;
use crate::work;

/// Time between two comparisons, in milliseconds.
const PERIOD_MS: u64 = 300_000;
/// Time until the next look at containers that nobody owns, in milliseconds.
const STRANGERS_MS: u64 = 2_000;
/// Instances that are enqueued in one transaction.
const CHUNK: usize = 200;

/// One comparison.
pub(crate) async fn reconcile<E: Engine + 'static, B: Send + Sync + 'static>(
    shared: &Arc<Shared<E, B>>,
    lease: &Lease,
) -> Result<Outcome, Error> {
    let limit = Duration::from_millis(ENGINE_CALL_MS);
    // The engine first: a container without a row has then no owner.
    let observed = timeout(limit, shared.engine.observe(Scope::All))
        .await
        .map_err(|_| ferrovia_engine::Error::Unknown {
            call: "observe",
            timeout_ms: ENGINE_CALL_MS,
        })??;
    let (rows, unsettled, known) = {
        let mut conn = shared.db.conn().await?;
        let rows = replica::all(&mut conn).await?;
        let unsettled = cutover::unsettled(&mut conn).await?;
        let instances: HashSet<InstanceId> = observed.iter().map(|seen| seen.instance_id).collect();
        let instances: Vec<InstanceId> = instances.into_iter().collect();
        let known: HashSet<InstanceId> = cutover::known(&mut conn, &instances).await?.into_iter().collect();
        (rows, unsettled, known)
    };
    let mut due = differences(&observed, &rows);
    due.extend(unsettled);
    due.retain(|id| known.contains(id) || observed.iter().all(|seen| seen.instance_id != *id));
    let mut due: Vec<InstanceId> = due.into_iter().collect();
    // In the order in which everybody locks them.
    due.sort_unstable();
    for chunk in due.chunks(CHUNK) {
        enqueue(shared, lease, chunk.to_vec()).await?;
    }
    let strangers: Vec<&Observed> = observed
        .iter()
        .filter(|seen| !known.contains(&seen.instance_id))
        .collect();
    for stranger in &strangers {
        take_away(shared, stranger).await;
    }
    Ok(Outcome::Again {
        after_ms: if strangers.is_empty() {
            PERIOD_MS
        } else {
            STRANGERS_MS
        },
    })
}

async fn enqueue<E, B>(shared: &Shared<E, B>, lease: &Lease, due: Vec<InstanceId>) -> Result<(), Error> {
    let lease = lease.clone();
    shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move {
                lease.fence(tx).await?;
                for id in &due {
                    let work = Work::new(work::INSTANCE, id, work::CONTROL_CLASS);
                    queue::enqueue(tx, &work.event()).await?;
                }
                Ok(())
            })
        })
        .await?;
    Ok(())
}

/// The instances whose containers are not what their replicas' rows say.
fn differences(observed: &[Observed], rows: &[(ReplicaId, InstanceId, Phase)]) -> HashSet<InstanceId> {
    let seen: HashMap<ReplicaId, &Observed> = observed.iter().map(|seen| (seen.replica_id, seen)).collect();
    let rowed: HashSet<ReplicaId> = rows.iter().map(|row| row.0).collect();
    let strays = observed
        .iter()
        .filter(|seen| !rowed.contains(&seen.replica_id))
        .map(|seen| seen.instance_id);
    let changed = rows
        .iter()
        .filter(|(id, _, phase)| {
            *phase != Phase::Serving
                || seen.get(id).is_none_or(|seen| {
                    seen.status != ReplicaStatus::Running || seen.restart == EngineRestart::No
                })
        })
        .map(|row| row.1);
    strays.chain(changed).collect()
}

/// One step towards the removal of a container of an instance that the database does not know.
async fn take_away<E: Engine + 'static, B: Send + Sync + 'static>(
    shared: &Arc<Shared<E, B>>,
    stranger: &Observed,
) {
    tracing::warn!(
        name = stranger.name,
        "a container belongs to nothing that the database knows, and is taken away"
    );
    let (engine, stranger) = (shared.engine.clone(), stranger.clone());
    shared
        .beside
        .spawn(format!("take away {}", stranger.handle), async move {
            let limit = Duration::from_millis(ENGINE_CALL_MS);
            let handle = &stranger.handle;
            let done = timeout(limit, async {
                engine.set_restart(handle, EngineRestart::No).await?;
                engine.stop(handle, DEFAULT_STOP_GRACE_MS).await?;
                engine.remove(handle).await
            })
            .await;
            if !matches!(done, Ok(Ok(()))) {
                tracing::info!(handle, "it is not yet gone");
            }
        });
}

#[cfg(test)]
mod tests {
    use ferrovia_core::id::Id;
    use uuid::Uuid;

    use super::*;

    fn id<K>(number: u128) -> Id<K> {
        Id::from_uuid(Uuid::from_u128(number))
    }

    fn container(replica: u128, instance: u128, status: ReplicaStatus, restart: EngineRestart) -> Observed {
        Observed {
            handle: format!("h{replica}"),
            name: format!("n{replica}"),
            replica_id: id(replica),
            deployment_id: id(1),
            instance_id: id(instance),
            environment_id: id(1),
            ordinal: 1,
            spec_hash: String::new(),
            status,
            address: None,
            started_at_ms: None,
            engine_restarts: 0,
            restart,
            last_exit: None,
        }
    }

    #[test]
    fn only_what_differs_is_due() {
        let observed = [
            container(1, 10, ReplicaStatus::Running, EngineRestart::UnlessStopped),
            container(2, 20, ReplicaStatus::Created, EngineRestart::No),
            container(3, 30, ReplicaStatus::Running, EngineRestart::UnlessStopped),
            container(5, 50, ReplicaStatus::Running, EngineRestart::No),
        ];
        let rows = [
            (id(1), id(10), Phase::Serving),
            (id(2), id(20), Phase::Serving),
            (id(4), id(40), Phase::Serving),
            (id(5), id(50), Phase::Serving),
        ];
        let due = differences(&observed, &rows);
        assert_eq!(due, HashSet::from([id(20), id(30), id(40), id(50)]));
    }
}
