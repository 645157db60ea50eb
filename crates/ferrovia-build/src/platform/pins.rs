//! Digests that tags of Dockerfiles led to a moment ago: a deploy after the other does not ask the registry again, and one
//! that does not answer is not waited for each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::digest::Digest;
use crate::fetch::{Client, ImageName};

/// How long a digest stands for a tag, in seconds.
const FOUND_S: u64 = 600;
/// How long a registry that did not answer is not asked again for an image, in seconds.
const MISSED_S: u64 = 60;
/// How long a lookup may take, in milliseconds.
const LOOKUP_TIMEOUT_MS: u64 = 10_000;
/// Most tags that are remembered.
const MAX_PINS: usize = 512;

/// What was found of each tag, and when.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<String, (Instant, Option<Digest>)>>);

impl Pins {
    /// The digest of an image; `None` when its registry does not give one.
    pub(super) async fn digest(&self, client: &Client, name: &ImageName) -> Option<Digest> {
        let text = name.to_string();
        if let Some(known) = self.known(&text, Instant::now()) {
            return known;
        }
        let limit = Duration::from_millis(LOOKUP_TIMEOUT_MS);
        let found = match tokio::time::timeout(limit, client.resolve(name)).await {
            Ok(Ok(resolved)) => Some(resolved.digest),
            Ok(Err(error)) => {
                tracing::debug!(image = text, %error, "an image of a Dockerfile is not pinned");
                None
            }
            Err(_) => None,
        };
        self.remember(text, found, Instant::now());
        found
    }

    fn known(&self, text: &str, now: Instant) -> Option<Option<Digest>> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.get(text).filter(|pin| stands(pin, now)).map(|pin| pin.1)
    }

    fn remember(&self, text: String, found: Option<Digest>, now: Instant) {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.len() >= MAX_PINS {
            pins.retain(|_, pin| stands(pin, now));
        }
        if pins.len() >= MAX_PINS {
            pins.clear();
        }
        pins.insert(text, (now, found));
    }
}

fn stands((at, found): &(Instant, Option<Digest>), now: Instant) -> bool {
    let stands_s = if found.is_some() { FOUND_S } else { MISSED_S };
    now.duration_since(*at) < Duration::from_secs(stands_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_known_longer_than_what_was_not() {
        let (pins, now) = (Pins::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        pins.remember("a".into(), Some(Digest::of(b"a")), now);
        pins.remember("b".into(), None, now);
        assert_eq!(pins.known("a", later(FOUND_S - 1)), Some(Some(Digest::of(b"a"))));
        assert_eq!(pins.known("a", later(FOUND_S)), None);
        assert_eq!(pins.known("b", later(MISSED_S - 1)), Some(None));
        assert_eq!(pins.known("b", later(MISSED_S)), None);
        for number in 0..2 * MAX_PINS {
            pins.remember(number.to_string(), None, now);
        }
        assert!(pins.0.lock().unwrap().len() <= MAX_PINS);
    }
}
