//! What is to be looked at: instances of which something was heard, or everything. Pure.
//!
//! Few instances are looked at one by one, at once. Many at a time are cheaper together; but a burst that goes on
//! must not become look at everything after look at everything, so that between two of those there is a pause, in
//! which instances have their turns one by one.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use ferrovia_core::id::InstanceId;
use tokio::time::Instant;

/// Instances that are due above which everything is looked at instead.
const MANY_DUE: usize = 16;
/// Least pause before everything is looked at again because many are due, in milliseconds.
const BURST_PAUSE_MS: u64 = 1_000;

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    everything: bool,
    instances: BTreeSet<InstanceId>,
    /// When a look at everything ended last.
    looked_at_all: Option<Instant>,
}

impl Due {
    /// Anything may have changed.
    pub const fn everything(&mut self) {
        self.everything = true;
    }

    /// Something of this instance may have changed.
    pub fn instance(&mut self, instance: InstanceId) {
        self.instances.insert(instance);
    }

    /// A look at everything has ended.
    pub const fn looked_at_all(&mut self, now: Instant) {
        self.looked_at_all = Some(now);
    }

    /// Whether everything is to be looked at now; it is not due any more then.
    pub fn take_everything(&mut self, now: Instant) -> bool {
        let pause = Duration::from_millis(BURST_PAUSE_MS);
        let has_rested = self.looked_at_all.is_none_or(|ended| now >= ended + pause);
        if has_rested && self.instances.len() > MANY_DUE {
            self.instances.clear();
            self.everything = true;
        }
        std::mem::take(&mut self.everything)
    }

    /// An instance that is to be looked at now, none of those that are looked at already; it is not due any more then.
    pub fn take_instance(&mut self, looking: &HashSet<InstanceId>) -> Option<InstanceId> {
        let next = self
            .instances
            .iter()
            .copied()
            .find(|instance| !looking.contains(instance))?;
        self.instances.remove(&next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn hear(due: &mut Due, count: usize) {
        for number in 0..count {
            due.instance(InstanceId::from_uuid(Uuid::from_u128(number as u128)));
        }
    }

    #[test]
    fn few_are_looked_at_alone_and_many_together() {
        let (mut due, none) = (Due::default(), HashSet::new());
        let now = Instant::now();
        hear(&mut due, MANY_DUE);
        assert!(!due.take_everything(now));
        let one = due.take_instance(&none).unwrap();
        due.instance(one);
        assert_ne!(
            due.take_instance(&HashSet::from([one])),
            Some(one),
            "under way already"
        );
        hear(&mut due, MANY_DUE + 1);
        assert!(due.take_everything(now), "the first burst does not wait");
        assert!(!due.take_everything(now) && due.take_instance(&none).is_none());
    }

    #[test]
    fn a_burst_that_goes_on_looks_at_everything_now_and_then() {
        let (mut due, none) = (Due::default(), HashSet::new());
        let start = Instant::now();
        let mut looks = 0;
        for millisecond in 0..5_000 {
            let now = start + Duration::from_millis(millisecond);
            hear(&mut due, MANY_DUE + 1);
            if due.take_everything(now) {
                looks += 1;
                due.looked_at_all(now);
            } else {
                assert!(due.take_instance(&none).is_some(), "one by one meanwhile");
            }
        }
        assert_eq!(looks, 5);
        due.everything();
        assert!(
            due.take_everything(start + Duration::from_millis(5_000)),
            "what was lost is looked for at once"
        );
    }
}
