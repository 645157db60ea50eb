//! What is wrong with this installation, in sentences with remedies. Works with control and database dead: it looks
//! at the host, the locks and the sockets themselves.

mod bundle;
mod edge_user;
mod engine;
mod host;
mod open_files;
mod processes;
mod report;

use ferrovia_api::system::{Finding, Level};

use crate::command::Failure;
use crate::config::{Config, Flags};

pub use report::print;

/// Flags of `ferroviad doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// The findings as one JSON value
    #[arg(long)]
    json: bool,
    /// Write a report to send to somebody: findings, configuration and the ends of the logs, without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<std::path::PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

fn good(subject: &str, message: impl Into<String>) -> Finding {
    let (subject, message) = (subject.to_owned(), message.into());
    Finding {
        level: Level::Good,
        subject,
        code: "ok".to_owned(),
        message,
        hint: None,
    }
}

fn warning(subject: &str, code: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    let (subject, code, message) = (subject.to_owned(), code.to_owned(), message.into());
    Finding {
        level: Level::Warning,
        subject,
        code,
        message,
        hint: Some(hint.into()),
    }
}

fn problem(subject: &str, code: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding {
        level: Level::Error,
        ..warning(subject, code, message, hint)
    }
}

/// `ferroviad doctor`: exit code 1 when something does not work.
///
/// # Errors
/// When the configuration is wrong or the report cannot be written.
pub async fn run(args: DoctorArgs) -> Result<std::process::ExitCode, Failure> {
    let config = Config::load(args.flags)?;
    let findings = examine(&config).await;
    if let Some(path) = &args.bundle {
        bundle::write(&config, &findings, path)?;
        eprintln!("The report is {}; read it before you send it", path.display());
    }
    print(&findings, args.json)?;
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed {
        std::process::ExitCode::FAILURE
    } else {
        std::process::ExitCode::SUCCESS
    })
}

/// What must hold before anything is started. Problems among these keep `serve` from starting.
pub async fn preflight(config: &Config) -> Vec<Finding> {
    let mut findings = host::requirements(config);
    findings.extend(engine::look(config).await);
    findings
}

/// Everything there is to look at.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = preflight(config).await;
    findings.extend(host::surroundings(config));
    findings.push(open_files::look(config));
    findings.push(edge_user::look(config));
    findings.extend(processes::look(config).await);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}
