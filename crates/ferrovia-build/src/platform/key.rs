//! Keyed hashes: what stands for the values of variables where a hash is kept, and the key of an image.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::hmac;
use ferrovia_core::secret::Secret;

use crate::digest::{Digest, Hasher};

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Its file, in the builder's data directory.
const FILE: &str = "variables.key";

/// Stands for values, without giving them away to whoever reads plans, caches or images. A key that is lost costs a
/// rebuild and nothing else.
pub(super) struct VariablesKey(hmac::Key);

impl VariablesKey {
    /// The key of a data directory, made at the first start.
    pub(super) fn ensure(directory: &Path) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).recursive(true).create(directory)?;
        let path = directory.join(FILE);
        let mut bytes = [0; KEY_BYTES];
        match std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut bytes)) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                bytes = rand::random();
                let partial = directory.join(format!(".{FILE}-{}", uuid::Uuid::now_v7().simple()));
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&partial)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                std::fs::rename(&partial, &path)?;
                std::fs::File::open(directory)?.sync_all()?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Name to hash of the value, which differs between projects and names.
    pub(super) fn hashes<'a>(
        &self,
        project: &str,
        variables: impl IntoIterator<Item = &'a (String, Secret)>,
    ) -> BTreeMap<String, String> {
        let hash = |name: &str, value: &Secret| {
            let mut context = hmac::Context::with_key(&self.0);
            for part in [project, name, value.expose()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
            hex::encode(context.sign())
        };
        variables
            .into_iter()
            .map(|(name, value)| (name.clone(), hash(name, value)))
            .collect()
    }
}

/// One digest over named parts; no two lists of parts give the same bytes.
pub(super) fn image_key<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut hasher = Hasher::default();
    for text in parts.into_iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finish().to_string()
}

/// As [`image_key`], for short names of things.
pub(super) fn short_hash<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut hex = image_key(parts).split_off("sha256:".len());
    hex.truncate(12);
    hex
}

/// The digest that a text names.
pub(super) fn parse_digest(text: &str) -> Option<Digest> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_private_stays_and_tells_everything_apart() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("builds");
        let key = VariablesKey::ensure(&data).unwrap();
        let again = VariablesKey::ensure(&data).unwrap();
        let mode = std::fs::metadata(data.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let one = |key: &VariablesKey, project: &str, name: &str, value: &str| {
            let pair = (name.to_owned(), Secret::new(value));
            key.hashes(project, [&pair]).remove(name).unwrap()
        };
        let first = one(&key, "p", "A", "v");
        assert_eq!(first, one(&again, "p", "A", "v"));
        let other = VariablesKey::ensure(&directory.path().join("other")).unwrap();
        for different in [
            one(&key, "q", "A", "v"),
            one(&key, "p", "B", "v"),
            one(&key, "p", "A", "w"),
            one(&key, "p", "Av", ""),
            one(&other, "p", "A", "v"),
        ] {
            assert_ne!(first, different);
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(image_key([("a", "bc")]), image_key([("ab", "c")]));
        assert_ne!(image_key([("a", "b"), ("c", "d")]), image_key([("a", "bcd")]));
        assert_eq!(short_hash([("a", "b")]).len(), 12);
    }
}
