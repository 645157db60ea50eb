//! Debian itself, made from its packages by `mmdebstrap`: what every other base stands on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ferrovia_core::error::{Class, Report};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::apt::Archives;
use crate::BuildError;
use crate::narrator::Narrator;

/// Keys of Debian's archive, in the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long it may take, in milliseconds.
const TIMEOUT_MS: u64 = 15 * 60 * 1000;
/// Lines of its words in the report of its failure.
const LAST_LINES: usize = 20;
/// What no container reads; `slim` images of Debian leave the same out. The directories of manual pages stay: packages
/// with alternatives (Java) cannot be installed without them.
const LEFT_OUT: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-include=/usr/share/man/man?",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
];

/// The host's archives.
pub(super) fn archives_of_host() -> Archives {
    let mut texts: Vec<String> = std::fs::read_to_string("/etc/apt/sources.list")
        .into_iter()
        .collect();
    let mut files: Vec<PathBuf> = std::fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.sort();
    let wanted = files.iter().filter(|path| {
        path.extension()
            .is_some_and(|end| end == "list" || end == "sources")
    });
    texts.extend(wanted.filter_map(|path| std::fs::read_to_string(path).ok()));
    Archives::of_host(texts.iter().map(String::as_str))
}

/// Makes the root file system of a suite as a tar archive.
pub(super) async fn make(
    suite: &str,
    packages: &[&str],
    archives: &Archives,
    extra_ca_file: Option<&Path>,
    tar: &Path,
    narrator: &Narrator<'_>,
) -> Result<(), BuildError> {
    if !Path::new(KEYRING).exists() {
        return Err(unavailable(
            format!("`{KEYRING}` was not found"),
            "install it: `apt-get install debian-archive-keyring`",
        ));
    }
    let mut arguments: Vec<OsString> = [
        "--variant=minbase",
        "--keyring",
        KEYRING,
        "--aptopt=Acquire::Retries \"3\"",
    ]
    .map(OsString::from)
    .into();
    if let Some(file) = extra_ca_file {
        arguments.push(format!("--aptopt=Acquire::https::CAInfo \"{}\"", file.display()).into());
    }
    arguments.extend(LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}").into()));
    if !packages.is_empty() {
        arguments.push(format!("--include={}", packages.join(",")).into());
    }
    arguments.push(suite.into());
    arguments.push(tar.into());
    arguments.extend(archives.lines(suite).map(OsString::from));
    let mut child = Command::new("nice")
        .args(["-n", "10", "mmdebstrap"])
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| unavailable(format!("`mmdebstrap` could not be started ({error})"), INSTALL))?;
    let mut last = Vec::new();
    let done = async {
        if let Some(words) = child.stderr.take() {
            let mut lines = BufReader::new(words).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let text = line.trim_start_matches("I: ").trim_end();
                if line.starts_with("I: ") && !text.starts_with("automatically") {
                    narrator.say(text);
                }
                if last.len() == LAST_LINES {
                    last.remove(0);
                }
                last.push(line);
            }
        }
        child.wait().await
    };
    match tokio::time::timeout(Duration::from_millis(TIMEOUT_MS), done).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) if status.code() == Some(127) => {
            Err(unavailable("`mmdebstrap` was not found".into(), INSTALL))
        }
        Ok(Ok(_)) => {
            let hint = format!("check that this machine reaches `{}`", archives.archive);
            let mut error = unavailable("`mmdebstrap` failed".into(), &hint);
            error.report.log = last;
            error.class = Class::Transient;
            Err(error)
        }
        Ok(Err(error)) => Err(unavailable(format!("`mmdebstrap` failed ({error})"), INSTALL)),
        Err(_) => Err(unavailable(
            format!("`mmdebstrap` did not end in {} min", TIMEOUT_MS / 60_000),
            "check the network of this machine",
        )),
    }
}

const INSTALL: &str = "install it: `apt-get install mmdebstrap`";

fn unavailable(why: String, hint: &str) -> BuildError {
    BuildError {
        report: Report::new(
            "base_image_not_made",
            format!("the platform's base image cannot be made from Debian packages: {why}"),
        )
        .with_hint(hint),
        class: Class::Unavailable,
    }
}
