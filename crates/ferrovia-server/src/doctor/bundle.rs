//! A report to send to somebody: what was found, how it is configured, how the logs end.
//!
//! The platform's own logs hold no secrets; the configuration is shown without what may hold one. Logs of
//! applications are not in it: they are not ours to send.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use ferrovia_api::system::Finding;

use crate::config::Config;
use crate::process::{Unit, build_id, log, spawn};

/// Lines of each log that go into the report.
const LOG_LINES: usize = 200;
/// How much of a log's end is looked at, in bytes.
const LOG_TAIL_BYTES: u64 = 256 * 1024;

/// Writes the report, readable by its owner only.
///
/// # Errors
/// When the file cannot be written.
pub fn write(config: &Config, findings: &[Finding], path: &Path) -> io::Result<()> {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "ferroviad {} build {}",
        env!("CARGO_PKG_VERSION"),
        build_id::build_id()?
    );
    let _ = writeln!(
        text,
        "data {}\nrun {}",
        config.paths.data.display(),
        config.paths.run.display()
    );
    let _ = writeln!(
        text,
        "engine {:?}, database {}",
        config.engine,
        if config.database.is_private() {
            "private"
        } else {
            "elsewhere"
        }
    );
    let _ = writeln!(
        text,
        "api {}, registry {}, http {}, domain {}",
        config.api_listen, config.registry_listen, config.http_listen, config.apps_domain
    );
    let _ = writeln!(text, "addresses {:?}\n\nFindings", config.addresses);
    for finding in findings {
        let _ = writeln!(
            text,
            "{:?} {} {}: {}",
            finding.level, finding.subject, finding.code, finding.message
        );
    }
    for unit in [Unit::Control, Unit::Node, Unit::Edge] {
        let log = spawn::log_path(config, unit);
        let _ = writeln!(text, "\nThe end of {}", log.display());
        text.push_str(&tail(&log).unwrap_or_else(|error| format!("{error}\n")));
    }
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.is_file() {
        // One that was there keeps its mode; a terminal or a pipe shall keep its own.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    io::Write::write_all(&mut file, text.as_bytes())
}

fn tail(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = log::open_own(path, fs::OpenOptions::new().read(true))?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().rev().take(LOG_LINES).collect();
    Ok(lines.into_iter().rev().fold(String::new(), |mut all, line| {
        all.push_str(line);
        all.push('\n');
        all
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_was_there_is_closed_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let config = Config::load(crate::config::Flags {
            data_dir: Some(dir.path().join("data")),
            ..crate::config::Flags::default()
        })
        .unwrap();
        write(&config, &[], &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with("ferroviad "));
    }
}
