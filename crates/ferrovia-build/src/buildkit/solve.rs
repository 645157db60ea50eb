//! One build: `buildctl` as a child, its progress as lines, its end as a digest or a reason.
//!
//! Cancelling is dropping: the client is ended, and then the daemon is watched until it stopped the build, since a
//! client that is gone says nothing about the steps that it asked for. A daemon that goes on is ended.

mod arguments;
mod cancel;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ferrovia_core::secret::Secret;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};

use self::arguments::Files;
use self::cancel::Running;
use super::daemon::Lease;
pub use super::failure::{SolveError, StepFailure};
use super::progress::{Line, Progress};
use super::secrets::{Mask, SecretDirectory};
use crate::registry::Login;

/// Longest line of progress that is read, in bytes.
const MAX_PROGRESS_BYTES: usize = 16 * 1024 * 1024;
/// How long a build may take unless said otherwise, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 30 * 60 * 1000;
/// Free space on the disk that a build needs to begin, in bytes.
pub const START_FREE_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Free space on the disk under which a running build is ended, in bytes.
pub const KEEP_FREE_BYTES: u64 = 1024 * 1024 * 1024;
/// Time between two looks at the disk, in milliseconds.
const DISK_EVERY_MS: u64 = 1000;
/// Lines of `buildctl`'s own words that are kept.
const WORDS: usize = 40;

/// What is built.
#[derive(Debug, Clone)]
pub struct Job {
    /// Tells this build from others: letters, digits and `-`.
    pub id: String,
    /// Whose steps they are, for the control group and the cache: letters, digits and `-`.
    pub scope: String,
    /// The directory that `COPY` sees.
    pub context: PathBuf,
    /// The directory that the Dockerfile is in.
    pub dockerfile_directory: PathBuf,
    /// Its path in there.
    pub dockerfile: String,
    /// The stage to build; none: the last.
    pub target: Option<String>,
    /// Build arguments: public values only.
    pub arguments: Vec<(String, String)>,
    /// Secrets by id.
    pub secrets: Vec<(String, Secret)>,
    /// Files of the host that are secrets, by id.
    pub secret_files: Vec<(String, PathBuf)>,
    /// What names of images stand for: `node:20` and `docker-image://…@sha256:…`.
    pub contexts: Vec<(String, String)>,
    /// The image to push, `HOST/NAME:TAG`; none: the result is thrown away.
    pub output: Option<String>,
    /// How its layers are compressed.
    pub compression: Compression,
    /// Logins: registry and login.
    pub logins: Vec<(String, Login)>,
    /// The registry host of which only what is below `bases/` and these prefixes may be a base.
    pub own_images: Option<OwnImages>,
    /// Whether everything is done anew.
    pub no_cache: bool,
    /// When it is over.
    pub timeout: Duration,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// All of them with gzip: what every engine knows. Docker 20.10 knows no zstd.
    Gzip,
    /// New ones with zstd, several times quicker: for images that only builds start from.
    Zstd,
}

/// Which images of the platform's registry a build may name.
#[derive(Debug, Clone)]
pub struct OwnImages {
    /// Host and port of the registry.
    pub registry: String,
    /// Prefixes of repositories that are allowed, each ending in `/`.
    pub allowed: Vec<String>,
}

impl Job {
    /// A build of a directory with a `Dockerfile`, with nothing else set.
    pub fn new(id: String, scope: &str, directory: &Path) -> Self {
        Self {
            id,
            scope: scope.to_owned(),
            context: directory.to_owned(),
            dockerfile_directory: directory.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            target: None,
            arguments: Vec::new(),
            secrets: Vec::new(),
            secret_files: Vec::new(),
            contexts: Vec::new(),
            output: None,
            compression: Compression::Gzip,
            logins: Vec::new(),
            own_images: None,
            no_cache: false,
            timeout: Duration::from_millis(DEFAULT_TIMEOUT_MS),
        }
    }
}

/// What a build gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved {
    /// The digest of the manifest that was pushed; none without an output.
    pub digest: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "containerimage.digest")]
    digest: Option<String>,
}

enum Ended {
    ByItself,
    TimedOut,
    DiskFull,
    DaemonDied,
}

impl Job {
    /// Builds. Lines go to `sink` as they come.
    pub async fn run(
        &self,
        lease: &Lease,
        mask: Mask,
        sink: &mut (dyn FnMut(Line) + Send),
    ) -> Result<Solved, SolveError> {
        let kit = lease.kit();
        if free_bytes(&kit.options().data_directory) < START_FREE_BYTES {
            return Err(SolveError::DiskFull);
        }
        let private =
            SecretDirectory::create(&kit.secret_directory(), &self.id).map_err(SolveError::Start)?;
        let files = Files::write(self, &private).map_err(SolveError::Start)?;
        let watch = lease.group().oom_watch();
        let mut command = lease.client(self.command_line(lease.cgroup_parent(), &files), private.path());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(SolveError::Start)?;
        // From here on, being dropped ends the build.
        let mut running = Running::new(lease.clone(), &self.scope, child, private);
        let mut progress = Progress::new(mask);
        let mut words = Vec::new();
        let ended = self
            .follow(lease, &mut running, &mut progress, &mut words, sink)
            .await?;
        match ended {
            Ended::ByItself => {}
            Ended::TimedOut => {
                running.end().await;
                return Err(SolveError::TimedOut {
                    after: self.timeout,
                    step: progress.current().map(str::to_owned),
                });
            }
            Ended::DiskFull => {
                running.end().await;
                return Err(SolveError::DiskFull);
            }
            Ended::DaemonDied => {
                running.end().await;
                return Err(SolveError::DaemonDied);
            }
        }
        let status = running.wait().await.map_err(SolveError::Start)?;
        let killed = watch.killed() > 0;
        let reached_limit = watch.reached_limit();
        let metadata = std::fs::read(&files.metadata).unwrap_or_default();
        running.disarm();
        if !status.success() {
            if says_contact_was_lost(&words) && lease.ends_soon().await {
                return Err(SolveError::DaemonDied);
            }
            return Err(SolveError::from_words(
                &words,
                progress.failed(),
                killed,
                reached_limit,
            ));
        }
        let digest = serde_json::from_slice::<Metadata>(&metadata)
            .ok()
            .and_then(|metadata| metadata.digest);
        match (&self.output, digest) {
            (Some(_), None) => Err(SolveError::Daemon(
                "it did not say which image it pushed".to_owned(),
            )),
            (_, digest) => Ok(Solved { digest }),
        }
    }

    async fn follow(
        &self,
        lease: &Lease,
        running: &mut Running,
        progress: &mut Progress,
        words: &mut Vec<String>,
        sink: &mut (dyn FnMut(Line) + Send),
    ) -> Result<Ended, SolveError> {
        let stderr = running.take_words().map_err(SolveError::Start)?;
        let mut lines = FramedRead::new(stderr, LinesCodec::new_with_max_length(MAX_PROGRESS_BYTES));
        let deadline = tokio::time::sleep_until(Instant::now() + self.timeout);
        let mut look = tokio::time::interval(Duration::from_millis(DISK_EVERY_MS));
        let died = lease.ended();
        tokio::pin!(deadline, died);
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Some(Ok(line)) => match progress.feed(&line) {
                        Some(lines) => lines.into_iter().for_each(&mut *sink),
                        None => {
                            if words.len() < WORDS {
                                words.push(progress.masked(line));
                            }
                        }
                    },
                    Some(Err(_)) | None => break Ok(Ended::ByItself),
                },
                () = &mut deadline => break Ok(Ended::TimedOut),
                () = &mut died => break Ok(Ended::DaemonDied),
                _ = look.tick() => {
                    if free_bytes(&lease.kit().options().data_directory) < KEEP_FREE_BYTES {
                        break Ok(Ended::DiskFull);
                    }
                }
            }
        }
    }
}

/// Whether the client's words are those of one whose daemon may be gone; a step's own network says similar things.
fn says_contact_was_lost(words: &[String]) -> bool {
    let signs = [
        "Unavailable",
        "transport is closing",
        "EOF",
        "connection refused",
        "reset by peer",
    ];
    words
        .iter()
        .any(|line| signs.iter().any(|sign| line.contains(sign)))
}

/// Free space where a directory is, in bytes; what cannot be asked is not in the way.
pub fn free_bytes(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
