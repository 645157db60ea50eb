//! Where bases come from on this installation: decided once, and kept.
//!
//! The two origins have different default versions, so that a decision that followed every hiccup of the network would
//! change what applications run on. Once a registry has answered, bases are official for good; as long as none has,
//! one is looked for again now and then. A setting decides before all of this.

use std::path::Path;

use ferrovia_core::bases::Origin;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Bases;
use crate::durable;
use crate::fetch::DOCKER_HUB;

/// The file of the decision, in the data directory of bases.
const FILE: &str = "origin.json";
/// A registry that did not answer is asked again after this time, in minutes.
const ASK_AGAIN_MINUTES: i64 = 60;

/// What was decided, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decided {
    /// Whether a registry answered.
    pub(super) official: bool,
    /// When it was asked.
    pub(super) at: Timestamp,
}

impl Decided {
    pub(super) const fn origin(self) -> Origin {
        if self.official {
            Origin::Official
        } else {
            Origin::Made
        }
    }

    /// Whether it need not be asked again.
    fn stands(self, now: Timestamp) -> bool {
        self.official || now.duration_since(self.at) < SignedDuration::from_mins(ASK_AGAIN_MINUTES)
    }
}

/// What was decided last; `None` before the first time.
pub(super) fn read(data_directory: &Path) -> Option<Decided> {
    serde_json::from_slice(&std::fs::read(data_directory.join(FILE)).ok()?).ok()
}

impl Bases {
    /// Where bases come from.
    pub async fn origin(&self) -> Origin {
        if let Some(origin) = self.options.origin {
            return origin;
        }
        let mut known = self.origin.lock().await;
        let now = Timestamp::now();
        if known.is_none() {
            *known = read(&self.options.data_directory);
        }
        if let Some(decided) = known.filter(|decided| decided.stands(now)) {
            return decided.origin();
        }
        let decided = Decided {
            official: self.client.answers(DOCKER_HUB).await,
            at: now,
        };
        if known.is_none_or(|before| before.official != decided.official) {
            tracing::info!(
                official = decided.official,
                "it is decided where base images come from"
            );
        }
        *known = Some(decided);
        if let Err(error) = self.keep_origin(&decided).await {
            tracing::warn!(%error, "where base images come from is asked again after the next start");
        }
        decided.origin()
    }

    async fn keep_origin(&self, decided: &Decided) -> std::io::Result<()> {
        let directory = &self.options.data_directory;
        durable::ensure_directory(directory).await?;
        let text = serde_json::to_vec(decided).unwrap_or_default();
        durable::write(&directory.join(FILE), &text).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_for_good_and_silence_for_a_while() {
        let at = Timestamp::UNIX_EPOCH;
        let later = |minutes| at + SignedDuration::from_mins(minutes);
        let decided = |official| Decided { official, at };
        assert!(decided(true).stands(later(1_000_000)));
        assert!(decided(false).stands(later(ASK_AGAIN_MINUTES - 1)));
        assert!(!decided(false).stands(later(ASK_AGAIN_MINUTES)));
    }
}
