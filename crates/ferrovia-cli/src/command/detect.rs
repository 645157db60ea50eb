//! `detect`: what would be built from a directory, and why. The same code as the server's, on what would be sent.
//!
//! Versions are those of the official base images; a server that makes its own bases may have others, and says so in
//! its build log.

use std::path::Path;

use ferrovia_core::detect::{Detection, Match, Method};
use ferrovia_core::plan::{Command, Plan, PortPlan};

use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::target::absolute;
use crate::up::detection::{self, wire};
use crate::up::scan::scan_told;

/// Longest shell script that is shown, in characters.
const SHOWN_CHARS: usize = 160;

/// Detects what a directory is and prints the plan.
pub async fn detect(directory: &Path, printer: &Printer) -> Result<Exit, Failure> {
    let root = absolute(directory)?;
    let manifest = scan_told(&root, printer).await?.manifest;
    match detection::detect(&root, &manifest)? {
        Ok(detection) => {
            printer.value(&detection, described);
            for warning in detection.warnings {
                printer.warning(&wire(warning));
            }
            Ok(Exit::Done)
        }
        Err(refusal) => {
            for warning in refusal.warnings {
                printer.warning(&wire(warning));
            }
            for found in &refusal.matches {
                printer.murmur(matched(found));
            }
            Err(Failure {
                report: wire(refusal.report),
                exit: Exit::Failed,
                told: false,
            })
        }
    }
}

fn matched(found: &Match) -> String {
    let reasons: Vec<String> = found
        .reasons
        .iter()
        .map(|reason| match reason.what.as_str() {
            "" => format!("`{}`", reason.path),
            what => format!("`{}` {what}", reason.path),
        })
        .collect();
    let mark = if found.chosen { "*" } else { " " };
    format!("{mark} {}: {}", found.provider, reasons.join(", "))
}

fn described(detection: &Detection) -> String {
    let mut lines = vec![Printer::bold(&detection.summary)];
    lines.extend(detection.matches.iter().map(matched));
    lines.extend(detection.notes.iter().map(|note| format!("  {note}")));
    match &detection.method {
        Method::Dockerfile { path, target } => {
            let stage = target
                .as_ref()
                .map_or(String::new(), |target| format!(", stage `{target}`"));
            lines.push(format!("builds `{path}`{stage}"));
        }
        Method::Auto { plan } => plan_lines(plan, &mut lines),
    }
    lines.join("\n")
}

fn plan_lines(plan: &Plan, lines: &mut Vec<String>) {
    for step in &plan.steps {
        for command in &step.commands {
            let text = match command {
                Command::Exec(words) => words.join(" "),
                Command::Shell(script) => script.clone(),
                // What is copied where follows from what runs.
                Command::Copy { .. } | Command::Path(_) | Command::File(_) => continue,
            };
            let mut shown: String = text
                .trim()
                .replace('\n', "; ")
                .chars()
                .take(SHOWN_CHARS)
                .collect();
            if shown.len() < text.trim().len() {
                shown.push('…');
            }
            lines.push(format!("{:<10} {shown}", step.name));
        }
    }
    let start = plan
        .deploy
        .start
        .as_ref()
        .map_or("(none: set a start command)".to_owned(), |start| start.join(" "));
    lines.push(format!("{:<10} {start}", "start"));
    lines.push(format!("{:<10} {}", "runs on", plan.deploy.base));
    if plan.deploy.port == PortPlan::None {
        lines.push(format!("{:<10} none: no URL, no probe", "port"));
    }
}
