//! How many copies: new ones where some are missing, the least useful ones away where there are too many, and the
//! step from healthy into the routes.

use super::replicas::{Pass, Seen, Wanted};
use super::{Change, Phase, Replica};

impl Pass<'_> {
    /// The copies that count towards what is wanted.
    pub(super) fn current(&self, wanted: Wanted) -> Vec<Replica> {
        self.replicas
            .iter()
            .filter(|replica| {
                replica.deployment_id == wanted.deployment
                    && replica.phase.is_alive()
                    && wanted.nonce.is_none_or(|nonce| nonce == replica.restart_nonce)
            })
            .cloned()
            .collect()
    }

    /// Allocates what is missing and takes away what is too much.
    pub(super) fn fill_slots(&mut self, wanted: Wanted) {
        let mut current = self.current(wanted);
        let count = wanted.count as usize;
        if current.len() < count {
            self.allocate(wanted, count - current.len());
            return;
        }
        // What does not serve goes before what serves, what is not healthy before what is, the newest first.
        current.sort_by_key(|replica| {
            (
                replica.phase == Phase::Serving,
                self.is_healthy(replica.id),
                std::cmp::Reverse(replica.ordinal),
            )
        });
        for replica in &current[..current.len() - count] {
            self.leave_service(replica);
        }
    }

    /// New copies get the smallest ordinals that no row of the deployment has: a restart alternates between two, and
    /// no two containers ever want the same name.
    fn allocate(&mut self, wanted: Wanted, missing: usize) {
        let mut taken: Vec<u32> = self
            .replicas
            .iter()
            .filter(|replica| replica.deployment_id == wanted.deployment)
            .map(|replica| replica.ordinal)
            .collect();
        for _ in 0..missing {
            let ordinal = (1..).find(|ordinal| !taken.contains(ordinal)).unwrap_or(u32::MAX);
            taken.push(ordinal);
            self.plan.changes.push(Change::Allocate {
                deployment: wanted.deployment,
                ordinal,
                restart_nonce: self.view.intent.restart_nonce,
            });
        }
    }

    /// Out of the routes if it is in them, else straight to its end.
    pub(super) fn leave_service(&mut self, replica: &Replica) {
        let to = if replica.phase == Phase::Serving {
            Phase::Draining
        } else {
            Phase::Stopping
        };
        self.move_to(replica.id, to, None);
    }

    /// Healthy copies enter the routes: of a deployment that has succeeded each by itself, of one on its way all
    /// together, and all back out when one of them falls.
    pub(super) fn promote(&mut self, wanted: Wanted) {
        let current = self.current(wanted);
        if !wanted.proven {
            let fallen = current
                .iter()
                .any(|replica| replica.phase == Phase::Serving && self.seen(replica.id) == Seen::NotHealthy);
            if fallen {
                for replica in current.iter().filter(|replica| replica.phase == Phase::Serving) {
                    self.move_to(replica.id, Phase::Starting, None);
                }
                return;
            }
            let complete = current.len() == wanted.count as usize
                && current
                    .iter()
                    .all(|replica| replica.phase != Phase::Admitting && self.is_healthy(replica.id));
            if !complete {
                return;
            }
        }
        for replica in current.iter().filter(|replica| replica.phase == Phase::Starting) {
            if let Seen::Healthy(started_at_ms) = self.seen(replica.id) {
                self.move_to(replica.id, Phase::Serving, started_at_ms);
            }
        }
    }
}
