//! Runs `nft`. One child at a time; each text is one transaction.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use ferrovia_core::error::Class;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Longest run of `nft`, in milliseconds: 1,000 environments load in under 1 s.
const TIMEOUT_MS: u64 = 20_000;
/// Longest listing that is read, in bytes.
const MAX_LISTING_BYTES: u64 = 256 * 1024 * 1024;
/// Longest complaint that is kept, in bytes.
const MAX_COMPLAINT_BYTES: u64 = 2_000;
/// Process ids of our own runs that are remembered, so that their events are known.
const REMEMBERED: usize = 64;

/// A failed run of `nft`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("`nft` cannot be run; install the package `nftables`")]
    Run(#[source] std::io::Error),
    /// It said no.
    #[error("`nft` refused the rules: {0}")]
    Refused(String),
    /// It did not end.
    #[error("`nft` did not end in {TIMEOUT_MS} ms")]
    Timeout,
    /// What it listed is not understood.
    #[error("the listing of `nft` is not understood")]
    Listing(#[source] serde_json::Error),
}

impl Error {
    /// What kind of failure this is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Run(_) => Class::Unavailable,
            Self::Refused(_) | Self::Listing(_) => Class::Bug,
            Self::Timeout => Class::Transient,
        }
    }
}

/// Runs `nft` and remembers which runs were ours.
#[derive(Debug, Default)]
pub struct Nft {
    ours: VecDeque<u32>,
}

impl Nft {
    /// Whether a process was a run of ours.
    pub fn is_ours(&self, process: u32) -> bool {
        self.ours.contains(&process)
    }

    /// Applies a text in one transaction.
    ///
    /// # Errors
    /// [`Error`]; after [`Error::Timeout`] it is unknown whether it took effect.
    pub async fn apply(&mut self, text: &str) -> Result<(), Error> {
        self.run(&["-f", "-"], text).await.map(drop)
    }

    /// Whether the kernel would take a text.
    ///
    /// # Errors
    /// [`Error`] but for [`Error::Refused`].
    pub async fn would_take(&mut self, text: &str) -> Result<bool, Error> {
        match self.run(&["-c", "-f", "-"], text).await {
            Ok(_) => Ok(true),
            Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The objects of a table as JSON; `None` when there is no such table.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&mut self, family: &str, table: &str) -> Result<Option<serde_json::Value>, Error> {
        match self.run(&["-j", "list", "table", family, table], "").await {
            Ok(listing) => serde_json::from_slice(&listing).map(Some).map_err(Error::Listing),
            Err(Error::Refused(why)) if why.contains("No such file") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn run(&mut self, arguments: &[&str], input: &str) -> Result<Vec<u8>, Error> {
        let mut child = Command::new("nft")
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Run)?;
        // Noted before the child has read anything, so that no event of its comes before the note.
        self.ours.extend(child.id());
        while self.ours.len() > REMEMBERED {
            self.ours.pop_front();
        }
        tokio::time::timeout(Duration::from_millis(TIMEOUT_MS), finish(&mut child, input))
            .await
            .map_err(|_| Error::Timeout)?
    }
}

async fn finish(child: &mut Child, input: &str) -> Result<Vec<u8>, Error> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::Run(std::io::Error::other("a pipe is missing")));
    };
    let mut listing = Vec::new();
    let mut complaint = Vec::new();
    let write = async move {
        let written = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        written
    };
    let mut stdout = stdout.take(MAX_LISTING_BYTES);
    let mut stderr = stderr.take(MAX_COMPLAINT_BYTES);
    let (_, listed, complained) = tokio::join!(
        // A child that ends early says why below.
        write,
        stdout.read_to_end(&mut listing),
        stderr.read_to_end(&mut complaint)
    );
    listed.and(complained).map_err(Error::Run)?;
    let status = child.wait().await.map_err(Error::Run)?;
    if status.success() {
        Ok(listing)
    } else {
        Err(Error::Refused(
            String::from_utf8_lossy(&complaint).trim().to_owned(),
        ))
    }
}
