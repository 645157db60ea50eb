//! `doctor`: what is wrong, in sentences. What the CLI sees itself comes first.

use ferrovia_api::system::{DoctorReport, Finding, Level};

use super::Session;
use crate::failure::{Exit, Failure};

/// Asks the server what it found, and says what the CLI sees itself.
pub async fn doctor(session: &Session<'_>) -> Result<Exit, Failure> {
    let report = report(session).await;
    session.printer.value(&report, |report| {
        let lines: Vec<String> = report.findings.iter().map(line).collect();
        lines.join("\n")
    });
    let bad = report
        .findings
        .iter()
        .any(|finding| finding.level == Level::Error);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

async fn report(session: &Session<'_>) -> DoctorReport {
    let asked = match session.client() {
        Ok(client) => match client.doctor().await {
            Ok(report) => {
                let mut findings = vec![good(format!("the server at {} answers", client.address()))];
                findings.extend(report.findings);
                return DoctorReport { findings };
            }
            Err(error) => Failure::from(error),
        },
        Err(failure) => failure,
    };
    let finding = Finding {
        level: Level::Error,
        subject: "server".to_owned(),
        code: asked.report.code,
        message: asked.report.message,
        hint: asked.report.hint,
    };
    let on_host = Finding {
        level: Level::Note,
        subject: "server".to_owned(),
        code: "doctor_on_host".to_owned(),
        message: "`ferroviad doctor` on the server's host works without the server".to_owned(),
        hint: None,
    };
    DoctorReport {
        findings: vec![finding, on_host],
    }
}

fn good(message: String) -> Finding {
    Finding {
        level: Level::Good,
        subject: "server".to_owned(),
        code: "server_answers".to_owned(),
        message,
        hint: None,
    }
}

fn line(finding: &Finding) -> String {
    let word = match finding.level {
        Level::Good => "good",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let mut line = format!("{word:<8} {}: {}", finding.subject, finding.message);
    if let Some(hint) = &finding.hint {
        line.push_str(&format!("\n{:<8} {hint}", ""));
    }
    line
}
