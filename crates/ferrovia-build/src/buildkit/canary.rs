//! The canary: a step that takes more memory than it may, and must die of it, before anything else is built.
//!
//! A limit that was written is not a limit that holds: a kernel without the controller, a container around the platform
//! or a runc that puts steps elsewhere would all go unnoticed until a build took the machine down. While the canary
//! runs the limit is small, so that it costs a second and no memory.

use std::path::Path;
use std::time::{Duration, Instant};

use ferrovia_core::error::{Class, Report};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::daemon::Lease;
use super::secrets::{Mask, SecretDirectory};
use super::solve::{Job, SolveError};
use crate::BuildError;
use crate::registry::Login;

/// Memory of daemon and steps together while the canary runs, in bytes.
pub const LIMIT_BYTES: u64 = 320 * 1024 * 1024;
/// What the canary tries to take, in bytes.
const TAKEN_BYTES: u64 = 640 * 1024 * 1024;
/// The file of its result, in the data directory.
pub const FILE: &str = "canary.json";
/// How long it may take, in milliseconds; the base may have to be fetched.
const TIMEOUT_MS: u64 = 180_000;

/// What the canary starts from.
#[derive(Debug, Clone)]
pub struct Canary {
    /// An image with a shell and coreutils.
    pub image: String,
    /// Logins for it: registry and login.
    pub logins: Vec<(String, Login)>,
}

/// What the canary showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// When.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The limit that it met, in bytes.
    pub limit_bytes: u64,
    /// Why limits do not hold; none when they do.
    pub trouble: Option<String>,
}

/// What the canary showed last, from BuildKit's data directory; `None` before its first time.
pub fn last(data_directory: &Path) -> Option<CanaryReport> {
    serde_json::from_slice(&std::fs::read(data_directory.join(FILE)).ok()?).ok()
}

impl Canary {
    pub(super) async fn run(&self, lease: &Lease) -> Result<CanaryReport, BuildError> {
        let began = Instant::now();
        let id = format!("canary-{}", uuid::Uuid::now_v7().simple());
        let place = lease.kit().secret_directory();
        let directory =
            SecretDirectory::create(&place, &format!("{id}-tree")).map_err(|error| unavailable(&error))?;
        let dockerfile = format!(
            "FROM {}\nRUN head -c {TAKEN_BYTES} /dev/zero | tail > /dev/null\n",
            self.image
        );
        std::fs::write(directory.path().join("Dockerfile"), dockerfile)
            .map_err(|error| unavailable(&error))?;
        let mut job = Job::new(id, "canary", directory.path());
        job.no_cache = true;
        job.logins = self.logins.clone();
        job.timeout = Duration::from_millis(TIMEOUT_MS);
        let trouble = match job.run(lease, Mask::default(), &mut |_| {}).await {
            Ok(_) => Some(format!(
                "a step took {TAKEN_BYTES} bytes of memory where {LIMIT_BYTES} were allowed, and lived"
            )),
            Err(SolveError::Step(failed)) if failed.exit_code == Some(137) && failed.reached_limit => None,
            Err(SolveError::Step(failed)) => Some(format!(
                "a step that takes too much memory ended in another way than being killed ({})",
                failed.error
            )),
            Err(other) => return Err(other.into_build_error()),
        };
        Ok(CanaryReport {
            at: Timestamp::now(),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            limit_bytes: LIMIT_BYTES,
            trouble,
        })
    }
}

fn unavailable(error: &std::io::Error) -> BuildError {
    BuildError {
        report: Report::new(
            "buildkit_failed",
            format!("the canary cannot be prepared ({error})"),
        ),
        class: Class::Unavailable,
    }
}
