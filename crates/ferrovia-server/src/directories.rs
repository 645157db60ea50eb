//! The directories of the platform, with the owners and modes that keep them closed to everybody else.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::config::Paths;

/// Only root may look inside.
const PRIVATE: u32 = 0o700;
/// Others may go through to what is theirs, but not look around.
const PASSAGE: u32 = 0o711;

/// A directory that could not be made as it must be.
#[derive(Debug, thiserror::Error)]
#[error("the directory `{path}` cannot be prepared: {why}")]
pub struct DirectoryError {
    /// Which one.
    pub path: PathBuf,
    /// The system's words.
    pub why: String,
}

/// Makes every directory, or sets its mode and owner right.
///
/// # Errors
/// [`DirectoryError`] naming the first that could not be prepared.
pub fn prepare(paths: &Paths, edge_user: (u32, u32)) -> Result<(), DirectoryError> {
    let root = rustix::process::geteuid().is_root();
    ensure(&paths.data, PASSAGE, None)?;
    ensure(&paths.run, PASSAGE, None)?;
    for path in [
        paths.logs(),
        paths.process_logs(),
        paths.keys(),
        paths.node_data(),
        paths.registry(),
        paths.trees(),
        paths.engine_data(),
    ] {
        ensure(&path, PRIVATE, None)?;
    }
    for path in [paths.edge_data(), paths.edge_run()] {
        ensure(&path, PRIVATE, root.then_some(edge_user))?;
    }
    Ok(())
}

fn ensure(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), DirectoryError> {
    let make = || -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        match owner {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    };
    make().map_err(|error| DirectoryError {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_gets_its_mode_again() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            data: dir.path().join("d"),
            run: dir.path().join("r"),
        };
        std::fs::create_dir_all(paths.keys()).unwrap();
        std::fs::set_permissions(paths.keys(), std::fs::Permissions::from_mode(0o777)).unwrap();
        prepare(&paths, (65534, 65534)).unwrap();
        assert_eq!(
            std::fs::metadata(paths.keys()).unwrap().permissions().mode() & 0o777,
            PRIVATE
        );
    }
}
