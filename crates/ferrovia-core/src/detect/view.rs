//! What detection sees of a source tree: all paths, and the beginnings of the few small files that say what it is.
//!
//! Held in memory, so that detection does no I/O and works in the CLI and in the server alike. [`SourceView::load`]
//! asks its caller only for files that [`is_wanted`] names, nearest to the root first, within bounds: a tree with ten
//! thousand manifests costs no more than one with a hundred.

use std::collections::BTreeMap;

use crate::tree::{EntryKind, Manifest};

/// How much of a file is read, in bytes.
pub const MAX_HEAD_BYTES: usize = 256 * 1024;
/// How much is read of all files together, in bytes.
pub const MAX_VIEW_BYTES: usize = 16 * 1024 * 1024;
/// Most files that are read.
pub const MAX_READ_FILES: usize = 2_000;
/// Deepest directory whose files are read; the root is 0.
const MAX_DEPTH: usize = 12;

/// A source tree as detection sees it.
#[derive(Debug, Clone, Default)]
pub struct SourceView {
    /// Path to "is executable".
    files: BTreeMap<String, bool>,
    heads: BTreeMap<String, String>,
}

impl SourceView {
    /// A view of the directory `root` of a tree (empty: of all of it). `read` gives the first bytes of a file, at most
    /// as many as its second argument says.
    ///
    /// # Errors
    /// What `read` fails with.
    pub fn load<E>(
        manifest: &Manifest,
        root: &str,
        mut read: impl FnMut(&str, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let prefix = match root.trim_matches('/') {
            "" | "." => String::new(),
            root => format!("{}/", root.strip_prefix("./").unwrap_or(root)),
        };
        let mut view = Self::default();
        for entry in manifest.entries() {
            let Some(path) = entry.path.strip_prefix(&prefix) else {
                continue;
            };
            match entry.kind {
                EntryKind::File { executable, .. } => view.files.insert(path.to_owned(), executable),
                EntryKind::Symlink { .. } => view.files.insert(path.to_owned(), false),
                EntryKind::Directory => None,
            };
        }
        let mut wanted: Vec<_> = view
            .files
            .keys()
            .filter(|path| is_wanted(path))
            .cloned()
            .collect();
        wanted.sort_by_key(|path| path.matches('/').count());
        let mut left = MAX_VIEW_BYTES;
        for path in wanted.into_iter().take(MAX_READ_FILES) {
            let full = format!("{prefix}{path}");
            let is_file = manifest
                .find(&full)
                .is_some_and(|e| matches!(e.kind, EntryKind::File { .. }));
            if !is_file || left == 0 {
                continue;
            }
            let head = read(&full, MAX_HEAD_BYTES.min(left))?;
            left = left.saturating_sub(head.len());
            view.heads
                .insert(path, String::from_utf8_lossy(&head).into_owned());
        }
        Ok(view)
    }

    /// A view of files that are at hand.
    pub fn from_files<P: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let mut view = Self::default();
        for (path, text) in files {
            let path = path.into();
            view.files.insert(path.clone(), false);
            view.heads.insert(path, text.into());
        }
        view
    }

    /// Whether there is such a file (or link).
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether there is such a directory.
    pub fn has_directory(&self, path: &str) -> bool {
        self.below(path).next().is_some()
    }

    /// The beginning of a file, if it was read.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.heads
            .get(path)
            .map(|text| text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// Whether the file is executable.
    pub fn is_executable(&self, path: &str) -> bool {
        self.files.get(path).copied().unwrap_or(false)
    }

    /// All paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The paths below a directory, relative to the view's root; of the empty one, all.
    pub fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        let start = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let prefix = start.clone();
        self.files
            .range(start..)
            .map(|(path, _)| path.as_str())
            .take_while(move |path| path.starts_with(&prefix))
    }

    /// The files right in a directory, by name.
    pub fn names_in<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        let skip = if directory.is_empty() {
            0
        } else {
            directory.len() + 1
        };
        self.below(directory)
            .map(move |path| &path[skip..])
            .filter(|name| !name.contains('/'))
    }

    /// The first of these files that is there.
    pub fn first<'a>(&self, paths: &[&'a str]) -> Option<&'a str> {
        paths.iter().copied().find(|path| self.has(path))
    }

    /// The directories right below a directory, sorted.
    pub fn directories_in(&self, directory: &str) -> Vec<String> {
        let skip = if directory.is_empty() {
            0
        } else {
            directory.len() + 1
        };
        let mut found: Vec<String> = Vec::new();
        for path in self.below(directory) {
            if let Some((name, _)) = path[skip..].split_once('/')
                && found.last().is_none_or(|last| last != name)
            {
                found.push(name.to_owned());
            }
        }
        found.dedup();
        found
    }

    /// The view of a directory of this one.
    pub fn narrowed(&self, directory: &str) -> Self {
        let skip = if directory.is_empty() {
            0
        } else {
            directory.len() + 1
        };
        let mut view = Self::default();
        for path in self.below(directory) {
            view.files
                .insert(path[skip..].to_owned(), self.is_executable(path));
            if let Some(head) = self.heads.get(path) {
                view.heads.insert(path[skip..].to_owned(), head.clone());
            }
        }
        view
    }
}

/// Names that are read wherever they lie.
const WANTED_NAMES: &[&str] = &[
    "package.json",
    "Cargo.toml",
    "pom.xml",
    "go.mod",
    "pyproject.toml",
];

/// Names that are read in the root.
const WANTED_IN_ROOT: &[&str] = &[
    ".dockerignore",
    ".java-version",
    ".node-version",
    ".npmrc",
    ".nvmrc",
    ".python-version",
    ".tool-versions",
    ".yarnrc.yml",
    "Dockerfile",
    "Cargo.lock",
    "Pipfile",
    "Procfile",
    "Staticfile",
    "angular.json",
    "app.json",
    "go.work",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "poetry.lock",
    "runtime.txt",
    "rust-toolchain",
    "rust-toolchain.toml",
    "system.properties",
    "tsconfig.json",
    "yarn.lock",
];

/// Whether detection may look into the file at this path.
pub fn is_wanted(path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let depth = path.matches('/').count();
    if depth > MAX_DEPTH || directory.split('/').any(is_foreign) {
        return false;
    }
    if WANTED_NAMES.contains(&name) {
        return true;
    }
    let script = |name: &str| {
        [".js", ".mjs", ".cjs", ".ts", ".mts"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    match depth {
        0 => {
            WANTED_IN_ROOT.contains(&name)
                || name.contains("ockerfile")
                || name.starts_with("requirements") && name.ends_with(".txt")
                || name.contains(".config.") && script(name)
                || matches!(name, "server.js" | "app.js" | "index.js" | "main.js")
                || name.ends_with(".py")
                || name.ends_with(".go")
        }
        _ if name.ends_with(".go") => depth <= 3,
        _ if name.ends_with(".py") => depth <= 2,
        _ if name.ends_with(".java") => directory.contains("src/main/java"),
        _ => name.contains("ockerfile") || name.ends_with(".config.ts") && depth <= 3,
    }
}

/// Directories whose files say nothing about the application.
pub fn is_foreign(name: &str) -> bool {
    matches!(
        name,
        "node_modules"
            | "vendor"
            | "target"
            | ".venv"
            | "venv"
            | ".git"
            | "__pycache__"
            | "site-packages"
            | "testdata"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Entry, Sha256};

    fn manifest(paths: &[&str]) -> Manifest {
        let entry = |path: &&str| Entry {
            path: (*path).to_owned(),
            kind: EntryKind::File {
                executable: false,
                digest: Sha256::of(b""),
                size: 0,
            },
        };
        Manifest::new(paths.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn only_what_says_something_is_read_and_the_root_narrows() {
        let manifest = manifest(&[
            "README.md",
            "app/node_modules/x/package.json",
            "app/package.json",
            "app/photo.jpg",
            "app/lib/deep/package.json",
            "other/package.json",
        ]);
        let mut read = Vec::new();
        let view = SourceView::load(&manifest, "./app/", |path, _| {
            read.push(path.to_owned());
            Ok::<_, std::convert::Infallible>(b"{}".to_vec())
        })
        .unwrap();
        assert_eq!(read, ["app/package.json", "app/lib/deep/package.json"]);
        assert_eq!(view.text("package.json"), Some("{}"));
        assert!(view.has("photo.jpg") && !view.has("README.md") && view.has_directory("lib"));
        assert_eq!(view.directories_in(""), ["lib", "node_modules"]);
        assert_eq!(
            view.names_in("").collect::<Vec<_>>(),
            ["package.json", "photo.jpg"]
        );
    }

    #[test]
    fn what_is_read_is_bounded() {
        let paths: Vec<String> = (0..3_000).map(|n| format!("p{n}/package.json")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut bytes = 0;
        SourceView::load(&manifest(&paths), "", |_, limit| {
            bytes += limit;
            Ok::<_, std::convert::Infallible>(vec![b'x'; limit])
        })
        .unwrap();
        assert_eq!(bytes, MAX_VIEW_BYTES);
    }
}
