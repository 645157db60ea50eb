//! What may stand in a tree.
//!
//! The rule for links is lexical and still safe: `..` may only lead (`../../x`), never follow another component
//! (`a/../../x`), and may not climb above the tree. The parents of a link are real directories (no entry lies below a
//! link), so the leading part stays inside; what follows goes down, through links that obey the same rule.

use crate::error::{Class, Report};

use super::{
    Entry, EntryKind, MAX_COMPONENT_BYTES, MAX_ENTRIES, MAX_FILE_BYTES, MAX_LINK_BYTES, MAX_PATH_BYTES,
    MAX_TREE_BYTES,
};

/// Characters of a path that an error shows.
const SHOWN_PATH_CHARS: usize = 200;

/// Why a list of entries is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct ManifestError {
    /// The entry's path, control characters escaped, shortened.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing was given.
    #[error("the path is empty")]
    EmptyPath,
    /// It begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// `//`, or `/` at the end.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("the path has `.` or `..` as a component")]
    DotComponent,
    /// A control character (NUL among them) or a backslash.
    #[error("the path has a control character or a backslash")]
    Character,
    /// Longer than [`MAX_PATH_BYTES`], or a component than [`MAX_COMPONENT_BYTES`].
    #[error(
        "the path is longer than {MAX_PATH_BYTES} bytes, or a component longer than {MAX_COMPONENT_BYTES}"
    )]
    PathTooLong,
    /// The path comes twice.
    #[error("the path comes twice")]
    Duplicate,
    /// Something lies below it although it is a file, a link or an empty directory.
    #[error("something lies below it, although it is a file, a link or an empty directory")]
    NotADirectory,
    /// The link's text is empty, has a control character or is longer than [`MAX_LINK_BYTES`].
    #[error(
        "the text of the link is empty, has a control character or is longer than {MAX_LINK_BYTES} bytes"
    )]
    LinkText,
    /// The link leads out of the tree or could.
    #[error("the link leads out of the tree, or has `..` after another component")]
    LinkEscapes,
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    FileTooLarge,
    /// All files together are larger than [`MAX_TREE_BYTES`]; told of the one that passes it.
    #[error("with this file the tree is larger than {MAX_TREE_BYTES} bytes")]
    TreeTooLarge,
    /// More than [`MAX_ENTRIES`]; told of the first.
    #[error("the tree has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
}

impl ManifestError {
    fn new(path: &str, problem: Problem) -> Self {
        let path = path
            .chars()
            .take(SHOWN_PATH_CHARS)
            .flat_map(char::escape_debug)
            .collect();
        Self { path, problem }
    }

    /// A bound was reached, or the request is wrong.
    pub fn class(&self) -> Class {
        match self.problem {
            Problem::FileTooLarge | Problem::TreeTooLarge | Problem::TooManyEntries => Class::Limit,
            _ => Class::Invalid,
        }
    }

    /// What people are told.
    pub fn report(&self) -> Report {
        let hint = match self.problem {
            Problem::FileTooLarge | Problem::TreeTooLarge | Problem::TooManyEntries => {
                "list what the build does not need in `.gitignore` or `.dockerignore`"
            }
            Problem::LinkEscapes => {
                "make the link relative and let it lead to something in the directory, or list it in `.gitignore`"
            }
            _ => "rename it or list it in `.gitignore`",
        };
        Report::new("tree_invalid", self.to_string()).with_hint(hint)
    }
}

/// Checks entries that are sorted by path.
pub(super) fn check(entries: &[Entry]) -> Result<(), ManifestError> {
    if entries.len() > MAX_ENTRIES {
        return Err(ManifestError::new(&entries[0].path, Problem::TooManyEntries));
    }
    let mut tree_bytes = 0_u64;
    for entry in entries {
        let fail = |problem| Err(ManifestError::new(&entry.path, problem));
        if let Err(problem) = check_path(&entry.path) {
            return fail(problem);
        }
        match &entry.kind {
            EntryKind::File { size, .. } => {
                if *size > MAX_FILE_BYTES {
                    return fail(Problem::FileTooLarge);
                }
                tree_bytes += size;
                if tree_bytes > MAX_TREE_BYTES {
                    return fail(Problem::TreeTooLarge);
                }
            }
            EntryKind::Symlink { target } => {
                if let Err(problem) = check_link(&entry.path, target) {
                    return fail(problem);
                }
            }
            EntryKind::Directory => {}
        }
    }
    check_conflicts(entries)
}

fn check_path(path: &str) -> Result<(), Problem> {
    if path.is_empty() {
        return Err(Problem::EmptyPath);
    }
    if path.starts_with('/') {
        return Err(Problem::Absolute);
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(Problem::Character);
    }
    if path.len() > MAX_PATH_BYTES || path.split('/').any(|part| part.len() > MAX_COMPONENT_BYTES) {
        return Err(Problem::PathTooLong);
    }
    for part in path.split('/') {
        match part {
            "" => return Err(Problem::EmptyComponent),
            "." | ".." => return Err(Problem::DotComponent),
            _ => {}
        }
    }
    Ok(())
}

fn check_link(path: &str, target: &str) -> Result<(), Problem> {
    if target.is_empty() || target.len() > MAX_LINK_BYTES || target.chars().any(char::is_control) {
        return Err(Problem::LinkText);
    }
    if target.starts_with('/') {
        return Err(Problem::LinkEscapes);
    }
    let depth = path.split('/').count() - 1;
    let (mut ups, mut downs) = (0, 0);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if downs > 0 => return Err(Problem::LinkEscapes),
            ".." => ups += 1,
            _ => downs += 1,
        }
    }
    if ups > depth {
        return Err(Problem::LinkEscapes);
    }
    Ok(())
}

/// No path twice, and nothing below what is not a directory. What lies below `a` does not follow `a` at once in byte
/// order (`a`, `a.b`, `a/c`), so every parent is looked up.
fn check_conflicts(entries: &[Entry]) -> Result<(), ManifestError> {
    for pair in entries.windows(2) {
        if pair[0].path == pair[1].path {
            return Err(ManifestError::new(&pair[1].path, Problem::Duplicate));
        }
    }
    let mut last_parent = "";
    for entry in entries {
        let Some((parent, _)) = entry.path.rsplit_once('/') else {
            continue;
        };
        if parent == last_parent {
            continue;
        }
        last_parent = parent;
        for (end, _) in entry.path.match_indices('/') {
            let above = &entry.path[..end];
            if entries
                .binary_search_by(|other| other.path.as_bytes().cmp(above.as_bytes()))
                .is_ok()
            {
                return Err(ManifestError::new(above, Problem::NotADirectory));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Manifest, Sha256};
    use super::*;

    fn file(path: &str) -> Entry {
        let kind = EntryKind::File {
            executable: false,
            digest: Sha256::of(path.as_bytes()),
            size: 1,
        };
        Entry {
            path: path.to_owned(),
            kind,
        }
    }

    fn link(path: &str, target: &str) -> Entry {
        let kind = EntryKind::Symlink {
            target: target.to_owned(),
        };
        Entry {
            path: path.to_owned(),
            kind,
        }
    }

    fn problem(entries: Vec<Entry>) -> Problem {
        Manifest::new(entries).unwrap_err().problem
    }

    #[test]
    fn paths_that_are_none() {
        for (path, expected) in [
            ("", Problem::EmptyPath),
            ("/etc/passwd", Problem::Absolute),
            ("a//b", Problem::EmptyComponent),
            ("a/", Problem::EmptyComponent),
            ("../a", Problem::DotComponent),
            ("a/../b", Problem::DotComponent),
            ("./a", Problem::DotComponent),
            ("a\0b", Problem::Character),
            ("a\nb", Problem::Character),
            ("a\\b", Problem::Character),
            (&"a".repeat(256), Problem::PathTooLong),
            (&"a/".repeat(600), Problem::PathTooLong),
        ] {
            assert_eq!(problem(vec![file(path)]), expected, "{path:?}");
        }
    }

    #[test]
    fn conflicts() {
        assert_eq!(problem(vec![file("a"), file("a")]), Problem::Duplicate);
        assert_eq!(
            problem(vec![file("a"), file("a.b"), file("a/c")]),
            Problem::NotADirectory
        );
        assert_eq!(
            problem(vec![link("a", "b"), file("a/b/c")]),
            Problem::NotADirectory
        );
        let directory = Entry {
            path: "a".to_owned(),
            kind: EntryKind::Directory,
        };
        assert_eq!(problem(vec![directory, file("a/b")]), Problem::NotADirectory);
        Manifest::new(vec![file("a.b"), file("a/b"), file("a-b")]).unwrap();
    }

    #[test]
    fn links_stay_inside() {
        for target in ["/etc/passwd", "..", "../x/../../y", "x/..", "../../x"] {
            assert_eq!(problem(vec![link("a", target)]), Problem::LinkEscapes, "{target}");
        }
        for target in ["", "a\0b"] {
            assert_eq!(problem(vec![link("a", target)]), Problem::LinkText, "{target:?}");
        }
        Manifest::new(vec![
            link("d/e/a", "../../x"),
            link("b", "./d/e"),
            link("c", "missing"),
        ])
        .unwrap();
        assert_eq!(problem(vec![link("d/e/a", "../../../x")]), Problem::LinkEscapes);
    }

    #[test]
    fn bounds() {
        let mut large = file("a");
        large.kind = EntryKind::File {
            executable: false,
            digest: Sha256::of(b""),
            size: MAX_FILE_BYTES + 1,
        };
        assert_eq!(problem(vec![large]), Problem::FileTooLarge);
        let many = (0..5).map(|n| {
            let mut entry = file(&format!("f{n}"));
            entry.kind = EntryKind::File {
                executable: false,
                digest: Sha256::of(b""),
                size: MAX_FILE_BYTES,
            };
            entry
        });
        let error = Manifest::new(many.collect()).unwrap_err();
        assert_eq!(
            (error.path.as_str(), error.problem, error.class()),
            ("f4", Problem::TreeTooLarge, Class::Limit)
        );
        let entries = (0..=MAX_ENTRIES).map(|n| file(&n.to_string())).collect();
        assert_eq!(problem(entries), Problem::TooManyEntries);
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        let error = Manifest::new(vec![file("a\x1b[2J")]).unwrap_err();
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }

    #[test]
    fn json_is_checked_too() {
        let json = r#"[{"path":"../a","type":"symlink","target":"b"}]"#;
        assert!(serde_json::from_str::<Manifest>(json).is_err());
        let json = r#"[{"path":"a","type":"device"}]"#;
        assert!(serde_json::from_str::<Manifest>(json).is_err());
    }

    /// Follows a path over a tree's links the way a kernel would; `None` when it leaves the tree.
    fn resolve(links: &std::collections::BTreeMap<String, String>, path: &str) -> Option<String> {
        let mut at: Vec<String> = Vec::new();
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut budget = 40;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => {}
                ".." => {
                    at.pop()?;
                }
                _ => {
                    at.push(part);
                    if let Some(target) = links.get(&at.join("/")) {
                        at.pop();
                        budget -= 1;
                        if budget == 0 {
                            return Some(String::new());
                        }
                        rest.extend(target.split('/').rev().map(str::to_owned));
                    }
                }
            }
        }
        Some(at.join("/"))
    }

    proptest! {
        #[test]
        fn no_accepted_link_leaves_the_tree(
            links in prop::collection::btree_map("[ab](/[ab]){0,2}", "(\\.\\./){0,2}[ab.]{1,2}(/[ab.]{1,2}){0,2}", 1..6)
        ) {
            let entries = links.iter().map(|(path, target)| link(path, target)).collect();
            if let Ok(manifest) = Manifest::new(entries) {
                for entry in manifest.entries() {
                    prop_assert!(resolve(&links, &entry.path).is_some(), "{:?}", manifest);
                }
            }
        }

        #[test]
        fn the_digest_does_not_depend_on_the_order(
            paths in prop::collection::btree_set("[a-c]{1,3}(/[d-f]{1,2})?", 1..12), seed in any::<u64>()
        ) {
            let sorted: Vec<_> = paths.iter().map(|path| file(path)).collect();
            let mut shuffled = sorted.clone();
            shuffled.sort_by_key(|entry| Sha256::of(format!("{seed}{}", entry.path).as_bytes()));
            if let (Ok(a), Ok(b)) = (Manifest::new(sorted), Manifest::new(shuffled)) {
                prop_assert_eq!(a.digest(), b.digest());
                let json = serde_json::to_string(&a).unwrap();
                prop_assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), a);
            }
        }
    }

    #[test]
    fn the_digest_sees_everything_but_the_size() {
        let of = |path: &str, kind| {
            Manifest::new(vec![Entry {
                path: path.to_owned(),
                kind,
            }])
            .unwrap()
            .digest()
        };
        let plain = EntryKind::File {
            executable: false,
            digest: Sha256::of(b"1"),
            size: 1,
        };
        let digests = [
            Manifest::default().digest(),
            of("a", plain.clone()),
            of("b", plain),
            of(
                "a",
                EntryKind::File {
                    executable: true,
                    digest: Sha256::of(b"1"),
                    size: 1,
                },
            ),
            of(
                "a",
                EntryKind::File {
                    executable: false,
                    digest: Sha256::of(b"2"),
                    size: 1,
                },
            ),
            of(
                "a",
                EntryKind::Symlink {
                    target: "x".to_owned(),
                },
            ),
            of(
                "a",
                EntryKind::Symlink {
                    target: "y".to_owned(),
                },
            ),
            of("a", EntryKind::Directory),
        ];
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
    }
}
