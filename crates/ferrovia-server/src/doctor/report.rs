//! Findings for people and for programs.

use std::io::{self, Write};

use ferrovia_api::system::{DoctorReport, Finding, Level};

/// Prints findings to standard output, the worst first.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(
            &mut out,
            &DoctorReport {
                findings: findings.to_vec(),
            },
        )?;
        return writeln!(out);
    }
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "PROBLEM",
        };
        writeln!(out, "{mark:8} {:10} {}", finding.subject, finding.message)?;
        if let Some(hint) = &finding.hint {
            writeln!(out, "{:19} {hint}", "")?;
        }
    }
    Ok(())
}
