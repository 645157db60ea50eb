//! The deployment on its way: whether it has succeeded, has failed, or waits, and until when.

use super::failure;
use super::replicas::Pass;
use super::{
    Change, IMAGE_TRIES, ImageStanding, LAST_WORDS_MS, Phase, Problem, ROOT_ANSWER_MS, Replica, Waiting,
};
use crate::error::Report;
use crate::id::{DeploymentId, ReplicaId};
use crate::observation::Health;
use crate::outcome::Outcome;
use crate::settings::START_TRIES;
use crate::workload::{Exit, Observed, ReplicaStatus};

impl Pass<'_> {
    pub(super) fn judge(&mut self, candidate: DeploymentId) {
        let Some(wanted) = self.wanted(Some(candidate))[1] else {
            return;
        };
        let Some(attempt) = self.attempt(candidate).cloned() else {
            return;
        };
        let current = self.current(wanted);
        if let Some((exit, replica)) = self.given_up(&current) {
            return match self.last_words_ready(replica, &exit) {
                Ok(()) => {
                    let report = failure::ended(&exit, START_TRIES, &attempt.settings);
                    self.fail(candidate, report, Some(replica));
                }
                Err(until_ms) => {
                    self.waits(Waiting::Log(replica));
                    self.wake_at(until_ms);
                }
            };
        }
        if let Some(why) = self.refused(&current) {
            return self.fail(candidate, failure::cannot_start(&why), None);
        }
        if let ImageStanding::Failed { why, tries, .. } = &attempt.image
            && *tries >= IMAGE_TRIES
        {
            return self.fail(candidate, failure::image(why), None);
        }
        if current.len() == wanted.count as usize
            && current
                .iter()
                .all(|replica| replica.phase == Phase::Serving && self.is_healthy(replica.id))
        {
            let revision = current
                .iter()
                .map(|replica| replica.phase_revision)
                .max()
                .unwrap_or(0);
            if self.view.readers.all_live_cover(revision) {
                match self.root_answered(
                    &current,
                    attempt.port.is_some() && attempt.settings.health_path.is_none(),
                ) {
                    Ok(warnings) => {
                        self.plan.changes.push(Change::Succeed {
                            deployment: candidate,
                            warnings,
                        });
                        self.target = Some(candidate);
                        if let Some(attempt) =
                            self.attempts.iter_mut().find(|attempt| attempt.id == candidate)
                        {
                            attempt.outcome = Outcome::Succeeded;
                        }
                        return;
                    }
                    Err(until_ms) => self.wake_at(until_ms),
                }
            }
            self.waits(Waiting::Acknowledgement(candidate));
        }
        let started_ms = attempt.deploy_started_ms.unwrap_or(self.view.now_ms);
        let deadline_ms = started_ms.saturating_add(i64::from(attempt.settings.start_deadline_ms));
        if self.view.now_ms < deadline_ms {
            return self.wake_at(deadline_ms);
        }
        let (report, last_words_of) = self.why_late(&current, &attempt);
        self.fail(candidate, report, last_words_of);
    }

    fn fail(&mut self, deployment: DeploymentId, report: Report, last_words_of: Option<ReplicaId>) {
        self.end(deployment, Outcome::Failed, report);
        if let Some(Change::End {
            last_words_of: words, ..
        }) = self.plan.changes.last_mut()
        {
            *words = last_words_of;
        }
    }

    fn exit_of(&self, id: ReplicaId) -> Option<(&Observed, &Exit)> {
        let container = self.container(id)?;
        match &container.status {
            ReplicaStatus::Exited(exit) => Some((container, exit)),
            _ => None,
        }
    }

    /// A copy that ended once more after its last restart.
    fn given_up(&self, current: &[Replica]) -> Option<(Exit, ReplicaId)> {
        current.iter().find_map(|replica| {
            let (_, exit) = self.exit_of(replica.id)?;
            (replica.tries >= START_TRIES && replica.next_try_ms.is_none())
                .then(|| (exit.clone(), replica.id))
        })
    }

    /// Whether the log of a crashed replica was read to its end; `Err` gives the time until which that is waited for.
    fn last_words_ready(&self, replica: ReplicaId, exit: &Exit) -> Result<(), i64> {
        let until_ms = exit.at_ms.saturating_add(LAST_WORDS_MS);
        let drained = self
            .container(replica)
            .is_some_and(|container| self.is_log_drained(container));
        if drained || self.view.now_ms >= until_ms {
            Ok(())
        } else {
            Err(until_ms)
        }
    }

    fn engine_problem(&self) -> Option<&str> {
        self.view.problems.iter().find_map(|problem| match problem {
            Problem::Engine { why } => Some(why.as_str()),
            Problem::CannotStart { .. } => None,
        })
    }

    fn refused(&self, current: &[Replica]) -> Option<String> {
        self.view.problems.iter().find_map(|problem| match problem {
            Problem::CannotStart { replica, why, .. } if current.iter().any(|row| row.id == *replica) => {
                Some(why.clone())
            }
            _ => None,
        })
    }

    /// The warnings of a success; `Err` gives the time until which the answer to `GET /` is waited for.
    fn root_answered(&self, current: &[Replica], tcp_probe: bool) -> Result<Vec<Report>, i64> {
        if !tcp_probe {
            return Ok(Vec::new());
        }
        let mut warnings = Vec::new();
        for replica in current {
            let Some(seen) = self
                .container(replica.id)
                .and_then(|container| self.observation(container))
            else {
                continue;
            };
            match (seen.root_status, &seen.health) {
                (Some(status), _) if status >= 500 => warnings.push(failure::root_answers(status)),
                (None, Health::Healthy { since_ms }) => {
                    let until_ms = since_ms.saturating_add(ROOT_ANSWER_MS);
                    if self.view.now_ms < until_ms {
                        return Err(until_ms);
                    }
                }
                _ => {}
            }
        }
        warnings.truncate(1);
        Ok(warnings)
    }

    /// Why the deadline passed: the first thing in the order of the steps that is not as it should be.
    fn why_late(&self, current: &[Replica], attempt: &super::Attempt) -> (Report, Option<ReplicaId>) {
        let seconds = attempt.settings.start_deadline_ms / 1_000;
        if self.view.containers.is_none() {
            return (failure::engine(self.engine_problem(), seconds), None);
        }
        if current.is_empty() {
            return (failure::engine(self.engine_problem(), seconds), None);
        }
        if current.iter().any(|replica| replica.phase == Phase::Admitting) {
            return (failure::not_acknowledged(&self.view.readers, seconds), None);
        }
        for replica in current {
            let Some(container) = self.container(replica.id) else {
                let why = match &attempt.image {
                    ImageStanding::Ready => self.engine_problem(),
                    ImageStanding::Failed { why, .. } => return (failure::image(why), None),
                    ImageStanding::Unknown | ImageStanding::Fetching => {
                        return (failure::image_slow(seconds), None);
                    }
                };
                return (failure::engine(why, seconds), None);
            };
            if let ReplicaStatus::Exited(exit) = &container.status {
                let report = failure::ended(exit, replica.tries, &attempt.settings);
                return (report, Some(replica.id));
            }
            if self.is_healthy(replica.id) {
                continue;
            }
            // It runs again, and what it died of is why it was not in time.
            if let Some(exit) = &container.last_exit {
                let report = failure::ended(exit, replica.tries, &attempt.settings);
                return (report, Some(replica.id));
            }
            let report = match self.observation(container) {
                Some(seen) => failure::not_healthy(seen, attempt, replica.address, seconds),
                None => failure::unseen(seconds),
            };
            return (report, Some(replica.id));
        }
        (failure::not_acknowledged(&self.view.readers, seconds), None)
    }
}
