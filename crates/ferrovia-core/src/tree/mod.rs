//! Source trees: a sorted list of what a directory holds, and the digest that names it.
//!
//! The CLI computes a [`Manifest`] from a directory, the server from what it received: both use this module, so that
//! equal trees have equal digests. A manifest that exists is valid ([`Manifest::new`] is the only way to one, also when
//! it is read from JSON): unpacking it below any directory never leaves that directory. Names are UTF-8; times, owners
//! and permission bits other than "executable" are deliberately not part of a tree.

mod check;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use check::{ManifestError, Problem};

/// Most entries of one tree.
pub const MAX_ENTRIES: usize = 200_000;
/// Longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1_024;
/// Longest component of a path, in bytes (what Linux file systems take).
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Longest text of a symbolic link, in bytes.
pub const MAX_LINK_BYTES: usize = 1_024;
/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// Largest sum of all files, in bytes.
pub const MAX_TREE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// First bytes of what a tree digest is made of: another layout gets another line.
const DIGEST_HEADER: &[u8] = b"ferrovia-tree-1\n";

/// A SHA-256 of bytes; as text `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

/// A text that is not a [`Sha256`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits in lower case")]
pub struct ParseDigestError;

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The 64 hexadecimal digits without `sha256:`.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// From the 64 hexadecimal digits without `sha256:`.
    ///
    /// # Errors
    /// [`ParseDigestError`] for anything else, digits in upper case too.
    pub fn from_hex(digits: &str) -> Result<Self, ParseDigestError> {
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseDigestError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}
impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Sha256 {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(ParseDigestError)?)
    }
}
impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Sha256`] piece by piece.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Sha256 {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Sha256(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative, `/`-separated.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// What an entry is. Devices, sockets and pipes cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
        /// Digest of its content.
        digest: Sha256,
        /// Its size, in bytes.
        size: u64,
    },
    /// A symbolic link, kept literally and never followed.
    Symlink {
        /// Its text: relative, and inside the tree.
        target: String,
    },
    /// An empty directory; others follow from the paths in them.
    Directory,
}

/// A valid tree: entries sorted by the bytes of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// Sorts and checks `entries`.
    ///
    /// # Errors
    /// [`ManifestError`] names the first entry that has no place in a tree.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        check::check(&entries)?;
        Ok(Self { entries })
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`.
    pub fn find(&self, path: &str) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by(|entry| entry.path.as_bytes().cmp(path.as_bytes()));
        at.ok().map(|at| &self.entries[at])
    }

    /// Sum of the sizes of all files, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.blobs().map(|(_, size)| size).sum()
    }

    /// Digest and size of every file's content; the same content may come twice.
    pub fn blobs(&self) -> impl Iterator<Item = (Sha256, u64)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::File { digest, size, .. } => Some((*digest, *size)),
            EntryKind::Symlink { .. } | EntryKind::Directory => None,
        })
    }

    /// The tree's name: a digest over path, type, executable bit, and content digest or link text of every entry.
    ///
    /// Lengths stand before texts, so that no two trees give the same bytes.
    pub fn digest(&self) -> Sha256 {
        let mut hasher = Hasher::new();
        hasher.update(DIGEST_HEADER);
        for entry in &self.entries {
            let (tag, rest): (u8, &[u8]) = match &entry.kind {
                EntryKind::File {
                    executable: false,
                    digest,
                    ..
                } => (b'f', &digest.0),
                EntryKind::File {
                    executable: true,
                    digest,
                    ..
                } => (b'x', &digest.0),
                EntryKind::Symlink { target } => (b'l', target.as_bytes()),
                EntryKind::Directory => (b'd', b""),
            };
            hasher.update(&[tag]);
            for text in [entry.path.as_bytes(), rest] {
                hasher.update(&(text.len() as u64).to_be_bytes());
                hasher.update(text);
            }
        }
        hasher.finish()
    }
}

impl TryFrom<Vec<Entry>> for Manifest {
    type Error = ManifestError;

    fn try_from(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        Self::new(entries)
    }
}

impl From<Manifest> for Vec<Entry> {
    fn from(manifest: Manifest) -> Self {
        manifest.entries
    }
}
