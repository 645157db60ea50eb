//! Tombstones that every reader has acknowledged, and readers that went away long ago.

use std::sync::Arc;

use ferrovia_core::cutover::READER_GONE_AFTER_MS;
use ferrovia_store::queue::Lease;
use ferrovia_store::table;

use crate::control::Shared;
use crate::error::Error;

/// A reader that was not heard of for so long is forgotten, in milliseconds: it was taken away and did not say so.
/// The last one of its kind never is.
const FORGET_READER_MS: i64 = 30 * 24 * 3_600_000;

/// One round.
pub(super) async fn prune<E, B>(shared: &Arc<Shared<E, B>>, lease: &Lease) -> Result<(), Error> {
    let now_ms = shared.clock.now_ms();
    let readers = shared.live.readers();
    // A reader that counts as gone gets a snapshot when it comes back.
    let acknowledged = readers
        .readers
        .iter()
        .filter(|reader| {
            reader.connected || now_ms < reader.last_seen_ms.saturating_add(READER_GONE_AFTER_MS)
        })
        .map(|reader| {
            if reader.version.epoch == readers.epoch {
                reader.version.revision
            } else {
                0
            }
        })
        .min();
    let forgotten: Vec<String> = readers
        .readers
        .iter()
        .filter(|reader| !reader.connected && now_ms >= reader.last_seen_ms.saturating_add(FORGET_READER_MS))
        .filter(|reader| {
            let kind = readers
                .readers
                .iter()
                .filter(|other| other.audience == reader.audience);
            kind.map(|other| other.last_seen_ms).max() > Some(reader.last_seen_ms)
        })
        .map(|reader| reader.name.clone())
        .collect();
    let (lease, names) = (lease.clone(), forgotten.clone());
    shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move {
                lease.fence(tx).await?;
                for name in &names {
                    table::delete_reader(tx, name).await?;
                }
                match acknowledged {
                    Some(revision) => table::prune(tx, revision).await,
                    None => Ok(0),
                }
            })
        })
        .await?;
    for name in forgotten {
        shared.live.remove_reader(&name);
    }
    Ok(())
}
