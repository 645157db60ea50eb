//! Waiting for a condition instead of for a time.

use std::time::Duration;

use tokio::time::Instant;

/// Pause between the first looks, in milliseconds; it grows to [`LONGEST_PAUSE_MS`].
const FIRST_PAUSE_MS: u64 = 2;
/// Longest pause between two looks, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 100;

/// Looks until `look` gives `Some`, and returns that; panics with `what` when that takes longer than `within`.
///
/// `wait_for("the replica is healthy", Duration::from_secs(5), async || health().await.ok()).await`; for a plain
/// condition: `async || condition().then_some(())`.
#[track_caller]
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + within;
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if Instant::now() >= deadline {
                panic!("waited {within:?} in vain, at {caller}: {what}");
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        }
    }
}
