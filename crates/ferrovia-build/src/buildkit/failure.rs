//! Why a build failed, for people: from BuildKit's words to a report with a remedy. Pure.

use std::io;
use std::time::Duration;

use ferrovia_core::error::{Class, Report};

use super::progress::FailedStep;
use crate::BuildError;

/// Why a build gave nothing.
#[derive(Debug)]
pub enum SolveError {
    /// A step ended badly.
    Step(StepFailure),
    /// BuildKit refused the build before or between commands.
    Refused {
        /// Its words.
        words: String,
        /// The step that it was at, when it was one.
        step: Option<String>,
    },
    /// It took too long.
    TimedOut {
        /// The bound.
        after: Duration,
        /// What it was at.
        step: Option<String>,
    },
    /// The disk is nearly full.
    DiskFull,
    /// The daemon ended while it built.
    DaemonDied,
    /// The daemon answered something that makes no sense.
    Daemon(String),
    /// The client could not be started or read.
    Start(io::Error),
}

/// A step that ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// Its name for people.
    pub step: Option<String>,
    /// The command, when it was one.
    pub command: Option<String>,
    /// Its exit code, when it was a command.
    pub exit_code: Option<i32>,
    /// BuildKit's own words.
    pub error: String,
    /// The last lines that it wrote.
    pub log: Vec<String>,
    /// Whether the kernel was seen killing a process for memory.
    pub killed: bool,
    /// Whether the memory of builds was used up meanwhile.
    pub reached_limit: bool,
}

/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// What to do about TLS that is signed anew on the way.
const DISTRUSTS_TLS: &str = "something on the way signs TLS anew with an authority that builds do not know: name its \
                             certificate with `build.extra_ca_file` in the configuration file";
/// Longest piece of BuildKit's words in a sentence, in characters.
const MAX_WORDS: usize = 300;

impl SolveError {
    /// From what `buildctl` wrote beside progress, and the step that failed.
    pub(super) fn from_words(
        words: &[String],
        failed: Option<&FailedStep>,
        killed: bool,
        reached_limit: bool,
    ) -> Self {
        let said = words
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("error: "))
            .or_else(|| words.last().map(String::as_str))
            .unwrap_or("it did not say why");
        match failed {
            Some(step) if step.step.is_some() && step.error.contains("did not complete successfully") => {
                Self::Step(StepFailure {
                    step: step.step.clone(),
                    command: between(&step.error, "process \"", "\" did not complete").map(unquoted),
                    exit_code: exit_code(&step.error),
                    error: step.error.clone(),
                    log: step.log.clone(),
                    killed,
                    reached_limit,
                })
            }
            _ => Self::Refused {
                words: said.trim_start_matches("failed to solve: ").to_owned(),
                step: failed.and_then(|failed| failed.step.clone()),
            },
        }
    }

    /// Whether the same build may succeed when tried again at once.
    pub const fn is_daemons_fault(&self) -> bool {
        matches!(self, Self::DaemonDied)
    }

    /// What people are told.
    pub fn into_build_error(self) -> BuildError {
        let (report, class) = match self {
            Self::Step(step) => step.report(),
            Self::Refused { words, step } => refused(&words, step.as_deref()),
            Self::TimedOut { after, step } => {
                let minutes = after.as_secs().div_ceil(60);
                let at = step.map(|step| format!(" at `{step}`")).unwrap_or_default();
                let report = Report::new(
                    "build_timeout",
                    format!("the build took longer than {minutes} min{at}"),
                );
                let hint = "look in the log at what it waits for; the limit is `timeout_s` under `[build]` in the platform's \
                            configuration file, `/etc/ferrovia/ferroviad.toml`";
                (report.with_hint(hint), Class::Limit)
            }
            Self::DiskFull => (
                Report::new(
                    "build_disk_full",
                    "the disk of this machine is nearly full, so the build was not done",
                )
                .with_hint("free space on the disk: `ferroviad doctor` says what takes how much"),
                Class::Limit,
            ),
            Self::DaemonDied => (
                Report::new("buildkit_failed", "the build daemon ended while it built")
                    .with_hint("deploy again; when it happens again, see the build daemon's log"),
                Class::Transient,
            ),
            Self::Daemon(what) => (
                Report::new(
                    "buildkit_failed",
                    format!("the build daemon gave an answer that makes no sense: {what}"),
                ),
                Class::Bug,
            ),
            Self::Start(error) => (
                Report::new(
                    "buildkit_failed",
                    format!("the build could not be started ({error})"),
                ),
                Class::Unavailable,
            ),
        };
        BuildError { report, class }
    }
}

impl StepFailure {
    /// Whether memory was what it died of: it was killed, and memory was short. A build whose child was killed often
    /// ends with another code and says so in its log.
    fn is_out_of_memory(&self) -> bool {
        let was_killed = self.exit_code == Some(KILLED);
        let says_killed = self.log.iter().rev().take(20).any(|line| {
            let line = line.trim_end();
            line.ends_with("Killed")
                || line.contains("signal: 9, SIGKILL")
                || line.contains("Killed signal terminated")
                || line.contains("JavaScript heap out of memory")
        });
        (self.killed && (was_killed || says_killed)) || (was_killed && self.reached_limit)
    }

    /// Whether its log tells of a certificate that nobody it trusts has signed.
    fn distrusts_tls(&self) -> bool {
        let signs = [
            "SELF_SIGNED_CERT_IN_CHAIN",
            "UNABLE_TO_GET_ISSUER_CERT",
            "unable to get local issuer certificate",
            "certificate verify failed",
            "CERTIFICATE_VERIFY_FAILED",
            "certificate signed by unknown authority",
            "PKIX path building failed",
            "SSL certificate problem",
        ];
        self.log
            .iter()
            .any(|line| signs.iter().any(|sign| line.contains(sign)))
    }

    fn report(self) -> (Report, Class) {
        let step = self.step.clone().unwrap_or_else(|| "a step".to_owned());
        let report = if self.is_out_of_memory() {
            Report::new(
                "build_out_of_memory",
                format!("`{step}` used up the memory that builds have and was killed"),
            )
            .with_hint("make the step use less memory (fewer parallel jobs, a smaller heap), or give builds more with `build.memory`")
        } else {
            match self.exit_code {
                Some(code) => Report::new("build_failed", format!("`{step}` ended with exit code {code}")),
                None => Report::new(
                    "build_failed",
                    format!("`{step}` failed: {}", clipped(&self.error)),
                ),
            }
            .with_hint(match &self.command {
                _ if self.distrusts_tls() => DISTRUSTS_TLS.to_owned(),
                Some(command) => format!(
                    "the last lines of the log say why; the command was `{}`",
                    clipped(command)
                ),
                None => "the last lines of the log say why".to_owned(),
            })
        };
        let class = if report.code == "build_failed" {
            Class::Invalid
        } else {
            Class::Limit
        };
        (report.with_log(self.log), class)
    }
}

/// Failures before any step ran, by what BuildKit says.
fn refused(words: &str, step: Option<&str>) -> (Report, Class) {
    let has = |text: &str| words.contains(text);
    if has("dockerfile parse error") || has("unknown instruction") || has("failed to parse stage name") {
        let report = Report::new(
            "dockerfile_invalid",
            format!("the Dockerfile is not valid: {}", clipped(words)),
        );
        return (report.with_hint("correct the line that is named"), Class::Invalid);
    }
    if has("target stage") && has("could not be found") {
        let report = Report::new("dockerfile_invalid", clipped(words).replace('"', "`"));
        let hint = "the setting `target` must name a stage: `FROM … AS NAME`";
        return (report.with_hint(hint), Class::Invalid);
    }
    if has("failed to read dockerfile") || has("no such file or directory") && has("Dockerfile") {
        let report = Report::new(
            "dockerfile_missing",
            "there is no Dockerfile where the settings say",
        );
        let hint =
            "check the root directory and the path of the Dockerfile, and that no ignore file leaves it out";
        return (report.with_hint(hint), Class::Invalid);
    }
    if has("no space left on device") || has("507 Insufficient Storage") {
        let BuildError { report, class } = SolveError::DiskFull.into_build_error();
        return (report, class);
    }
    if has("failed to push") {
        let message = format!("the image could not be kept: {}", clipped(words));
        let report =
            Report::new("buildkit_failed", message).with_hint("deploy again; see `ferroviad doctor`");
        return (report, Class::Transient);
    }
    if has("failed to resolve source metadata") || has("docker-image://") {
        return base_image(words);
    }
    if has("failed to calculate checksum") || has("failed to compute cache key") {
        let path = between(words, "\"/", "\"").unwrap_or_default();
        let report = Report::new(
            "build_file_missing",
            format!("`{path}`, which the Dockerfile copies, is not in the source"),
        );
        let hint = "check the path; files that `.gitignore` or `.dockerignore` name are not uploaded";
        return (report.with_hint(hint), Class::Invalid);
    }
    if has("secret") && has("not found") {
        let report = Report::new(
            "build_secret_missing",
            format!("a secret that the build needs is not set: {}", clipped(words)),
        );
        let hint = "set a variable of that name: `ferrovia variables set NAME=VALUE`";
        return (report.with_hint(hint), Class::Invalid);
    }
    let report = match step {
        Some(step) => Report::new("build_failed", format!("`{step}` failed: {}", clipped(words))),
        None => Report::new("build_failed", format!("the build failed: {}", clipped(words))),
    };
    (report, Class::Invalid)
}

fn base_image(words: &str) -> (Report, Class) {
    let has = |text: &str| words.contains(text);
    let image = between(words, "source metadata for ", ": ").unwrap_or("a base image");
    let image = image.trim_start_matches("docker-image://");
    let report = |code: &str, what: &str| Report::new(code, format!("the base image `{image}` {what}"));
    if has("source") && has("denied by policy") {
        let hint =
            "images of other projects are closed; start from a public image or from one of this project";
        return (
            report("base_image_denied", "may not be used").with_hint(hint),
            Class::Denied,
        );
    }
    if has("no such host")
        || has("i/o timeout")
        || has("connection refused")
        || has("no route to host")
        || has("network is unreachable")
        || has("context deadline exceeded")
        || has("certificate")
    {
        let hint = "this machine does not reach that registry: set a mirror for it, or start from an image that the \
                    platform makes itself (`debian:trixie`, `node:20`, `python:3.13`)";
        return (
            report("base_image_unreachable", "cannot be fetched").with_hint(hint),
            Class::Transient,
        );
    }
    if has("401") || has("403") || has("authorization failed") || has("access denied") || has("denied:") {
        let hint = "its registry wants a login: add pull credentials for it, and check the name";
        return (
            report("base_image_denied", "is not public").with_hint(hint),
            Class::Denied,
        );
    }
    if has("not found") || has("manifest unknown") {
        let hint = "check its name and tag in the `FROM` line";
        return (
            report("base_image_not_found", "does not exist").with_hint(hint),
            Class::Invalid,
        );
    }
    let report = report("base_image_unreachable", "cannot be fetched");
    (
        report.with_hint(format!("its registry said: {}", clipped(words))),
        Class::Transient,
    )
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// BuildKit quotes commands as Go does; people wrote them without a shell in front.
fn unquoted(command: &str) -> String {
    let command = command.replace("\\\"", "\"").replace("\\\\", "\\");
    command
        .strip_prefix("/bin/sh -c ")
        .map_or(command.clone(), str::to_owned)
}

fn exit_code(error: &str) -> Option<i32> {
    error.rsplit_once("exit code: ")?.1.trim().parse().ok()
}

fn clipped(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(error: &str, log: &[&str]) -> FailedStep {
        FailedStep {
            step: Some("[2/3] RUN make".into()),
            error: error.into(),
            log: log.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    fn code(words: &str, failed: Option<&FailedStep>, killed: bool, reached_limit: bool) -> (String, Class) {
        let error = SolveError::from_words(&[format!("error: {words}")], failed, killed, reached_limit);
        let BuildError { report, class } = error.into_build_error();
        assert!(
            report.hint.is_some() || report.code == "build_failed",
            "{report:?}"
        );
        (report.code, class)
    }

    #[test]
    fn steps_that_end_badly() {
        let exit = |code: i32| {
            format!("process \"/bin/sh -c make \\\"x\\\"\" did not complete successfully: exit code: {code}")
        };
        let failed = step(&exit(2), &["cc: error"]);
        let error = SolveError::from_words(&["error: failed to solve".into()], Some(&failed), false, false);
        let BuildError { report, class } = error.into_build_error();
        assert_eq!(report.message, "`[2/3] RUN make` ended with exit code 2");
        assert_eq!(
            report.hint.unwrap(),
            "the last lines of the log say why; the command was `make \"x\"`"
        );
        assert_eq!(
            (report.log.as_slice(), class),
            (["cc: error".to_owned()].as_slice(), Class::Invalid)
        );

        let oom = ("build_out_of_memory".to_owned(), Class::Limit);
        let plain = ("build_failed".to_owned(), Class::Invalid);
        assert_eq!(code("x", Some(&step(&exit(137), &[])), false, true), oom);
        assert_eq!(code("x", Some(&step(&exit(137), &[])), false, false), plain);
        assert_eq!(
            code("x", Some(&step(&exit(1), &["sh: 1: Killed"])), true, true),
            oom
        );
        assert_eq!(
            code(
                "x",
                Some(&step(&exit(101), &["(signal: 9, SIGKILL: kill)"])),
                true,
                true
            ),
            oom
        );
        assert_eq!(code("x", Some(&step(&exit(1), &["Killed"])), false, true), plain);
    }

    #[test]
    fn what_buildkit_refuses() {
        let cases = [
            (
                "failed to solve: dockerfile parse error on line 2: unknown instruction: FORM",
                "dockerfile_invalid",
            ),
            (
                "failed to solve: target stage \"x\" could not be found",
                "dockerfile_invalid",
            ),
            (
                "failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory",
                "dockerfile_missing",
            ),
            (
                "failed to solve: nope: failed to resolve source metadata for docker.io/library/nope:1: docker.io/library/nope:1: not found",
                "base_image_not_found",
            ),
            (
                "failed to solve: x: failed to resolve source metadata for docker.io/a/b:1: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
                "base_image_denied",
            ),
            (
                "failed to solve: x: failed to resolve source metadata for docker.io/a/b:1: failed to do request: Head \"https://registry-1.docker.io\": dial tcp: lookup registry-1.docker.io: no such host",
                "base_image_unreachable",
            ),
            (
                "failed to solve: failed to compute cache key: failed to calculate checksum of ref x::y: \"/missing.txt\": not found",
                "build_file_missing",
            ),
            ("failed to solve: secret TOKEN: not found", "build_secret_missing"),
            (
                "failed to solve: write /x: no space left on device",
                "build_disk_full",
            ),
            (
                "failed to solve: failed to push 127.0.0.1:7071/apps/p/s:t: unexpected status: 500 Internal Server Error",
                "buildkit_failed",
            ),
            (
                "failed to solve: failed to push 127.0.0.1:7071/apps/p/s:t: unexpected status: 507 Insufficient Storage",
                "build_disk_full",
            ),
            ("failed to solve: something new", "build_failed"),
        ];
        for (words, expected) in cases {
            assert_eq!(code(words, None, false, false).0, expected, "{words}");
        }
    }
}
