//! Clean-up: what nothing refers to goes away, each kind in a rhythm of its own.
//!
//! Rows decide; what lies on disk, in the registry and on the engine follows them. Every step may be cut short and is
//! then done again: nothing is forgotten, because rows go last.

mod deleted;
mod images;
mod logs;
mod tables;

use std::sync::Arc;

use ferrovia_build::Builder;
use ferrovia_engine::Engine;
use ferrovia_store::idempotency;
use ferrovia_store::queue::{Lease, Outcome};

use crate::control::Shared;
use crate::error::Error;

/// Everything that is cleaned up, by the key of its work.
pub(crate) const KEYS: [&str; 6] = ["deleted", "idempotency", "images", "logs", "sweeps", "tables"];
/// Nothing is cleaned up before control has run for so long, in milliseconds: it has better things to do.
pub(crate) const FIRST_AFTER_MS: u64 = 60_000;

/// How long a deleted thing can be brought back, in milliseconds: seven days.
pub const GRACE_MS: i64 = 7 * 24 * 3_600_000;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 3_600_000;
/// Rows that one transaction takes away.
const CHUNK: u32 = 1_000;

/// One round of the kind that the lease names.
pub(crate) async fn reconcile<E: Engine + 'static, B: Builder + 'static>(
    shared: &Arc<Shared<E, B>>,
    lease: &Lease,
) -> Result<Outcome, Error> {
    let after_ms = match lease.key.as_str() {
        "deleted" => {
            deleted::finalise(shared, lease).await?;
            HOUR_MS
        }
        "idempotency" => {
            forget_answers(shared, lease).await?;
            HOUR_MS
        }
        "images" => {
            images::clean(shared, lease).await?;
            10 * MINUTE_MS
        }
        "logs" => {
            logs::clean(shared).await?;
            HOUR_MS
        }
        "sweeps" => {
            sweep(shared).await;
            HOUR_MS
        }
        "tables" => {
            tables::prune(shared, lease).await?;
            MINUTE_MS
        }
        _ => return Ok(Outcome::Done),
    };
    Ok(Outcome::Again { after_ms })
}

async fn forget_answers<E, B>(shared: &Shared<E, B>, lease: &Lease) -> Result<(), Error> {
    let now_ms = shared.clock.now_ms();
    loop {
        let lease = lease.clone();
        let gone = shared
            .db
            .tx::<_, ferrovia_store::Error>(move |tx| {
                Box::pin(async move {
                    lease.fence(tx).await?;
                    idempotency::forget_old(tx, now_ms, CHUNK).await
                })
            })
            .await?;
        if gone < u64::from(CHUNK) {
            return Ok(());
        }
    }
}

/// Sweeps everything that others keep on disk; one that fails does not keep the others from it.
async fn sweep<E, B>(shared: &Shared<E, B>) {
    for sweep in &shared.sweeps {
        match sweep.sweep().await {
            Ok(done) => tracing::info!(what = sweep.name(), "swept: {done}"),
            Err(error) => tracing::warn!(what = sweep.name(), "could not be swept: {error}"),
        }
    }
}
