//! Waiting for the end of a process, and ending one, through a handle that never means another process.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process to wait for.
#[derive(Debug)]
pub struct Watched {
    pidfd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// Watches the process behind a pidfd. Must be called within a runtime.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pidfd: AsyncFd::with_interest(pidfd, Interest::READABLE)? })
    }

    /// Returns when the process has ended.
    pub async fn ended(&self) {
        // An error of the runtime's poller cannot be told from an end here; callers look at the lock again.
        let _ = self.pidfd.readable().await.map(|mut guard| guard.retain_ready());
    }

    /// Sends a signal; a process that is gone is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// SIGTERM, and SIGKILL when it still lives after `grace`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn end(&self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            self.signal(Signal::KILL)?;
            self.ended().await;
        }
        Ok(())
    }
}
