//! Ending a build that is not wanted any more.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::process::Child;
use tokio::time::Instant;

use crate::buildkit::daemon::Lease;
use crate::buildkit::secrets::SecretDirectory;

/// How long the client may take to end when asked, in milliseconds.
const CLIENT_TIMEOUT_MS: u64 = 2_000;
/// How long the daemon may take to stop the build, in milliseconds; then it is ended itself.
const DAEMON_TIMEOUT_MS: u64 = 15_000;
/// Time between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// A build that runs; dropping it ends it.
pub(super) struct Running(Option<Parts>);

struct Parts {
    lease: Lease,
    id: String,
    child: Child,
    /// Goes with the build.
    private: SecretDirectory,
}

impl Running {
    pub(super) fn new(lease: Lease, id: String, child: Child, private: SecretDirectory) -> Self {
        Self(Some(Parts {
            lease,
            id,
            child,
            private,
        }))
    }

    /// The client.
    pub(super) fn child(&mut self) -> &mut Child {
        match &mut self.0 {
            Some(parts) => &mut parts.child,
            // Taken only by `end` and `disarm`, after which nobody asks.
            None => unreachable!("the build has ended"),
        }
    }

    /// The build ended by itself.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }

    /// Ends the build and waits for it.
    pub(super) async fn end(mut self) {
        if let Some(parts) = self.0.take() {
            parts.end().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(parts), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(parts.end());
        }
    }
}

impl Parts {
    async fn end(mut self) {
        let group = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        for signal in [Signal::TERM, Signal::KILL] {
            if let Some(group) = group {
                // A group that is gone is what is wanted.
                let _ = kill_process_group(group, signal);
            }
            let wait = Duration::from_millis(CLIENT_TIMEOUT_MS);
            if tokio::time::timeout(wait, self.child.wait()).await.is_ok() {
                break;
            }
        }
        let deadline = Instant::now() + Duration::from_millis(DAEMON_TIMEOUT_MS);
        while !self.has_stopped().await {
            if Instant::now() > deadline {
                self.lease.kit().restart().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
        tracing::debug!(build = self.id, "the build daemon stopped a cancelled build");
    }

    /// Whether the daemon has no such build in hand, and no step when there is no other build.
    async fn has_stopped(&self) -> bool {
        if self.lease.has_ended() {
            return true;
        }
        is_over(&self.lease, &self.id, self.private.path()).await
            && (!self.lease.is_alone().await || self.lease.group().steps().is_empty())
    }
}

#[derive(Deserialize)]
struct Event {
    record: Option<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "FrontendAttrs", default)]
    attributes: std::collections::HashMap<String, String>,
    #[serde(rename = "CompletedAt")]
    completed: Option<serde_json::Value>,
}

/// Whether the daemon's list of builds has this one as ended, or not at all.
async fn is_over(lease: &Lease, id: &str, config: &Path) -> bool {
    let words = ["debug", "histories", "--format", "{{json .}}"];
    let mut command = lease.client(words.map(Into::into).into(), config);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(Ok(output)) = tokio::time::timeout(Duration::from_millis(CLIENT_TIMEOUT_MS), output).await else {
        return false;
    };
    output.status.success()
        && !String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Event>(line).ok()?.record)
            .any(|record| {
                record.completed.is_none() && record.attributes.get("ferrovia").is_some_and(|found| found == id)
            })
}
