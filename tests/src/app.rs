//! Applications to deploy: copies of the repository's examples and of the tests' own target, to be changed freely.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Failure;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// A copy of a directory.
#[derive(Debug)]
pub struct App {
    dir: TempDir,
    path: PathBuf,
}

impl App {
    /// A copy of `examples/NAME`.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn example(name: &str) -> Result<Self, Failure> {
        Self::copy(&repository().join("examples").join(name), name)
    }

    /// A copy of the tests' own target, under a name of its own.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn target(name: &str) -> Result<Self, Failure> {
        Self::copy(&repository().join("tests/apps/target"), name)
    }

    fn copy(from: &Path, name: &str) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("fv-app-").tempdir()?;
        let path = dir.path().join(name);
        copy_tree(from, &path)?;
        Ok(Self { dir, path })
    }

    /// Where the copy is; its last component is the application's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory around the copy.
    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the copy.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, content: &str) -> Result<(), Failure> {
        let path = self.path.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, content)?)
    }

    /// Replaces a text in a file of the copy; it must be there.
    ///
    /// # Errors
    /// When the file or the text is not there.
    pub fn replace(&self, file: &str, from: &str, to: &str) -> Result<(), Failure> {
        let path = self.path.join(file);
        let text = std::fs::read_to_string(&path)?;
        if !text.contains(from) {
            return Err(format!("{} does not contain `{from}`", path.display()).into());
        }
        Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
    }

    /// The target's next version, in one of its modes: `works`, `exits`, `unhealthy`, `silent`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn version(&self, version: &str, mode: &str) -> Result<(), Failure> {
        self.write("version.txt", version)?;
        self.write("mode.txt", mode)
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        // What native runs leave behind is not part of the application.
        if ["node_modules", "target", ".venv", "__pycache__", "dist"]
            .iter()
            .any(|left| name == *left)
        {
            continue;
        }
        let kind = entry.file_type()?;
        let target = to.join(&name);
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
