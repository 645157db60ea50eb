//! Watching a deployment to its end: the build's lines, then its steps, then the result line.

use std::time::{Duration, Instant};

use ferrovia_api::client::{Client, Follow, InstancePath, LogQuery};
use ferrovia_api::deployment::{Deployment, Durations, Outcome, ResultLine};
use ferrovia_api::instance::State;
use ferrovia_api::log::LogLine;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::printer::{Printer, span};

/// How long lines of the build are waited for once the deployment has ended, in milliseconds.
const LAST_LINES_MS: u64 = 2_000;

/// After this long without a word it is said that it still goes on, in milliseconds.
const SILENCE_MS: u64 = 10_000;

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
    printer: &Printer,
) -> Result<Exit, Failure> {
    let mut steps = client.follow_deployment(deployment.id);
    let mut lines = client.follow_build_log(deployment.build_id, &LogQuery::default());
    let (mut lines_ended, mut lines_told) = (false, false);
    let mut last = deployment;
    let mut shown = None;
    let mut said = Instant::now();
    loop {
        if shown != Some((last.outcome, last.waits_for.clone())) {
            shown = Some((last.outcome, last.waits_for.clone()));
            step(&last, printer);
            said = Instant::now();
        }
        if is_final(last.outcome) {
            break;
        }
        tokio::select! {
            line = lines.next::<LogLine>(), if !lines_ended => match line {
                Ok(Some((_, line))) => {
                    build_line(&line, printer);
                    lines_told = true;
                    said = Instant::now();
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
            () = tokio::time::sleep_until((said + Duration::from_millis(SILENCE_MS)).into()) => {
                let whole = span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                printer.murmur(format!("v{} {} after {whole}", last.number, word(last.outcome)));
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
        remaining(&mut lines, printer).await;
    }
    tell(&last, begun, lines_told, printer);
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

fn step(deployment: &Deployment, printer: &Printer) {
    let outcome = word(deployment.outcome);
    if printer.is_json() {
        let (number, waits_for) = (deployment.number, &deployment.waits_for);
        printer.json(&json!({
            "event": "progress", "deployment_id": deployment.id, "number": number, "outcome": outcome,
            "waits_for": waits_for,
        }));
    }
    if is_final(deployment.outcome) {
        return;
    }
    let waits = deployment
        .waits_for
        .as_ref()
        .map_or(String::new(), |what| format!(" ({what})"));
    printer.say(format!("v{} {outcome}{waits}", deployment.number));
}

fn build_line(line: &LogLine, printer: &Printer) {
    if printer.is_json() {
        printer.json(&json!({ "event": "log", "at": line.at, "step": line.source, "text": line.text }));
    } else if line.source.is_empty() {
        printer.murmur(format!("  {}", line.text));
    } else {
        printer.murmur(format!("  {} | {}", line.source, line.text));
    }
}

async fn remaining(lines: &mut Follow, printer: &Printer) {
    let all = async {
        while let Ok(Some((_, line))) = lines.next::<LogLine>().await {
            build_line(&line, printer);
        }
    };
    // Lines that do not come in time are read with `ferrovia logs --build`.
    let _ = tokio::time::timeout(Duration::from_millis(LAST_LINES_MS), all).await;
}

/// The end in words, and the URL as data.
fn tell(deployment: &Deployment, begun: Instant, lines_told: bool, printer: &Printer) {
    for warning in &deployment.warnings {
        printer.warning(warning);
    }
    let number = deployment.number;
    match deployment.outcome {
        Outcome::Succeeded => {
            let Durations { build, deploy, .. } = deployment.durations_ms;
            let part = |name: &str, ms: Option<u64>| ms.map(|ms| format!("{name} {}", span(ms)));
            let parts: Vec<String> = [part("build", build), part("deploy", deploy)]
                .into_iter()
                .flatten()
                .collect();
            let whole = span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            printer.cheer(format!("v{number} runs after {whole} ({})", parts.join(", ")));
            if let Some(url) = &deployment.url {
                printer.line(url);
            }
        }
        Outcome::Superseded => printer.say(format!("v{number} was superseded by a newer deployment")),
        Outcome::Cancelled => printer.say(format!("v{number} was cancelled")),
        _ => {
            if let Some(error) = &deployment.error {
                let mut report = error.clone();
                if lines_told && !printer.is_json() && deployment.durations_ms.deploy.is_none() {
                    // The build's last lines were just told.
                    report.log.clear();
                }
                printer.error(&report);
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
