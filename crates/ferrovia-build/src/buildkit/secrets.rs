//! Secrets on their way into a build: files that only root reads, in a directory that goes when the build ends.
//!
//! The run directory is in memory on every ordinary host. What a killed control left is swept when the next one starts.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ferrovia_core::secret::Secret;

/// A directory of secrets; dropping it takes it away.
#[derive(Debug)]
pub struct SecretDirectory(PathBuf);

impl SecretDirectory {
    /// A new one below `parent`, which is made when it is missing.
    pub fn create(parent: &Path, name: &str) -> std::io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true).create(parent)?;
        let path = parent.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only its owner reads.
    pub fn write(&self, name: &str, content: &Secret) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.expose().as_bytes())?;
        Ok(path)
    }
}

impl Drop for SecretDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "secrets of a build stay until the next start");
        }
    }
}

/// Takes away what a killed control left.
pub fn sweep(parent: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(parent) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Shortest value that is looked for in logs, in bytes: shorter ones stand in ordinary words.
const MIN_MASKED_BYTES: usize = 8;
/// What stands in a log where a secret stood.
const MASK: &str = "***";

/// Takes the values of secrets out of lines.
#[derive(Clone, Default)]
pub struct Mask(Vec<Secret>);

impl Mask {
    /// For these values. Short ones and plain words (`production`) are left in: taking them out would hide the log
    /// and no secret.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut hidden: Vec<Secret> = secrets
            .into_iter()
            .flat_map(|secret| secret.expose().lines().map(str::trim))
            .filter(|line| {
                line.len() >= MIN_MASKED_BYTES && !line.bytes().all(|byte| byte.is_ascii_lowercase())
            })
            .map(Secret::new)
            .collect();
        // The longest first: one may be part of another.
        hidden.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self(hidden)
    }

    /// The line without them.
    pub fn apply(&self, line: String) -> String {
        self.0
            .iter()
            .fold(line, |line, secret| match line.contains(secret.expose()) {
                true => line.replace(secret.expose(), MASK),
                false => line,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_go() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SecretDirectory::create(&parent.path().join("secrets"), "b1").unwrap();
        let file = directory.write("0", &Secret::new("hunter2")).unwrap();
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let mode = std::fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(directory);
        assert!(!file.exists());
    }

    #[test]
    fn values_are_taken_out_of_lines() {
        let secrets = [
            "s3cr3t-value",
            "production",
            "short",
            "first line 1\nsecond line 2",
        ]
        .map(Secret::new);
        let mask = Mask::new(&secrets);
        let line = "a s3cr3t-value in production: short, second line 2".to_owned();
        assert_eq!(mask.apply(line), "a *** in production: short, ***");
    }
}
