//! Waiting for the end of a process, and ending one, through a handle that never means another process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

/// Stack of a waiting thread, in bytes.
const THREAD_STACK_BYTES: usize = 64 * 1024;

/// A process to wait for. A thread waits, since the runtime's safe interface takes no foreign descriptors; there are
/// as many as processes of the platform: four.
#[derive(Debug)]
pub struct Watched {
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<bool>,
}

impl Watched {
    /// Watches the process behind a pidfd.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (tell, ended) = watch::channel(false);
        let watched = pidfd.clone();
        std::thread::Builder::new()
            .name("watch".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || {
                // Interrupted waits go on; a descriptor that cannot be waited for counts as ended, and callers look at
                // the lock again.
                while let Err(rustix::io::Errno::INTR) =
                    poll(&mut [PollFd::new(&watched, PollFlags::IN)], None)
                {}
                tell.send_replace(true);
            })?;
        Ok(Self { pidfd, ended })
    }

    /// Returns when the process has ended.
    pub async fn ended(&self) {
        // The sender goes only after it has told the end.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Sends a signal; a process that is gone is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&*self.pidfd, signal) {
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

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[tokio::test]
    async fn an_end_is_seen_and_a_stubborn_process_is_killed() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let pid = Pid::from_child(&child);
        let watched = Watched::new(pidfd_open(pid, PidfdFlags::empty()).unwrap()).unwrap();
        watched.end(Duration::from_millis(50)).await.unwrap();
        assert!(!child.wait().unwrap().success());
        watched.signal(Signal::TERM).unwrap();
    }
}
