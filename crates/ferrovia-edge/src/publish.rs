//! From a table to every worker: compile, hand over, wait until each has swapped.

use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::observation::InFlight;
use ferrovia_core::table::{EdgeRow, Table, Version};
use ferrovia_table::observe::Observations;
use ferrovia_table::{Apply, Changed, InFlightReport};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::routes::Compiler;
use crate::worker::Order;

/// Longest wait for a worker to swap, in milliseconds. A worker that takes longer is stuck.
const SWAP_TIMEOUT_MS: u64 = 5_000;

/// Brings tables and observations to the workers. Clones are the same publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    state: Arc<Mutex<State>>,
    /// Told when a report is due.
    report: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    compiler: Compiler,
    table: Table<EdgeRow>,
    seen: Arc<Observations>,
    /// What was seen when the routes were made that every worker serves; `None` when one may serve others.
    served: Option<Arc<Observations>>,
    /// The version that every worker serves.
    version: Version,
    hosts: usize,
    workers: Vec<mpsc::Sender<Order>>,
}

impl Publisher {
    /// A publisher to these workers; `report` is told after every table, and when a replica on its way out may have
    /// nothing open any more.
    pub fn new(workers: Vec<mpsc::Sender<Order>>, report: Arc<Notify>) -> Self {
        let state = State {
            compiler: Compiler::new(workers.len(), Arc::clone(&report)),
            table: Table::default(),
            seen: Arc::default(),
            served: None,
            version: Version::default(),
            hosts: 0,
            workers,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            report,
        }
    }

    /// Mixes what `node` sees into the routes, where it makes others of them.
    ///
    /// # Errors
    /// For people: a worker did not swap.
    pub async fn set_seen(&self, seen: Arc<Observations>) -> Result<(), String> {
        let mut state = self.state.lock().await;
        state.seen = seen;
        let served = state.served.as_ref();
        if served.is_some_and(|served| !state.compiler.would_change(served, &state.seen)) {
            return Ok(());
        }
        state.publish().await
    }

    /// What is open towards each replica, under the version that was served when the counting began.
    pub async fn report(&self) -> InFlightReport {
        let state = self.state.lock().await;
        let version = state.version;
        let mut open: Vec<InFlight> = state
            .compiler
            .open()
            .into_iter()
            .map(|(replica_id, open)| InFlight { replica_id, open })
            .collect();
        open.sort_by_key(|entry| entry.replica_id);
        InFlightReport { version, open }
    }

    /// Hosts that are known.
    pub async fn hosts(&self) -> usize {
        self.state.lock().await.hosts
    }
}

impl State {
    async fn publish(&mut self) -> Result<(), String> {
        self.served = None;
        let routes = Arc::new(self.compiler.compile(&self.table, &self.seen));
        let mut swaps = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, swapped) = oneshot::channel();
            let order = Order::Swap(Arc::clone(&routes), done);
            let limit = Duration::from_millis(SWAP_TIMEOUT_MS);
            let sent = timeout(limit, worker.send(order)).await;
            sent.map_err(|_| "a worker takes no orders")?
                .map_err(|_| "a worker has ended")?;
            swaps.push(swapped);
        }
        for swapped in swaps {
            let swapped = timeout(Duration::from_millis(SWAP_TIMEOUT_MS), swapped).await;
            swapped
                .map_err(|_| "a worker did not take the table")?
                .map_err(|_| "a worker has ended")?;
        }
        self.version = routes.version;
        self.hosts = routes.host_count();
        self.served = Some(Arc::clone(&self.seen));
        Ok(())
    }
}

impl Apply<EdgeRow> for Publisher {
    async fn apply(&mut self, table: &Table<EdgeRow>, _: Changed<'_>) -> Result<(), String> {
        let mut state = self.state.lock().await;
        state.table = table.clone();
        state.publish().await?;
        drop(state);
        self.report.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ferrovia_core::observation::Health;

    use super::*;
    use crate::routes::tests::{seen, table};

    const UP: Health = Health::Healthy { since_ms: 1 };

    fn later(seen: Observations) -> Arc<Observations> {
        let again = |observation: &Arc<_>| {
            let mut observation = ferrovia_core::observation::Observation::clone(observation);
            observation.seen_at_ms += 60_000;
            Arc::new(observation)
        };
        Arc::new(Observations {
            replicas: seen
                .replicas
                .iter()
                .map(|(id, observation)| (*id, again(observation)))
                .collect(),
            ..seen
        })
    }

    #[tokio::test]
    async fn workers_are_given_routes_only_when_they_are_others() {
        let (order, mut orders) = mpsc::channel(1);
        let swaps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&swaps);
        tokio::spawn(async move {
            while let Some(Order::Swap(_, done)) = orders.recv().await {
                // The third is not taken: a worker that is about to end.
                if counted.fetch_add(1, Ordering::Relaxed) != 2 {
                    done.send(()).unwrap();
                }
            }
        });
        let mut publisher = Publisher::new(vec![order], Arc::default());
        let table = table(&[(1, 10)], &[]);
        publisher.apply(&table, Changed::All).await.unwrap();
        publisher.set_seen(Arc::new(seen(1, 10, UP))).await.unwrap();
        let swapped = || swaps.load(Ordering::Relaxed);
        assert_eq!(swapped(), 2);
        publisher.set_seen(later(seen(1, 10, UP))).await.unwrap();
        let mut more = seen(1, 10, UP);
        more.replicas.extend(seen(2, 10, Health::Down).replicas);
        publisher.set_seen(Arc::new(more)).await.unwrap();
        assert_eq!(
            swapped(),
            2,
            "the same was seen again, and one that is in no route"
        );

        let down = || Arc::new(seen(1, 10, Health::Down));
        assert!(publisher.set_seen(down()).await.is_err());
        publisher.set_seen(down()).await.unwrap();
        assert_eq!(swapped(), 4, "what was not taken is told again");
        publisher.set_seen(down()).await.unwrap();
        publisher
            .set_seen(Arc::new(seen(1, 20, Health::Down)))
            .await
            .unwrap();
        let away = Observations {
            connected: false,
            ..seen(1, 20, Health::Down)
        };
        publisher.set_seen(Arc::new(away)).await.unwrap();
        assert_eq!(swapped(), 6, "a new run, then nobody who sees it");
    }
}
