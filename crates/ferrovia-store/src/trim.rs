//! Closes connections that the pool does not need.
//!
//! The pool gives out the connection that was unused longest, so that a look at the queue now and then keeps every
//! connection that a burst has opened from ever being idle long enough for the pool's own timeout. Each costs the server
//! some megabytes. So the most that were in use at once are counted, and what is open beyond that is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::PgPool;

/// The most connections that were in use at once since the last look. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peak(Arc<AtomicU32>);

impl Peak {
    /// A connection was just taken out of the pool.
    pub(crate) fn note(&self, pool: &PgPool) {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        self.0
            .fetch_max(pool.size().saturating_sub(idle), Ordering::Relaxed);
    }

    /// Trims the pool once every `period`, until the last clone is gone.
    pub(crate) fn keep_trimmed(&self, pool: &PgPool, period: Duration) {
        let (peak, pool) = (Arc::downgrade(&self.0), pool.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(peak) = peak.upgrade() else { return };
                if pool.is_closed() {
                    return;
                }
                let surplus = pool.size().saturating_sub(peak.swap(0, Ordering::Relaxed));
                for _ in 0..surplus {
                    let Some(conn) = pool.try_acquire() else { break };
                    // One that cannot be closed in order is closed all the same.
                    let _ = conn.close().await;
                }
            }
        });
    }
}
