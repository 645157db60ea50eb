//! Watching a deployment to its end: the build's lines, then its steps, then the result line.

use std::time::{Duration, Instant};

use ferrovia_api::Report;
use ferrovia_api::client::{Client, Follow, InstancePath, LogQuery};
use ferrovia_api::deployment::{Deployment, Durations, Outcome, ResultLine};
use ferrovia_api::instance::State;
use ferrovia_api::log::LogLine;
use serde_json::json;

use super::steps::Steps;
use crate::failure::{Exit, Failure};
use crate::printer::{Printer, span};

/// How long lines of the build are waited for once the deployment has ended, in milliseconds.
const LAST_LINES_MS: u64 = 2_000;

/// After this long without a word it is said that it still goes on, in milliseconds.
const SILENCE_MS: u64 = 10_000;

/// Code of the reason that somebody holds the service.
const HELD: &str = "instance_held";

/// Code of the warning that nothing runs because nothing is wanted.
const SCALED_TO_ZERO: &str = "scaled_to_zero";

/// How to see a deployment again.
pub fn come_back(deployment: &Deployment) -> String {
    format!(
        "it goes on without you: `ferrovia status`, `ferrovia logs --build --follow`, `ferrovia cancel` (with \
         `--project {} --environment {} --service {}`)",
        deployment.project.name, deployment.environment.name, deployment.service.name
    )
}

/// Follows to the end, prints the result line and gives the exit code.
pub async fn follow(
    client: &Client,
    deployment: Deployment,
    begun: Instant,
    verbose: bool,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let mut steps = client.follow_deployment(deployment.id);
    let mut lines = client.follow_build_log(deployment.build_id, &LogQuery::default());
    let mut lines_ended = false;
    let mut told = Told {
        steps: Steps::new(verbose),
        shown: None,
        waits: None,
        reasons: Vec::new(),
    };
    let mut last = deployment;
    let mut said = Instant::now();
    loop {
        if told.step(&last, printer) {
            said = Instant::now();
        }
        if is_final(last.outcome) {
            break;
        }
        let waits_due = told.waits.as_ref().map_or(said, |(_, due)| *due);
        tokio::select! {
            line = lines.next::<LogLine>(), if !lines_ended => match line {
                Ok(Some((_, line))) => {
                    if told.build_line(&line, printer) {
                        said = Instant::now();
                    }
                }
                Ok(None) => lines_ended = true,
                Err(error) => {
                    lines_ended = true;
                    printer.murmur(format!("the build's log cannot be read: {error}"));
                }
            },
            progress = steps.next::<Deployment>() => match progress {
                Ok(Some((_, deployment))) => last = deployment,
                Ok(None) => last = client.deployment(last.id).await.map_err(|error| lost(error, &last))?,
                Err(error) => return Err(lost(error, &last)),
            },
            () = tokio::time::sleep_until(waits_due.into()), if told.waits.is_some() => {
                told.waits_on(&last, printer);
                said = Instant::now();
            }
            () = tokio::time::sleep_until((said + Duration::from_millis(SILENCE_MS)).into()) => {
                let whole = span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                let at = told.steps.current().map_or(String::new(), |step| format!(": {step}"));
                printer.murmur(format!("v{} {} after {whole}{at}", last.number, word(last.outcome)));
                said = Instant::now();
            }
            _ = tokio::signal::ctrl_c() => {
                printer.say(format!("detached from v{}: {}", last.number, come_back(&last)));
                print_result(&last, begun, printer);
                return Ok(Exit::Done);
            }
        }
    }
    if !lines_ended {
        remaining(&mut lines, &mut told, printer).await;
    }
    told.build_ended(&last, printer);
    tell(&last, begun, &told, printer);
    print_result(&last, begun, printer);
    Ok(if last.outcome == Outcome::Succeeded {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn is_final(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Queued | Outcome::Building | Outcome::Deploying => false,
        Outcome::Succeeded | Outcome::Failed | Outcome::Cancelled | Outcome::Superseded => true,
    }
}

/// Contact is lost and the deployment goes on: its outcome is unknown to us.
fn lost(error: ferrovia_api::client::Error, deployment: &Deployment) -> Failure {
    let known = !error.is_retryable();
    let failure = Failure::from(error);
    if known {
        return failure;
    }
    Failure {
        exit: Exit::Unknown,
        ..failure
    }
    .hint(format!(
        "v{} may have gone on; `ferrovia status` says what became of it",
        deployment.number
    ))
}

fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| Some(value.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// What is waited for is told when that lasts so long, in milliseconds: most waits are over before they are read.
const WAITS_MS: u64 = 1_000;

/// Most reasons that are remembered, so that none is told twice.
const MAX_REASONS: usize = 100;

/// What was told of a deployment.
struct Told {
    steps: Steps,
    shown: Option<(Outcome, Option<String>, Option<Report>)>,
    /// What is waited for and not yet told, and when it is told.
    waits: Option<(String, Instant)>,
    reasons: Vec<String>,
}

impl Told {
    /// Tells how far it is and why it is not healthy, when that is news.
    fn step(&mut self, deployment: &Deployment, printer: &Printer) -> bool {
        let now = (
            deployment.outcome,
            deployment.waits_for.clone(),
            deployment.reason.clone(),
        );
        if self.shown.as_ref() == Some(&now) {
            return false;
        }
        let before = self.shown.replace(now);
        let outcome = word(deployment.outcome);
        if printer.is_json() {
            let (number, waits_for) = (deployment.number, &deployment.waits_for);
            printer.json(&json!({
                "event": "progress", "deployment_id": deployment.id, "number": number, "outcome": outcome,
                "waits_for": waits_for, "reason": deployment.reason,
            }));
        }
        if is_final(deployment.outcome) {
            return false;
        }
        let (moved, waits_moved) = before.map_or((true, true), |(outcome, waits_for, _)| {
            (outcome != deployment.outcome, waits_for != deployment.waits_for)
        });
        if moved {
            if deployment.outcome == Outcome::Deploying {
                self.rest_of_build(false, printer);
            }
            printer.say(format!("v{} {outcome}", deployment.number));
        }
        if moved || waits_moved {
            let due = Instant::now() + Duration::from_millis(WAITS_MS);
            let is_held = deployment
                .reason
                .as_ref()
                .is_some_and(|reason| reason.code == HELD);
            let waits_for = deployment.waits_for.clone().filter(|_| !is_held);
            self.waits = waits_for.map(|what| (what, due));
        }
        let new = self.reason(deployment, printer);
        moved || new
    }

    /// What is waited for has lasted.
    fn waits_on(&mut self, deployment: &Deployment, printer: &Printer) {
        if let Some((what, _)) = self.waits.take() {
            printer.say(format!(
                "v{} {} ({what})",
                deployment.number,
                word(deployment.outcome)
            ));
        }
    }

    fn reason(&mut self, deployment: &Deployment, printer: &Printer) -> bool {
        let Some(reason) = &deployment.reason else {
            return false;
        };
        if self.reasons.len() >= MAX_REASONS || self.reasons.contains(&reason.message) {
            return false;
        }
        self.reasons.push(reason.message.clone());
        printer.say(not_yet(deployment.number, reason));
        true
    }

    fn build_line(&mut self, line: &LogLine, printer: &Printer) -> bool {
        if printer.is_json() {
            printer.json(&json!({ "event": "log", "at": line.at, "step": line.source, "text": line.text }));
            return true;
        }
        let told = self.steps.take(line);
        told.iter().for_each(|text| printer.murmur(text));
        !told.is_empty()
    }

    fn build_ended(&mut self, deployment: &Deployment, printer: &Printer) {
        let failed = deployment.outcome == Outcome::Failed && deployment.durations_ms.deploy.is_none();
        self.rest_of_build(failed, printer);
    }

    fn rest_of_build(&mut self, failed: bool, printer: &Printer) {
        for text in self.steps.end(failed) {
            printer.murmur(text);
        }
    }
}

/// Why a deployment that goes on is not there yet.
pub fn not_yet(number: u32, reason: &Report) -> String {
    let hint = reason
        .hint
        .as_ref()
        .map_or(String::new(), |hint| format!(" ({hint})"));
    let what = if reason.code == HELD {
        "waits"
    } else {
        "is not healthy yet"
    };
    format!("v{number} {what}: {}{hint}", reason.message)
}

async fn remaining(lines: &mut Follow, told: &mut Told, printer: &Printer) {
    let all = async {
        while let Ok(Some((_, line))) = lines.next::<LogLine>().await {
            told.build_line(&line, printer);
        }
    };
    // Lines that do not come in time are read with `ferrovia logs --build`.
    let _ = tokio::time::timeout(Duration::from_millis(LAST_LINES_MS), all).await;
}

/// The end in words, and the URL as data.
fn tell(deployment: &Deployment, begun: Instant, told: &Told, printer: &Printer) {
    for warning in &deployment.warnings {
        printer.warning(warning);
    }
    let number = deployment.number;
    match deployment.outcome {
        Outcome::Succeeded => {
            let Durations {
                queue, build, deploy, ..
            } = deployment.durations_ms;
            let part = |name: &str, ms: Option<u64>| ms.map(|ms| format!("{name} {}", span(ms)));
            let parts: Vec<String> = [part("queue", queue), part("build", build), part("deploy", deploy)]
                .into_iter()
                .flatten()
                .collect();
            let whole = span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            let stopped = deployment
                .warnings
                .iter()
                .any(|warning| warning.code == SCALED_TO_ZERO);
            let what = if stopped {
                "is deployed and no replica runs,"
            } else {
                "runs"
            };
            printer.cheer(format!("v{number} {what} after {whole} ({})", parts.join(", ")));
            if let Some(url) = &deployment.url {
                printer.line(url);
            }
        }
        Outcome::Superseded => printer.say(format!("v{number} was superseded by a newer deployment")),
        Outcome::Cancelled => printer.say(format!("v{number} was cancelled")),
        _ => {
            if let Some(error) = &deployment.error {
                let mut report = error.clone();
                let of_build = deployment.durations_ms.deploy.is_none();
                if of_build && !printer.is_json() && told.steps.told_failure() {
                    // What the step wrote was just told.
                    report.log.clear();
                }
                printer.error(&report);
                if of_build {
                    printer.murmur("the whole log of the build: `ferrovia logs --build`");
                }
            }
        }
    }
}

/// The last line with `--json`.
pub fn print_result(deployment: &Deployment, begun: Instant, printer: &Printer) {
    if !printer.is_json() {
        return;
    }
    let mut durations_ms = deployment.durations_ms;
    durations_ms.total = u64::try_from(begun.elapsed().as_millis()).ok();
    printer.json(&ResultLine {
        event: "result".to_owned(),
        deployment_id: Some(deployment.id),
        number: Some(deployment.number),
        project: deployment.project.name.clone(),
        service: deployment.service.name.clone(),
        environment: deployment.environment.name.clone(),
        outcome: deployment.outcome,
        state: deployment.state,
        url: deployment.url.clone(),
        image: deployment.image.clone(),
        durations_ms,
        warnings: deployment.warnings.clone(),
        error: deployment.error.clone(),
    });
}

/// The last line with `--json` when no deployment came to be.
pub fn print_refusal(path: &InstancePath, begun: Instant, failure: &Failure, printer: &Printer) {
    printer.json(&ResultLine {
        event: "result".to_owned(),
        deployment_id: None,
        number: None,
        project: path.project.clone(),
        service: path.service.clone(),
        environment: path.environment.clone(),
        outcome: Outcome::Failed,
        state: State::Unknown,
        url: None,
        image: None,
        durations_ms: Durations {
            total: u64::try_from(begun.elapsed().as_millis()).ok(),
            ..Durations::default()
        },
        warnings: Vec::new(),
        error: Some(failure.report.clone()),
    });
}
