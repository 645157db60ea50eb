//! What the compiler does not check: the direction of dependencies and what they may be, the sizes of files, the map
//! and the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Most lines of a source file: one that needs more is two things.
const MAX_SOURCE_LINES: usize = 600;
/// Most bytes of any file in the repository.
const MAX_FILE_BYTES: u64 = 400_000;
/// Files that tools write and may be large.
const WRITTEN_BY_TOOLS: [&str; 3] = ["Cargo.lock", "openapi/v1.json", "package-lock.json"];

/// Which of our crates each of our crates may depend on, outside tests. The map in `ARCHITECTURE.md` says why.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("ferrovia-core", &[]),
    ("ferrovia-api", &["core"]),
    ("ferrovia-log", &["core"]),
    ("ferrovia-table", &["core"]),
    ("ferrovia-store", &["core"]),
    ("ferrovia-engine", &["core"]),
    ("ferrovia-build", &["core"]),
    ("ferrovia-edge", &["core", "table"]),
    ("ferrovia-node", &["core", "table", "engine", "log"]),
    (
        "ferrovia-control",
        &["core", "store", "engine", "build", "table", "log"],
    ),
    ("ferrovia-cli", &["api", "core"]),
    (
        "ferrovia-server",
        &[
            "api", "core", "store", "engine", "build", "control", "edge", "node", "table", "log",
        ],
    ),
    ("ferrovia-testkit", &["store", "core"]),
    ("ferrovia-tests", &["core"]),
    ("xtask", &["testkit", "store", "server"]),
];

/// Crates of others that only one of ours may use: the one that speaks their language.
const RESERVED: [(&str, &str); 4] = [
    ("sqlx", "ferrovia-store"),
    ("nftables", "ferrovia-node"),
    ("hickory-server", "ferrovia-node"),
    ("kube", "ferrovia-kubernetes"),
];

/// The name of Docker's socket, and which crates may know it: who speaks to it, and who is told where it is.
const DOCKER_SOCKET: (&str, [&str; 2]) = ("docker.sock", ["ferrovia-engine", "ferrovia-server"]);

/// Crates that the pure domain may not use: they do I/O, read the clock or draw random numbers.
const IMPURE: [&str; 6] = ["tokio", "hyper", "reqwest", "jiff", "rand", "futures-util"];

/// Runs every check.
///
/// # Errors
/// One text with every finding.
pub fn run() -> Result<(), String> {
    let metadata = MetadataCommand::new().exec().map_err(|error| error.to_string())?;
    let root = metadata.workspace_root.as_std_path();
    let files = tracked_files(root)?;
    let mut findings = Findings::default();
    dependencies(&metadata, &mut findings);
    crate::deny::check(root)?
        .into_iter()
        .for_each(|finding| findings.add(finding));
    sizes(root, &files, &mut findings);
    docker_socket(root, &files, &mut findings);
    map(&metadata, root, &mut findings);
    reasons(root, &mut findings);
    findings.into_result()
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, finding: String) {
        self.0.push(finding);
    }

    fn into_result(self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut text = format!("tidy: {} finding(s)\n", self.0.len());
        for finding in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {finding}");
        }
        Err(text)
    }
}

fn dependencies(metadata: &Metadata, findings: &mut Findings) {
    let allowed: BTreeMap<_, BTreeSet<String>> = ALLOWED
        .into_iter()
        .map(|(name, of)| (name, of.iter().map(|short| format!("ferrovia-{short}")).collect()))
        .collect();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(allowed) = allowed.get(name) else {
            findings.add(format!("crate `{name}` is not in the table of xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            let on = dependency.name.as_str();
            if on.starts_with("ferrovia-") && !allowed.contains(on) {
                findings.add(format!("`{name}` may not depend on `{on}`"));
            }
            if let Some((_, owner)) = RESERVED
                .into_iter()
                .find(|(reserved, owner)| *reserved == on && *owner != name)
            {
                findings.add(format!("only `{owner}` may depend on `{on}`, not `{name}`"));
            }
            if name == "ferrovia-core" && IMPURE.contains(&on) {
                findings.add(format!("`ferrovia-core` is pure and may not depend on `{on}`"));
            }
        }
    }
    for package in &metadata.packages {
        if package
            .source
            .as_ref()
            .is_some_and(|source| !source.is_crates_io())
        {
            findings.add(format!(
                "`{}` is not from the public registry of crates",
                package.name
            ));
        }
    }
}

fn docker_socket(root: &Path, files: &[PathBuf], findings: &mut Findings) {
    let (socket, owners) = DOCKER_SOCKET;
    for file in files {
        let mut parts = file.iter().filter_map(|part| part.to_str());
        let (Some("crates"), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        if !owners.contains(&name) && text.contains(socket) {
            findings.add(format!("{}: only {owners:?} may know `{socket}`", file.display()));
        }
    }
}

fn sizes(root: &Path, files: &[PathBuf], findings: &mut Findings) {
    for file in files {
        let Ok(metadata) = std::fs::metadata(root.join(file)) else {
            continue;
        };
        let written_by_a_tool = WRITTEN_BY_TOOLS.iter().any(|name| file.ends_with(name));
        if metadata.len() > MAX_FILE_BYTES && !written_by_a_tool {
            findings.add(format!(
                "{} has {} bytes, more than {MAX_FILE_BYTES}",
                file.display(),
                metadata.len()
            ));
        }
        if file.extension().is_some_and(|extension| extension == "rs") {
            let lines = std::fs::read_to_string(root.join(file)).map_or(0, |text| text.lines().count());
            if lines > MAX_SOURCE_LINES {
                findings.add(format!(
                    "{} has {lines} lines, more than {MAX_SOURCE_LINES}: it is two things",
                    file.display()
                ));
            }
        }
    }
}

fn map(metadata: &Metadata, root: &Path, findings: &mut Findings) {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for package in metadata.workspace_packages() {
        if !text.contains(&format!("`{}`", package.name)) {
            findings.add(format!(
                "ARCHITECTURE.md does not name the crate `{}`",
                package.name
            ));
        }
    }
    for (name, allowed) in ALLOWED {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let told: Option<BTreeSet<&str>> = row.and_then(|row| row.split('|').nth(3)).map(|cell| {
            cell.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect()
        });
        let allowed = allowed.iter().copied().collect();
        if told.as_ref() != Some(&allowed) {
            findings.add(format!(
                "ARCHITECTURE.md: `{name}` may depend on {allowed:?}, and the map says {told:?}"
            ));
        }
    }
    for named in text
        .split('`')
        .filter(|word| word.starts_with("ferrovia-") && !word.contains(' '))
    {
        if !metadata
            .workspace_packages()
            .iter()
            .any(|package| package.name.as_str() == named)
        {
            findings.add(format!("ARCHITECTURE.md names `{named}`, which is no crate"));
        }
    }
}

fn reasons(root: &Path, findings: &mut Findings) {
    let Ok(entries) = std::fs::read_dir(root.join("docs/adr")) else {
        return findings.add("docs/adr is missing".to_owned());
    };
    let mut numbers = BTreeSet::new();
    for name in entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
    {
        match name
            .split_once('-')
            .and_then(|(number, _)| number.parse::<u32>().ok())
        {
            Some(number) if numbers.insert(number) => {}
            Some(number) => findings.add(format!("docs/adr: two records have the number {number}")),
            None => findings.add(format!(
                "docs/adr/{name}: a record is named `0001-what-was-decided.md`"
            )),
        }
    }
    if numbers
        .iter()
        .copied()
        .ne(1..=u32::try_from(numbers.len()).unwrap_or(u32::MAX))
    {
        findings.add(format!("docs/adr: the numbers have gaps: {numbers:?}"));
    }
}

fn tracked_files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git ls-files: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}
