//! What of a directory is sent: everything but `.git`, what `.gitignore` files name and what `.dockerignore` names.
//!
//! `.gitignore` files above the directory count when it lies in a git repository. `.dockerignore` follows Docker's
//! rules: patterns are anchored at the top, the last one that matches a file or a directory above it wins, and the
//! Dockerfile and `.dockerignore` themselves are always sent.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferrovia_core::tree::{Entry, EntryKind, Hasher, Manifest, Sha256};
use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::failure::Failure;
use crate::printer::Printer;

/// A directory as it was found.
#[derive(Debug)]
pub struct Scan {
    /// What it holds.
    pub manifest: Manifest,
    /// Things that are not sent although nothing ignores them: sockets, devices, pipes.
    pub skipped: Vec<String>,
}

/// A directory that takes longer to read is spoken of, in milliseconds.
const NOTICE_MS: u64 = 1_000;

/// The same as [`scan`], off the runtime's thread, saying so when it takes long.
pub async fn scan_told(root: &Path, printer: &Printer) -> Result<Scan, Failure> {
    let from = root.to_owned();
    let mut scanning = tokio::task::spawn_blocking(move || scan(&from));
    let scanned = tokio::select! {
        scanned = &mut scanning => scanned,
        () = tokio::time::sleep(Duration::from_millis(NOTICE_MS)) => {
            printer.murmur(format!("reading `{}`", root.display()));
            scanning.await
        }
    };
    scanned.map_err(|error| Failure::new("scan_failed", error.to_string()))?
}

/// Reads and hashes everything that is sent. Blocks on the disk.
pub fn scan(root: &Path) -> Result<Scan, Failure> {
    let docker = DockerIgnore::read(root)?;
    let in_repository = root.ancestors().any(|ancestor| ancestor.join(".git").exists());
    let prune = docker.clone();
    let from = root.to_owned();
    let walk = WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .git_ignore(true)
        .git_exclude(in_repository)
        .require_git(false)
        .parents(in_repository)
        .follow_links(false)
        .filter_entry(move |entry| {
            let Ok(relative) = entry.path().strip_prefix(&from) else {
                return true;
            };
            entry.file_name() != ".git" && !(entry.path().is_dir() && prune.prunes(relative))
        })
        .build();
    let mut entries = Vec::new();
    let mut directories = Vec::new();
    let mut skipped = Vec::new();
    for found in walk {
        let found = found.map_err(|error| Failure::new("scan_failed", error.to_string()))?;
        let Ok(relative) = found.path().strip_prefix(root) else {
            continue;
        };
        let Some(kind) = found.file_type().filter(|_| !relative.as_os_str().is_empty()) else {
            continue;
        };
        if !kind.is_dir() && docker.ignores(relative) {
            continue;
        }
        let path = text_of(relative)?;
        if kind.is_dir() {
            directories.push(path);
        } else if kind.is_symlink() {
            let target =
                std::fs::read_link(found.path()).map_err(|error| unreadable(found.path(), &error))?;
            let kind = EntryKind::Symlink {
                target: text_of(&target)?,
            };
            entries.push(Entry { path, kind });
        } else if kind.is_file() {
            let kind = hash(found.path()).map_err(|error| unreadable(found.path(), &error))?;
            entries.push(Entry { path, kind });
        } else {
            skipped.push(path);
        }
    }
    if docker.is_empty() {
        entries.extend(empty_directories(directories, &entries));
    }
    if entries.is_empty() {
        return Err(
            Failure::usage(format!("there is nothing to deploy in `{}`", root.display()))
                .hint("Give the directory of an application: `ferrovia up DIRECTORY`. What `.gitignore` and `.dockerignore` name is left out"),
        );
    }
    let manifest = Manifest::new(entries).map_err(|error| {
        let report = error.report();
        let failure = Failure::new(&report.code, report.message);
        match report.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    Ok(Scan { manifest, skipped })
}

fn empty_directories(directories: Vec<String>, entries: &[Entry]) -> Vec<Entry> {
    let mut above = std::collections::BTreeSet::new();
    let paths = entries.iter().map(|entry| entry.path.as_str());
    for path in paths.chain(directories.iter().map(String::as_str)) {
        above.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
    }
    directories
        .into_iter()
        .filter(|path| !above.contains(path))
        .map(|path| Entry {
            path,
            kind: EntryKind::Directory,
        })
        .collect()
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::new(
            "tree_invalid",
            format!("the name `{}` is not UTF-8", path.display()),
        )
        .hint("rename it or list it in `.gitignore`")
    })?;
    Ok(if cfg!(windows) {
        text.replace('\\', "/")
    } else {
        text.to_owned()
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        "scan_failed",
        format!("`{}` cannot be read: {error}", path.display()),
    )
    .hint("make it readable or list it in `.gitignore`")
}

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

fn hash(path: &Path) -> std::io::Result<EntryKind> {
    let mut file = std::fs::File::open(path)?;
    let executable = is_executable(&file.metadata()?);
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        hasher.update(&piece[..read]);
    }
    let digest: Sha256 = hasher.finish();
    Ok(EntryKind::File {
        executable,
        digest,
        size,
    })
}

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}

/// Docker's rules, one matcher a line so that the order of lines decides.
#[derive(Debug, Clone, Default)]
struct DockerIgnore {
    lines: Vec<(bool, Gitignore)>,
}

impl DockerIgnore {
    fn read(root: &Path) -> Result<Self, Failure> {
        let path = root.join(".dockerignore");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut lines = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            let mut builder = GitignoreBuilder::new("");
            let built = builder
                .add_line(None, &format!("/{pattern}"))
                .and_then(|builder| builder.build());
            let matcher = built.map_err(|error| {
                Failure::new(
                    "scan_failed",
                    format!("`.dockerignore` has a pattern that cannot be read: {error}"),
                )
            })?;
            lines.push((keeps, matcher));
        }
        Ok(Self { lines })
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn decides(&self, path: &Path, is_dir: bool) -> bool {
        let mut ignored = false;
        for (keeps, matcher) in &self.lines {
            if ignored == *keeps && matcher.matched_path_or_any_parents(path, is_dir).is_ignore() {
                ignored = !keeps;
            }
        }
        ignored
    }

    /// Whether a file is left out.
    fn ignores(&self, path: &Path) -> bool {
        let kept = path == Path::new(".dockerignore")
            || path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("Dockerfile"));
        !kept && self.decides(path, false)
    }

    /// Whether nothing below a directory can be wanted, so that it need not be read.
    fn prunes(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.lines.iter().all(|(keeps, _)| !keeps) && self.decides(path, true)
    }
}

/// Where the content of a file is.
pub fn source_of(root: &Path, path: &str) -> PathBuf {
    root.join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn paths(root: &tempfile::TempDir) -> Vec<String> {
        let scan = scan(&root.path().canonicalize().unwrap()).unwrap();
        scan.manifest
            .entries()
            .iter()
            .map(|entry| entry.path.clone())
            .collect()
    }

    #[test]
    fn gitignore_counts_without_a_repository_too() {
        let root = tree(&[
            (".gitignore", "node_modules/\n*.log\n!keep.log\n"),
            (".env.example", ""),
            ("a.log", ""),
            ("keep.log", ""),
            ("node_modules/x/index.js", ""),
            ("src/.gitignore", "generated\n"),
            ("src/generated/x", ""),
            ("src/main.js", ""),
            (".git/HEAD", ""),
        ]);
        assert_eq!(
            paths(&root),
            [
                ".env.example",
                ".gitignore",
                "keep.log",
                "src/.gitignore",
                "src/main.js"
            ]
        );
    }

    #[test]
    fn gitignore_above_counts_in_a_repository_only() {
        let root = tree(&[(".gitignore", "*.secret\n"), ("app/a.secret", ""), ("app/b", "")]);
        let below = || {
            let scan = scan(&root.path().join("app").canonicalize().unwrap()).unwrap();
            scan.manifest.entries().len()
        };
        assert_eq!(below(), 2);
        std::fs::create_dir(root.path().join(".git")).unwrap();
        assert_eq!(below(), 1);
    }

    #[test]
    fn dockerignore_by_dockers_rules() {
        let root = tree(&[
            (
                ".dockerignore",
                "# all but\n*\n!src\n!/package.json\nsrc/*.tmp\n**/secret\n",
            ),
            ("Dockerfile", ""),
            ("README.md", ""),
            ("package.json", ""),
            ("src/a.js", ""),
            ("src/a.tmp", ""),
            ("src/deep/b.tmp", ""),
            ("src/deep/secret", ""),
        ]);
        assert_eq!(
            paths(&root),
            [
                ".dockerignore",
                "Dockerfile",
                "package.json",
                "src/a.js",
                "src/deep/b.tmp"
            ]
        );
    }

    #[test]
    fn a_pattern_is_anchored_at_the_top() {
        let ignore = DockerIgnore::parse("target\n*.md").unwrap();
        assert!(ignore.ignores(Path::new("target/debug/x")));
        assert!(!ignore.ignores(Path::new("src/target/x")));
        assert!(ignore.ignores(Path::new("a.md")));
        assert!(!ignore.ignores(Path::new("docs/a.md")));
    }

    #[cfg(unix)]
    #[test]
    fn links_empty_directories_and_modes() {
        use std::os::unix::fs::PermissionsExt;
        let root = tree(&[("run.sh", "x"), ("a/b/c", "y")]);
        std::fs::set_permissions(root.path().join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("a/b", root.path().join("link")).unwrap();
        std::fs::create_dir_all(root.path().join("empty/deep")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).unwrap();
        let scan = scan(&root.path().canonicalize().unwrap()).unwrap();
        assert_eq!(scan.skipped, ["s"]);
        let kinds: Vec<String> = scan
            .manifest
            .entries()
            .iter()
            .map(|entry| match &entry.kind {
                EntryKind::File { executable, size, .. } => format!("{} {executable} {size}", entry.path),
                EntryKind::Symlink { target } => format!("{} -> {target}", entry.path),
                EntryKind::Directory => format!("{}/", entry.path),
            })
            .collect();
        assert_eq!(
            kinds,
            ["a/b/c false 1", "empty/deep/", "link -> a/b", "run.sh true 1"]
        );
    }

    #[test]
    fn nothing_is_told() {
        let root = tree(&[(".gitignore", "*")]);
        assert!(
            scan(root.path())
                .unwrap_err()
                .report
                .message
                .contains("nothing to deploy")
        );
    }
}
