//! Edges that were replaced and end by themselves, in minutes: how `stop` finds them.
//!
//! A draining edge has given up the lock `edge`, for its successor. Every edge therefore holds a second one with its
//! process id in its name until it ends. The file of one that ended is swept by the next edge that starts.

use std::io;
use std::path::Path;

use super::lock::{self, Living, Lock, LockError};

/// How the names of the second locks begin.
const PREFIX: &str = "edge-";

/// Takes this process' second lock. Only who holds the lock `edge` may: no other edge is between two locks then, and
/// whatever is not held belongs to nobody.
///
/// # Errors
/// [`LockError`] when the file system refuses.
pub fn take(directory: &Path, config_hash: &str) -> Result<Lock, LockError> {
    lock::sweep(directory, PREFIX);
    Lock::take(directory, &format!("{PREFIX}{}", std::process::id()), config_hash)
}

/// Every edge that lives, a draining one or not.
///
/// # Errors
/// When the file system refuses.
pub fn find(directory: &Path) -> io::Result<Vec<Living>> {
    lock::names(directory, PREFIX)?
        .iter()
        .filter_map(|name| lock::find_living(directory, name).transpose())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_found_after_it_gave_up_its_first_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(&dir.path().join("none")).unwrap().is_empty());
        std::fs::write(dir.path().join("edge-1.lock"), "of one that ended").unwrap();
        let first = Lock::take(dir.path(), "edge", "c").unwrap();
        let second = take(dir.path(), "c").unwrap();
        assert!(!dir.path().join("edge-1.lock").exists());
        drop(first.into_descriptor());
        let found = find(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].holder.pid, std::process::id());
        // One that is held stays.
        lock::sweep(dir.path(), PREFIX);
        assert_eq!(find(dir.path()).unwrap().len(), 1);
        drop(second);
        assert!(find(dir.path()).unwrap().is_empty());
    }
}
