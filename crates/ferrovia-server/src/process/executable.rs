//! The file that this process was started from, to start others from.

use std::io;
use std::path::PathBuf;

/// What the kernel appends to the name of a file that was replaced (proc_pid_exe(5)).
const REPLACED: &str = " (deleted)";
/// The file itself, whatever became of its name.
const SELF: &str = "/proc/self/exe";

/// Its path. After an upgrade in place that is the new file; when the name is gone, the file that runs.
///
/// # Errors
/// When the kernel does not tell.
pub fn path() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let named = match path.to_str().and_then(|path| path.strip_suffix(REPLACED)) {
        Some(name) => PathBuf::from(name),
        None => path,
    };
    Ok(if named.is_file() {
        named
    } else {
        PathBuf::from(SELF)
    })
}
