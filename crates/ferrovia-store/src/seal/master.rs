//! The file of the master keys: a line per key, the first seals, all open.
//!
//! A line is the key's id and the key in hex. The id is made from the key, so that a damaged line is noticed. The
//! file is written whole, to another name, and renamed, under a lock on its directory: of two processes that start
//! together, one makes it and both use it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Error;
use super::envelope::{DataKey, KEY_BYTES, derive};

/// Directory of the keys, under the data directory.
const DIRECTORY: &str = "keys";
/// The file's name.
const FILE: &str = "master.key";
/// Longest file that is read, in bytes: hundreds of keys.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The master keys. Does not print.
#[derive(Debug)]
pub struct MasterKeys {
    keys: Vec<DataKey>,
}

impl MasterKeys {
    /// Where the file is, under a data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(DIRECTORY).join(FILE)
    }

    /// The keys in the file; none when there is no file.
    ///
    /// # Errors
    /// [`Error::Exposed`] when others may read it, [`Error::Damaged`], [`Error::File`].
    pub fn find(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(data_dir);
        let failed = |source| Error::File {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // Of the open file and not of the path: nobody can put another one there in between.
        let metadata = file.metadata().map_err(failed)?;
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        let own = rustix::process::geteuid().as_raw();
        if mode & 0o077 != 0 || (owner != own && owner != 0) {
            return Err(Error::Exposed { path, mode, owner });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let damaged = || Error::Damaged {
                path: path.clone(),
                line: number + 1,
            };
            let (id, raw) = line.split_once(' ').ok_or_else(damaged)?;
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            hex::decode_to_slice(raw, &mut key[..]).map_err(|_| damaged())?;
            if id != id_of(&key).to_string() {
                return Err(damaged());
            }
            keys.push(DataKey::new(id_of(&key), &key)?);
        }
        if keys.is_empty() {
            return Err(Error::Damaged { path, line: 0 });
        }
        Ok(Some(Self { keys }))
    }

    /// The keys in the file, which is made with one new key when there is none.
    ///
    /// # Errors
    /// As [`MasterKeys::find`].
    pub fn ensure(data_dir: &Path) -> Result<Self, Error> {
        if let Some(keys) = Self::find(data_dir)? {
            return Ok(keys);
        }
        let path = Self::path(data_dir);
        create(&path).map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        Self::find(data_dir)?.ok_or(Error::Missing { path })
    }

    /// The key that seals.
    pub(super) fn current(&self) -> Option<&DataKey> {
        self.keys.first()
    }

    /// The key of an id.
    pub(super) fn get(&self, id: Uuid) -> Result<&DataKey, Error> {
        let found = self.keys.iter().find(|key| key.id() == id);
        found.ok_or_else(|| Error::UnknownKey { id: id.to_string() })
    }
}

/// Makes the file with a new key, unless it is there.
fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Ends with the process: nothing to clean up after a kill.
    let lock = File::open(directory)?;
    lock.lock()?;
    if path.exists() {
        return Ok(());
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut key[..]).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let raw = Zeroizing::new(hex::encode(&key[..]));
    let line = Zeroizing::new(format!("{} {}\n", id_of(&key), raw.as_str()));
    let partial = directory.join(format!("{FILE}.partial"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    // What is left of a killed process may have another mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    lock.sync_all()?;
    match directory.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A key's id: not the key, and not to be chosen.
fn id_of(key: &[u8; KEY_BYTES]) -> Uuid {
    let derived = derive(key, b"id");
    let mut id = [0; 16];
    id.copy_from_slice(&derived[..16]);
    Uuid::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fv-master-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn is_made_once_and_found_again() {
        let dir = Dir::new("once");
        assert!(MasterKeys::find(&dir.0).unwrap().is_none());
        let ids: Vec<Uuid> = thread::scope(|scope| {
            let make = || MasterKeys::ensure(&dir.0).unwrap().current().unwrap().id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        let metadata = fs::metadata(MasterKeys::path(&dir.0)).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.0.join(DIRECTORY)).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn what_others_may_read_is_refused_with_the_remedy() {
        let dir = Dir::new("exposed");
        MasterKeys::ensure(&dir.0).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(MasterKeys::path(&dir.0), Permissions::from_mode(mode)).unwrap();
            let error = MasterKeys::ensure(&dir.0).unwrap_err();
            assert!(error.report().hint.unwrap().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn damage_is_noticed_and_says_nothing_of_the_key() {
        let dir = Dir::new("damaged");
        MasterKeys::ensure(&dir.0).unwrap();
        let path = MasterKeys::path(&dir.0);
        let good = fs::read_to_string(&path).unwrap();
        let mut other = good.clone().into_bytes();
        let last = other.len() - 2;
        other[last] = if other[last] == b'0' { b'1' } else { b'0' };
        for bad in [
            "",
            "\n",
            "# no key\n",
            "x y\n",
            &good[..40],
            &String::from_utf8(other).unwrap(),
        ] {
            fs::write(&path, bad).unwrap();
            let error = MasterKeys::ensure(&dir.0).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{bad:?}: {error}");
            assert!(!format!("{error:?}").contains(&good[40..60]));
        }
    }
}
