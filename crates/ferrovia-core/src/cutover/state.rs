//! What is seen of an instance, in one word, with the time it was seen.

use super::{Phase, Replica, Waiting};
use crate::intent::Intent;
use crate::observation::{Health, Observation};
use crate::outcome::State;
use crate::settings::START_TRIES;

/// An instance's state is unknown when its node has been away for so long, in milliseconds.
pub const STATE_STALE_MS: i64 = 30_000;

/// The observed state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The word.
    pub state: State,
    /// When the newest observation behind it was made, in milliseconds since 1970; `None` where nothing had to be seen.
    pub seen_at_ms: Option<i64>,
    /// How many copies answer.
    pub healthy: u32,
}

/// The state of an instance, from its intent, its replica rows and what nodes say. `node_seen_ms` is when the node
/// was last heard (now, while it is connected).
pub fn standing(
    intent: &Intent,
    replicas: &[Replica],
    observations: &[Observation],
    node_seen_ms: i64,
    now_ms: i64,
) -> Standing {
    let alive: Vec<&Replica> = replicas
        .iter()
        .filter(|replica| replica.phase.is_alive())
        .collect();
    let seen: Vec<&Observation> = alive
        .iter()
        .filter_map(|replica| {
            observations
                .iter()
                .filter(|seen| seen.replica_id == replica.id)
                .max_by_key(|seen| seen.seen_at_ms)
        })
        .collect();
    let is_of_target = |seen: &&&Observation| intent.target.is_none_or(|target| seen.deployment_id == target);
    let healthy = seen
        .iter()
        .filter(is_of_target)
        .filter(|seen| seen.health.is_healthy())
        .count();
    let state = if intent.asleep {
        State::Sleeping
    } else if alive.is_empty() {
        match intent.target {
            Some(_) if intent.replicas > 0 => State::Starting,
            _ => State::Stopped,
        }
    } else if now_ms.saturating_sub(node_seen_ms) > STATE_STALE_MS {
        State::Unknown
    } else if seen
        .iter()
        .filter(is_of_target)
        .any(|seen| !seen.health.is_healthy() && seen.crashes >= START_TRIES)
    {
        State::CrashLooping
    } else if healthy > 0 && healthy >= intent.replicas as usize {
        State::Healthy
    } else if alive.iter().any(|replica| replica.phase == Phase::Serving)
        && seen
            .iter()
            .filter(is_of_target)
            .any(|seen| matches!(seen.health, Health::Unhealthy { .. } | Health::Down))
    {
        State::Unhealthy
    } else {
        State::Starting
    };
    Standing {
        state,
        seen_at_ms: seen.iter().map(|seen| seen.seen_at_ms).max(),
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
    }
}

impl Waiting {
    /// The wait in a few words, for people.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Held => "held by an operator",
            Self::Engine => "the engine does not answer",
            Self::Image(_) => "fetching the image",
            Self::Admission(_) => "waiting for nodes to learn the address",
            Self::Health(_) => "waiting for the application to answer",
            Self::Acknowledgement(_) => "waiting for edges and nodes to take the routes",
            Self::Drain(_) => "waiting for requests in flight to end",
            Self::Exit(_) => "waiting for the process to end",
            Self::Log(_) => "waiting for the log to be read to its end",
            Self::Address(_) => "waiting for edges and nodes to forget the address",
        }
    }
}
