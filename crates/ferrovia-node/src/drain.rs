//! Tells control how many private connections replicas on their way out still have. Only those are counted.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::observation::InFlight;
use ferrovia_table::{InFlightReport, ReaderHandle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::conntrack;
use crate::rows::Rows;

/// How often connections are counted while a replica drains, in milliseconds.
const COUNT_MS: u64 = 250;
/// The pause after a count is at least so many times what it took: a host with very many connections has other work.
const REST_FACTOR: u32 = 10;
/// Longest such pause, in milliseconds: control waits for the count after it.
const LONGEST_REST_MS: u64 = 5_000;

/// Reports with every table, and on and on while anything drains. Without `plan` there is no private network, and
/// nothing to count.
pub async fn report(
    mut rows: watch::Receiver<Option<Arc<Rows>>>,
    reader: ReaderHandle,
    plan: Option<AddressPlan>,
    file: PathBuf,
) {
    let mut told = None;
    let mut failed = false;
    let mut took = Duration::ZERO;
    loop {
        let newest = rows.borrow_and_update().clone();
        let mut drains = false;
        if let Some(newest) = newest {
            let draining = newest.draining();
            drains = !draining.is_empty();
            let addresses: Vec<Ipv4Addr> = draining.keys().copied().collect();
            let began = Instant::now();
            let counted = match &plan {
                Some(plan) if drains => conntrack::count(&file, plan, &addresses).await,
                _ => Ok(std::collections::HashMap::new()),
            };
            took = began.elapsed();
            match counted {
                Ok(counted) => {
                    failed = false;
                    let mut open: Vec<InFlight> = counted
                        .into_iter()
                        .filter(|(_, open)| *open > 0)
                        .filter_map(|(address, open)| {
                            Some(InFlight {
                                replica_id: *draining.get(&address)?,
                                open,
                            })
                        })
                        .collect();
                    open.sort_unstable_by_key(|open| open.replica_id);
                    let report = InFlightReport {
                        version: newest.version,
                        open,
                    };
                    if told.as_ref() != Some(&report) {
                        reader.report(report.clone());
                        told = Some(report);
                    }
                }
                // Control waits for a report until the drain's end.
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(
                            "private connections cannot be counted, so that drains take their longest; install the package `conntrack`: {error}"
                        );
                    }
                }
            }
        }
        let rested = Instant::now() + rest(took);
        tokio::select! {
            changed = rows.changed() => if changed.is_err() { return },
            () = sleep(pause(took)), if drains && plan.is_some() => {}
        }
        // Many tables in a row are no reason to count without a rest.
        sleep_until(rested).await;
    }
}

fn rest(took: Duration) -> Duration {
    took.saturating_mul(REST_FACTOR)
        .min(Duration::from_millis(LONGEST_REST_MS))
}

fn pause(took: Duration) -> Duration {
    rest(took).max(Duration::from_millis(COUNT_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_count_takes_the_seldomer_it_is_made() {
        assert_eq!(pause(Duration::from_millis(1)), Duration::from_millis(COUNT_MS));
        assert_eq!(pause(Duration::from_millis(400)), Duration::from_secs(4));
        assert_eq!(
            pause(Duration::from_secs(10)),
            Duration::from_millis(LONGEST_REST_MS)
        );
    }
}
