//! The log files of fake replicas, as Docker's `json-file` driver writes them: what `node` reads on a real host.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;

/// Writes the logs of all replicas into one directory.
pub(super) struct Logs {
    directory: Option<PathBuf>,
    files: Mutex<HashMap<String, File>>,
}

impl Logs {
    /// Logs in a directory, or none at all.
    pub(super) fn new(directory: Option<PathBuf>) -> io::Result<Self> {
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory)?;
        }
        Ok(Self {
            directory,
            files: Mutex::default(),
        })
    }

    /// Where a replica's log is.
    pub(super) fn path(&self, handle: &str) -> Option<PathBuf> {
        self.directory.as_deref().map(|directory| path(directory, handle))
    }

    /// Writes a line of a replica. What cannot be written is lost: a log must not stop an application.
    pub(super) fn write(&self, handle: &str, line: &str) {
        let Some(directory) = &self.directory else { return };
        let record =
            json!({ "log": format!("{line}\n"), "stream": "stdout", "time": Timestamp::now().to_string() });
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.contains_key(handle) {
            match OpenOptions::new()
                .create(true)
                .append(true)
                .open(path(directory, handle))
            {
                Ok(file) => _ = files.insert(handle.to_owned(), file),
                Err(error) => return tracing::warn!(%error, handle, "a fake replica's log cannot be opened"),
            }
        }
        if let Some(Err(error)) = files
            .get_mut(handle)
            .map(|file| file.write_all(format!("{record}\n").as_bytes()))
        {
            tracing::warn!(%error, handle, "a fake replica's log cannot be written");
        }
    }

    /// Takes a replica's log away.
    pub(super) fn remove(&self, handle: &str) {
        let Some(path) = self.path(handle) else { return };
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(handle);
        // One that never wrote has no file.
        let _ = std::fs::remove_file(path);
    }
}

fn path(directory: &Path, handle: &str) -> PathBuf {
    directory.join(format!("{handle}-json.log"))
}
