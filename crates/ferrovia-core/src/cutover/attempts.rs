//! Outcomes of deployments that have not ended: which one goes on, which ones end, and why.

use super::replicas::Pass;
use super::{BuildStanding, Change};
use crate::error::Report;
use crate::id::DeploymentId;
use crate::outcome::Outcome;

impl Pass<'_> {
    /// Walks from the newest deployment to the oldest. Afterwards at most one is `deploying`: the candidate.
    pub(super) fn decide_attempts(&mut self) {
        let mut order: Vec<usize> = (0..self.attempts.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.attempts[index].number));
        let mut newer: Option<u32> = None;
        let mut newer_deploying: Option<u32> = None;
        for index in order {
            let attempt = &self.attempts[index];
            let (id, number) = (attempt.id, attempt.number);
            match attempt.outcome {
                Outcome::Succeeded => {
                    newer = newer.or(Some(number));
                    newer_deploying = newer_deploying.or(Some(number));
                    continue;
                }
                Outcome::Failed | Outcome::Cancelled | Outcome::Superseded => continue,
                Outcome::Queued | Outcome::Building | Outcome::Deploying => {}
            }
            if self.view.deleted || attempt.cancel_requested {
                self.end(id, Outcome::Cancelled, cancelled(self.view.deleted));
                continue;
            }
            let overtaken_by = if attempt.outcome == Outcome::Deploying {
                newer_deploying
            } else {
                newer
            };
            if let Some(by) = overtaken_by {
                self.end(id, Outcome::Superseded, superseded(by));
                continue;
            }
            if attempt.outcome != Outcome::Deploying {
                match attempt.build.clone() {
                    BuildStanding::Failed(report) => {
                        self.end(id, Outcome::Failed, report);
                        continue;
                    }
                    BuildStanding::Cancelled => {
                        self.end(id, Outcome::Cancelled, cancelled(false));
                        continue;
                    }
                    BuildStanding::Waiting => {}
                    BuildStanding::Running => {
                        if attempt.outcome == Outcome::Queued {
                            self.plan.changes.push(Change::Building(id));
                            self.attempts[index].outcome = Outcome::Building;
                        }
                    }
                    BuildStanding::Succeeded if self.view.intent.held => {}
                    BuildStanding::Succeeded => {
                        self.plan.changes.push(Change::Begin(id));
                        self.attempts[index].outcome = Outcome::Deploying;
                        self.attempts[index].deploy_started_ms = Some(self.view.now_ms);
                    }
                }
            }
            newer = newer.or(Some(number));
            if self.attempts[index].outcome == Outcome::Deploying {
                newer_deploying = newer_deploying.or(Some(number));
            }
        }
    }

    /// Ends a deployment without success.
    pub(super) fn end(&mut self, deployment: DeploymentId, outcome: Outcome, report: Report) {
        self.plan.changes.push(Change::End {
            deployment,
            outcome,
            report,
            last_words_of: None,
        });
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == deployment) {
            attempt.outcome = outcome;
        }
    }
}

fn cancelled(deleted: bool) -> Report {
    if deleted {
        Report::new(
            "cancelled",
            "the service was deleted before the deployment had ended",
        )
    } else {
        Report::new("cancelled", "the deployment was cancelled")
    }
}

fn superseded(by: u32) -> Report {
    Report::new(
        "superseded",
        format!("`v{by}` took its place before it had ended"),
    )
}
