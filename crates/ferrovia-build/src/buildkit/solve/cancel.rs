//! Ending a build that is not wanted any more.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr};
use tokio::time::Instant;

use crate::buildkit::daemon::{Lease, ScopeUse};
use crate::buildkit::secrets::SecretDirectory;

/// How long the client may take to end when asked, in milliseconds.
const CLIENT_TIMEOUT_MS: u64 = 2_000;
/// How long a step may take to end, in milliseconds; then its processes are killed.
const STEP_TIMEOUT_MS: u64 = 2_000;
/// How long the daemon may take to stop the build, in milliseconds; then it is ended itself.
const DAEMON_TIMEOUT_MS: u64 = 15_000;
/// Time between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;

/// A build that runs; dropping it ends it.
pub(super) struct Running(Option<Parts>);

struct Parts {
    lease: Lease,
    scope: ScopeUse,
    child: Child,
    #[expect(dead_code, reason = "goes with the build")]
    private: SecretDirectory,
}

impl Running {
    pub(super) fn new(lease: Lease, scope: &str, child: Child, private: SecretDirectory) -> Self {
        Self(Some(Parts {
            scope: lease.enter_scope(scope),
            lease,
            child,
            private,
        }))
    }

    /// The client's words; once.
    pub(super) fn take_words(&mut self) -> io::Result<ChildStderr> {
        let taken = self.0.as_mut().and_then(|parts| parts.child.stderr.take());
        taken.ok_or_else(|| io::Error::other("the stream of progress is gone"))
    }

    /// Waits for the client's end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(parts) => parts.child.wait().await,
            None => Err(io::Error::other("the build has ended")),
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
        let began = Instant::now();
        let (kill_after, end_after) = (STEP_TIMEOUT_MS, DAEMON_TIMEOUT_MS);
        while !self.has_stopped() {
            let waited = began.elapsed();
            if waited > Duration::from_millis(end_after) {
                self.lease.kit().restart().await;
                return;
            }
            if waited > Duration::from_millis(kill_after) {
                self.lease.group().kill(self.scope.scope());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
    }

    /// Whether no step of the build runs any more. Where another build of the same scope runs, steps cannot be told
    /// apart; the daemon stops those of a client that is gone.
    fn has_stopped(&self) -> bool {
        self.lease.has_ended() || !self.scope.is_alone() || !self.lease.group().is_busy(self.scope.scope())
    }
}
