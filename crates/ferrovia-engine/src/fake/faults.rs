//! What goes wrong in a fake engine, and when: rules over calls, decided by count or by a seeded chance.
//!
//! A call of the trait is one step; `apply` and `prepare` have further steps inside, one for each create and start,
//! as a real engine has. Every step can fail before or after its effect, so that a test which fails step 0, 1, … n
//! meets every state that a killed caller can leave behind.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// A step that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `Engine::info`.
    Info,
    /// `Engine::find_image`.
    FindImage,
    /// `Engine::ensure_image`.
    EnsureImage,
    /// `Engine::images`.
    Images,
    /// `Engine::remove_image`.
    RemoveImage,
    /// `Engine::apply` as a whole.
    Apply,
    /// `Engine::prepare` as a whole.
    Prepare,
    /// The making of one replica inside `apply` and `prepare`.
    Create,
    /// `Engine::observe`.
    Observe,
    /// `Engine::find`.
    Find,
    /// `Engine::start`, and the start of one replica inside `apply`.
    Start,
    /// `Engine::set_restart`.
    SetRestart,
    /// `Engine::stop`.
    Stop,
    /// `Engine::remove`.
    Remove,
    /// `Engine::events`.
    Events,
    /// `Engine::stats`.
    Stats,
    /// `Engine::log_file`.
    LogFile,
    /// `Engine::process_id`.
    ProcessId,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Info,
        Self::FindImage,
        Self::EnsureImage,
        Self::Images,
        Self::RemoveImage,
        Self::Apply,
        Self::Prepare,
        Self::Create,
        Self::Observe,
        Self::Find,
        Self::Start,
        Self::SetRestart,
        Self::Stop,
        Self::Remove,
        Self::Events,
        Self::Stats,
        Self::LogFile,
        Self::ProcessId,
    ];

    /// The word in error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::FindImage => "find image",
            Self::EnsureImage => "ensure image",
            Self::Images => "images",
            Self::RemoveImage => "remove image",
            Self::Apply => "apply",
            Self::Prepare => "prepare",
            Self::Create => "create",
            Self::Observe => "observe",
            Self::Find => "find",
            Self::Start => "start",
            Self::SetRestart => "set restart",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::Events => "events",
            Self::Stats => "stats",
            Self::LogFile => "log file",
            Self::ProcessId => "process id",
        }
    }
}

/// Everything that goes wrong.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// For calls; the first rule that fits counts.
    pub rules: Vec<Rule>,
    /// For hints.
    pub events: EventFaults,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which step; none: every one.
    pub call: Option<Call>,
    /// Which of these steps.
    pub when: When,
    /// What happens.
    pub fault: Fault,
}

/// Which of the steps that a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// All.
    Always,
    /// The n-th since the script was set, from 0.
    Nth(u64),
    /// With this chance, 0 to 1, from the seed.
    Chance(f64),
}

/// What happens to a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The engine does not answer; nothing happened.
    Unavailable,
    /// The engine refuses with these words; nothing happened.
    Refuse(String),
    /// It happens, but the answer is lost.
    LoseAnswer,
    /// It does not happen, and the answer is lost all the same.
    LoseCall,
    /// It happens after this many milliseconds.
    Delay(u64),
    /// The caller dies before it happens: the call, and every later one until the engine is told of a new caller,
    /// never ends.
    KillBefore,
    /// The caller dies after it happened.
    KillAfter,
}

/// What goes wrong with hints: chances, 0 to 1, from the seed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFaults {
    /// It is not sent.
    pub lose: f64,
    /// It is sent twice.
    pub duplicate: f64,
    /// It is sent after the next one.
    pub reorder: f64,
}

/// A script at work: counts, and its chances.
pub(super) struct Faults {
    script: Script,
    /// Steps that fitted each rule so far.
    fitted: Vec<u64>,
    counts: BTreeMap<Call, u64>,
    steps: u64,
    chances: StdRng,
}

impl Faults {
    pub(super) fn new(script: Script, seed: u64) -> Self {
        Self {
            fitted: vec![0; script.rules.len()],
            script,
            counts: BTreeMap::new(),
            steps: 0,
            chances: StdRng::seed_from_u64(seed ^ 0x6661_756c_7473),
        }
    }

    /// Puts another script in place; counting starts again.
    pub(super) fn replace(&mut self, script: Script) {
        self.fitted = vec![0; script.rules.len()];
        self.script = script;
        self.counts.clear();
        self.steps = 0;
    }

    /// Steps since the script was set.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps of one kind since the script was set.
    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts.get(&call).copied().unwrap_or(0)
    }

    /// Counts a step and says what goes wrong with it.
    pub(super) fn decide(&mut self, call: Call) -> Option<Fault> {
        self.steps += 1;
        *self.counts.entry(call).or_default() += 1;
        let mut decided = None;
        for (rule, fitted) in self.script.rules.iter().zip(&mut self.fitted) {
            if rule.call.is_some_and(|wanted| wanted != call) {
                continue;
            }
            let place = *fitted;
            *fitted += 1;
            let hit = match rule.when {
                When::Always => true,
                When::Nth(nth) => place == nth,
                When::Chance(chance) => self.chances.random_bool(chance.clamp(0.0, 1.0)),
            };
            if hit && decided.is_none() {
                decided = Some(rule.fault.clone());
            }
        }
        decided
    }

    /// What is sent now of the hints that are due; `held` keeps those that come after the next.
    pub(super) fn pass<T: Copy>(&mut self, due: Vec<T>, held: &mut Vec<T>) -> Vec<T> {
        let EventFaults {
            lose,
            duplicate,
            reorder,
        } = self.script.events;
        let mut sent = Vec::new();
        for hint in due {
            if self.chances.random_bool(lose.clamp(0.0, 1.0)) {
                continue;
            }
            if self.chances.random_bool(reorder.clamp(0.0, 1.0)) {
                held.push(hint);
                continue;
            }
            sent.push(hint);
            if self.chances.random_bool(duplicate.clamp(0.0, 1.0)) {
                sent.push(hint);
            }
            sent.append(held);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(call: Option<Call>, when: When, fault: Fault) -> Rule {
        Rule { call, when, fault }
    }

    #[test]
    fn counts_are_per_rule() {
        let rules = vec![
            rule(Some(Call::Start), When::Nth(1), Fault::Unavailable),
            rule(None, When::Nth(3), Fault::LoseAnswer),
        ];
        let mut faults = Faults::new(
            Script {
                rules,
                ..Script::default()
            },
            1,
        );
        assert_eq!(faults.decide(Call::Create), None);
        assert_eq!(faults.decide(Call::Start), None);
        assert_eq!(faults.decide(Call::Start), Some(Fault::Unavailable));
        assert_eq!(faults.decide(Call::Stop), Some(Fault::LoseAnswer));
        assert_eq!((faults.steps(), faults.count(Call::Start)), (4, 2));
    }

    #[test]
    fn the_same_seed_has_the_same_chances() {
        let run = |seed| {
            let rules = vec![rule(None, When::Chance(0.5), Fault::Unavailable)];
            let mut faults = Faults::new(
                Script {
                    rules,
                    ..Script::default()
                },
                seed,
            );
            (0..64)
                .map(|_| faults.decide(Call::Find).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_reordered_hint_comes_after_the_next() {
        let events = EventFaults {
            reorder: 1.0,
            ..EventFaults::default()
        };
        let mut faults = Faults::new(
            Script {
                events,
                rules: vec![],
            },
            1,
        );
        let mut held = Vec::new();
        assert!(faults.pass(vec![1], &mut held).is_empty());
        faults.replace(Script::default());
        assert_eq!(faults.pass(vec![2], &mut held), vec![2, 1]);
    }
}
