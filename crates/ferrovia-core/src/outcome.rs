//! How an attempt ended (the outcome) and what is seen of what runs (the state): two truths, never one column.

use serde::{Deserialize, Serialize};

/// How far an attempt to run an instance has come, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted; nothing has been done.
    Queued,
    /// Its image is being built or fetched.
    Building,
    /// Its replicas are being started and taken into the tables.
    Deploying,
    /// Healthy, and every live edge and node has said that it serves it.
    Succeeded,
    /// It ended without success; the reason says why.
    Failed,
    /// Somebody stopped it before its end.
    Cancelled,
    /// A newer attempt took its place before its end.
    Superseded,
}

/// A step that the life of a deployment does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a deployment that is {from:?} cannot become {to:?}")]
pub struct OutcomeStepError {
    /// Where it was.
    pub from: Outcome,
    /// Where it should have gone.
    pub to: Outcome,
}

impl Outcome {
    /// Every outcome, for tests that must cover all of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Building,
        Self::Deploying,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Superseded
        )
    }

    /// The one place where the steps of a deployment's life are written.
    ///
    /// # Errors
    /// [`OutcomeStepError`] when there is no such step; staying is not a step.
    pub const fn step(self, to: Self) -> Result<Self, OutcomeStepError> {
        let allowed = match (self, to) {
            (Self::Queued, Self::Building | Self::Deploying) | (Self::Building, Self::Deploying) => true,
            (Self::Deploying, Self::Succeeded) => true,
            (from, Self::Failed | Self::Cancelled | Self::Superseded) => !from.is_final(),
            _ => false,
        };
        if allowed {
            Ok(to)
        } else {
            Err(OutcomeStepError { from: self, to })
        }
    }

    /// The word used in the database, the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Deploying => "deploying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// The outcome of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// How long the steps of a deployment took, in milliseconds; `None` while not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Durations {
    /// Sending the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<u64>,
    /// Waiting for its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Making the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<u64>,
    /// From the image to every edge and node serving it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<u64>,
    /// Everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// What was last observed of an instance or a deployment; always kept with the time of observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its replicas run and have not yet answered.
    Starting,
    /// Every wanted replica answers.
    Healthy,
    /// A replica that is in the routes does not answer as it should, or is down.
    Unhealthy,
    /// A replica ends again and again.
    CrashLooping,
    /// Put to sleep; the next request wakes it.
    Sleeping,
    /// No replica is wanted, or none runs.
    Stopped,
    /// Nothing has been heard for too long.
    Unknown,
}

impl State {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::CrashLooping => "crash_looping",
            Self::Sleeping => "sleeping",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_final_outcome() {
        for from in Outcome::ALL.into_iter().filter(|outcome| outcome.is_final()) {
            for to in Outcome::ALL {
                assert!(from.step(to).is_err(), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_attempt_can_end_from_every_step() {
        for from in [Outcome::Queued, Outcome::Building, Outcome::Deploying] {
            for to in [Outcome::Failed, Outcome::Cancelled, Outcome::Superseded] {
                assert_eq!(from.step(to), Ok(to));
            }
        }
        assert!(Outcome::Queued.step(Outcome::Succeeded).is_err());
    }

    #[test]
    fn words_lead_back() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_word(outcome.as_str()), Some(outcome));
        }
    }
}
