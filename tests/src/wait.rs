//! Waiting for a condition, with a deadline and what was seen last.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::Failure;

/// Pause between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;

/// Asks until the answer is `Ok`; past the deadline, fails with the last `Err`.
///
/// # Errors
/// The last thing seen, with the name of what was waited for.
pub async fn wait_for<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T, Failure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > end => {
                return Err(format!(
                    "{what} did not happen in {} s; last seen: {seen}",
                    deadline.as_secs()
                )
                .into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await,
        }
    }
}
