//! A directory made from a tree.
//!
//! A valid manifest cannot name anything outside, and yet every step here is relative to an open directory, refuses to
//! follow links and refuses what is there already: two independent reasons why nothing escapes.
//!
//! A file's time follows from its content. So equal trees give equal layers, BuildKit's transfer sees what did not
//! change, and a web server's validators change exactly when a file does (one fixed time for all would leave them as
//! they are when the size stays the same).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferrovia_core::tree::{EntryKind, Manifest, Sha256};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fchmod, mkdirat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{TreeError, open};

/// Modes of files and directories, whatever the umask.
const FILE_MODE: u32 = 0o644;
const PROGRAM_MODE: u32 = 0o755;
const DIRECTORY_MODE: u32 = 0o755;
/// The earliest time of a file: the first second of 2001.
const FIRST_SECOND: u64 = 978_307_200;
/// Seconds over which times are spread (17 years), a power of two.
const SPREAD_SECONDS: u64 = 1 << 29;

/// Makes `directory`, which must not be there, hold exactly the tree, from contents in `blobs`. What was made is taken
/// away on failure.
///
/// # Errors
/// [`TreeError::Missing`] when a content is not there; [`TreeError::Disk`] and [`TreeError::NoRoom`].
pub fn unpack(blobs: &Path, manifest: &Manifest, directory: &Path) -> Result<(), TreeError> {
    let disk = TreeError::disk("making a directory for the source");
    mkdirat(CWD, directory, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(|error| disk(error.into()))?;
    let filled = fill(blobs, manifest, directory);
    if filled.is_err() {
        // What failed is told; the directory lies where the platform sweeps.
        let _ = std::fs::remove_dir_all(directory);
    }
    filled
}

fn fill(blobs: &Path, manifest: &Manifest, directory: &Path) -> Result<(), TreeError> {
    let disk = |error: Errno| TreeError::disk("writing the source")(error.into());
    let root = open_directory(CWD, directory).map_err(disk)?;
    fchmod(&root, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(disk)?;
    // The directory of the last entry stays open: entries are sorted, so most lie beside the one before.
    let mut current = (
        String::new(),
        root.try_clone().map_err(TreeError::disk("writing the source"))?,
    );
    for entry in manifest.entries() {
        let (parent, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        if current.0 != parent {
            current = (parent.to_owned(), ensure_directory(&root, parent).map_err(disk)?);
        }
        let parent = &current.1;
        match &entry.kind {
            EntryKind::File {
                executable,
                digest,
                size,
            } => {
                let mode = if *executable { PROGRAM_MODE } else { FILE_MODE };
                write_file(blobs, parent, name, mode, *digest, *size)?;
            }
            EntryKind::Symlink { target } => {
                symlinkat(target.as_str(), parent, name).map_err(disk)?;
                let times = timestamps(Sha256::of(target.as_bytes()));
                utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(disk)?;
            }
            EntryKind::Directory => {
                ensure_directory(parent, name).map_err(disk)?;
            }
        }
    }
    Ok(())
}

fn write_file(
    blobs: &Path,
    parent: &OwnedFd,
    name: &str,
    mode: u32,
    digest: Sha256,
    size: u64,
) -> Result<(), TreeError> {
    let disk = TreeError::disk("writing the source");
    let mut content = open(blobs, digest)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, name, flags, Mode::from_raw_mode(mode)).map_err(|error| disk(error.into()))?;
    fchmod(&made, Mode::from_raw_mode(mode)).map_err(|error| disk(error.into()))?;
    let mut file = File::from(made);
    if io::copy(&mut content, &mut file).map_err(&disk)? != size {
        return Err(TreeError::WrongSize {
            digest,
            announced: size,
        });
    }
    file.set_modified(modified(digest)).map_err(disk)
}

/// Opens a directory below `root`, making what is missing, following no link.
fn ensure_directory(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let mut current = open_directory(root, ".")?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match mkdirat(&current, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) => {
                current = open_directory(&current, name)?;
                fchmod(&current, Mode::from_raw_mode(DIRECTORY_MODE))?;
            }
            Err(Errno::EXIST) => current = open_directory(&current, name)?,
            Err(error) => return Err(error),
        }
    }
    Ok(current)
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// The time of a file with this content.
fn modified(digest: Sha256) -> SystemTime {
    let [a, b, c, d, e, f, g, h, ..] = digest.bytes();
    let bits = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let seconds = FIRST_SECOND + bits % SPREAD_SECONDS;
    SystemTime::UNIX_EPOCH + Duration::new(seconds, ((bits >> 32) % 1_000_000_000) as u32)
}

fn timestamps(digest: Sha256) -> Timestamps {
    let since = modified(digest)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let time = Timespec {
        tv_sec: since.as_secs().cast_signed(),
        tv_nsec: since.subsec_nanos().into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
