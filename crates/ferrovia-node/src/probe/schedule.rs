//! When to probe again, and what the results say. Pure.
//!
//! A start is probed at once and every 25 ms for two seconds, because a deploy waits for it; then more and more
//! slowly, because it takes long anyway. What is healthy is looked at every few seconds, and more often once it
//! failed. Three failures in a row make it unhealthy, one success healthy: requests do the rest, since the edge meets
//! a dead replica before any probe does.

use ferrovia_core::observation::Health;

/// Pause between probes in the first [`EAGER_MS`] of a run, in milliseconds.
const EAGER_PAUSE_MS: i64 = 25;
/// How long a start is probed eagerly, in milliseconds.
const EAGER_MS: i64 = 2_000;
/// After that a pause is this part of the time since the start.
const STARTING_PART: i64 = 40;
/// Longest pause while starting, in milliseconds.
const STARTING_PAUSE_MS: i64 = 1_000;
/// Pause while healthy, in milliseconds.
const HEALTHY_PAUSE_MS: i64 = 5_000;
/// Replicas beyond which the pause while healthy grows: at most 50 probes a second.
const HEALTHY_PAUSE_PER_REPLICA_MS: i64 = 20;
/// Pause after a failure, and while unhealthy, in milliseconds.
const DOUBT_PAUSE_MS: i64 = 1_000;
/// Failures in a row that make unhealthy.
const FAILURES: u32 = 3;
/// A pause while healthy varies by this part, so that probes spread.
const JITTER_PART: i64 = 5;

/// What one probe met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as it should.
    Good,
    /// It did not, in a few words.
    Bad(String),
}

/// The state of one run's probes.
#[derive(Debug, Clone)]
pub struct Schedule {
    began_ms: i64,
    health: Health,
    failures: u32,
}

impl Schedule {
    /// For a run that is first probed at this time.
    pub const fn new(now_ms: i64) -> Self {
        Self {
            began_ms: now_ms,
            health: Health::Starting { last: None },
            failures: 0,
        }
    }

    /// Takes a result.
    pub fn take(&mut self, outcome: Outcome, now_ms: i64) {
        match outcome {
            Outcome::Good => {
                self.failures = 0;
                if !self.health.is_healthy() {
                    self.health = Health::Healthy { since_ms: now_ms };
                }
            }
            Outcome::Bad(why) => {
                self.failures = self.failures.saturating_add(1);
                match self.health {
                    Health::Healthy { .. } if self.failures < FAILURES => {}
                    Health::Healthy { .. } | Health::Unhealthy { .. } => {
                        self.health = Health::Unhealthy { why }
                    }
                    Health::Starting { .. } | Health::Down => {
                        self.health = Health::Starting { last: Some(why) }
                    }
                }
            }
        }
    }

    /// What the probes say.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Pause until the next probe, in milliseconds. `replicas` are probed in all; `random` is any number.
    pub fn pause_ms(&self, now_ms: i64, replicas: usize, random: u32) -> u64 {
        let pause = match self.health {
            Health::Starting { .. } | Health::Down => match now_ms - self.began_ms {
                elapsed if elapsed < EAGER_MS => EAGER_PAUSE_MS,
                elapsed => (elapsed / STARTING_PART).clamp(EAGER_PAUSE_MS, STARTING_PAUSE_MS),
            },
            Health::Healthy { .. } if self.failures == 0 => {
                let replicas = i64::try_from(replicas).unwrap_or(i64::MAX);
                let pause = HEALTHY_PAUSE_MS.max(replicas.saturating_mul(HEALTHY_PAUSE_PER_REPLICA_MS));
                pause - pause / JITTER_PART + i64::from(random) % (2 * pause / JITTER_PART)
            }
            Health::Healthy { .. } | Health::Unhealthy { .. } => DOUBT_PAUSE_MS,
        };
        pause.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bad() -> Outcome {
        Outcome::Bad("connection refused".to_owned())
    }

    #[test]
    fn a_start_is_probed_eagerly_then_slowly() {
        let mut schedule = Schedule::new(0);
        schedule.take(bad(), 0);
        let pauses: Vec<u64> = [0, 1_999, 2_000, 8_000, 60_000]
            .iter()
            .map(|now| schedule.pause_ms(*now, 1, 0))
            .collect();
        assert_eq!(pauses, [25, 25, 50, 200, 1_000]);
    }

    #[test]
    fn three_failures_make_unhealthy_and_one_success_healthy() {
        let mut schedule = Schedule::new(0);
        schedule.take(Outcome::Good, 7);
        for _ in 0..2 {
            schedule.take(bad(), 9);
            assert_eq!(*schedule.health(), Health::Healthy { since_ms: 7 });
            assert_eq!(schedule.pause_ms(9, 1, 0), 1_000);
        }
        schedule.take(bad(), 10);
        assert!(matches!(schedule.health(), Health::Unhealthy { .. }));
        schedule.take(Outcome::Good, 11);
        assert_eq!(*schedule.health(), Health::Healthy { since_ms: 11 });
    }

    proptest! {
        #[test]
        fn pauses_are_bounded(results in proptest::collection::vec((any::<bool>(), 0..100_000_i64), 0..50), replicas in 0..2_000_usize, random: u32) {
            let mut schedule = Schedule::new(0);
            let mut now = 0;
            for (good, later) in results {
                now += later;
                schedule.take(if good { Outcome::Good } else { bad() }, now);
                let pause = schedule.pause_ms(now, replicas, random);
                prop_assert!((25..=50_000).contains(&pause));
            }
        }
    }
}
