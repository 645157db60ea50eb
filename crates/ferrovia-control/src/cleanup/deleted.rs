//! What was deleted and whose grace period is over: its secrets and its source go for good.
//!
//! The skeleton of rows stays: host names are given once and never move, and numbers are not given again. What makes
//! it final is that nothing of value is left: variables, snapshots, trees, and for a project the key that they were
//! sealed with.

use std::sync::Arc;

use ferrovia_store::queue::Lease;
use ferrovia_store::retention;

use super::GRACE_MS;
use crate::control::Shared;
use crate::error::Error;

/// A source tree that no build used for so long goes, in milliseconds: an upload that was never deployed, or one whose
/// service is gone.
const TREE_UNUSED_MS: i64 = 24 * 3_600_000;

/// One round.
pub(super) async fn finalise<E, B>(shared: &Arc<Shared<E, B>>, lease: &Lease) -> Result<(), Error> {
    let now_ms = shared.clock.now_ms();
    let lease = lease.clone();
    let done = shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move {
                lease.fence(tx).await?;
                let final_before_ms = now_ms.saturating_sub(GRACE_MS);
                let secrets = retention::shred(tx, final_before_ms).await?;
                let unused_since_ms = now_ms.saturating_sub(TREE_UNUSED_MS);
                let trees = retention::drop_trees(tx, unused_since_ms, final_before_ms).await?;
                Ok((secrets, trees))
            })
        })
        .await?;
    if done != (0, 0) {
        tracing::info!(
            secrets = done.0,
            trees = done.1,
            "what was deleted long ago is final now"
        );
    }
    Ok(())
}
