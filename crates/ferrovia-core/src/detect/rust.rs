//! Rust: a crate or a workspace. Dependencies are built first, against empty sources, in a layer of their own.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::error::Report;
use crate::plan::{Deploy, From, Plan, Secrets, Sharing, Step};
use crate::versions::VersionRequest;

use super::choose::{Found, Reason};
use super::view::{SourceView, is_foreign};
use super::{Context, deploy, shell, unreadable_manifest};

/// Names that a program that takes requests usually has.
const USUAL_NAMES: &[&str] = &["server", "web", "app", "api", "main"];
/// Build variables that the fetching of crates sees.
const INSTALL_VARIABLES: &[&str] = &["CARGO_"];
/// A crate in the lock file, what building it needs, what running it needs.
const LIBRARIES: &[(&str, &[&str], &[&str])] = &[
    ("openssl-sys", &[], &["libssl3t64"]),
    ("pq-sys", &["libpq-dev"], &["libpq5"]),
    ("libz-sys", &[], &["zlib1g"]),
];

/// A crate of the tree.
#[derive(Debug, Clone, Default)]
struct Crate {
    name: String,
    default_run: Option<String>,
    programs: Vec<String>,
    /// Source files of its targets, relative to the tree's root; whether each is a program.
    targets: BTreeMap<String, bool>,
}

/// All crates of a tree, by directory.
#[derive(Debug, Clone, Default)]
struct Crates {
    crates: BTreeMap<String, Crate>,
    versions: Vec<VersionRequest>,
    is_workspace: bool,
}

impl Crates {
    fn read(view: &SourceView) -> Result<Self, Report> {
        let mut all = Self::default();
        for path in view.paths() {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            if name != "Cargo.toml" || directory.split('/').any(is_foreign) {
                continue;
            }
            let Some(text) = view.text(path) else { continue };
            let table: Table = text
                .parse()
                .map_err(|error: toml::de::Error| unreadable_manifest(path, error.message()))?;
            if directory.is_empty() {
                all.is_workspace = table.contains_key("workspace");
                all.add_versions(&table);
            }
            if table.contains_key("package") {
                all.crates
                    .insert(directory.to_owned(), Crate::read(view, directory, &table));
            }
        }
        Ok(all)
    }

    fn add_versions(&mut self, table: &Table) {
        let package = table.get("package");
        let shared = table
            .get("workspace")
            .and_then(|workspace| workspace.get("package"));
        for (values, name) in [(package, "package"), (shared, "workspace > package")] {
            let text = |key: &str| values.and_then(|values| values.get(key)).and_then(Value::as_str);
            if let Some(version) = text("rust-version") {
                self.versions.push(VersionRequest::at_least(
                    version,
                    format!("Cargo.toml > {name} > rust-version"),
                ));
            }
            if text("edition") == Some("2024") {
                self.versions.push(VersionRequest::at_least(
                    "1.85",
                    format!("Cargo.toml > {name} > edition"),
                ));
            }
        }
    }

    /// The program that is started, the crate that it is of, and whether another could have been meant: of the root's
    /// crate before others.
    fn choose(&self) -> Option<(&Crate, &str, bool)> {
        let with_programs: Vec<_> = self
            .crates
            .iter()
            .filter(|(_, one)| !one.programs.is_empty())
            .collect();
        let root = with_programs
            .iter()
            .find(|(directory, _)| directory.is_empty())
            .map(|(_, one)| *one);
        let only = match with_programs.as_slice() {
            [(_, only)] => Some(*only),
            _ => None,
        };
        if let Some(one) = root.or(only) {
            let namesake = || one.programs.iter().find(|name| **name == one.name);
            let usual = || {
                USUAL_NAMES
                    .iter()
                    .find_map(|usual| one.programs.iter().find(|name| name == usual))
            };
            let sure = one.default_run.is_some() || one.programs.len() == 1;
            let chosen = one
                .default_run
                .as_ref()
                .or_else(namesake)
                .or_else(usual)
                .or(one.programs.first())?;
            return Some((one, chosen, !sure));
        }
        let all = || {
            with_programs
                .iter()
                .flat_map(|(_, one)| one.programs.iter().map(move |name| (*one, name)))
        };
        let usual = USUAL_NAMES
            .iter()
            .find_map(|usual| all().find(|(_, name)| name == usual));
        usual
            .or_else(|| all().next())
            .map(|(one, name)| (one, name.as_str(), true))
    }
}

impl Crate {
    fn read(view: &SourceView, directory: &str, table: &Table) -> Self {
        let at = |path: &str| {
            if directory.is_empty() {
                path.to_owned()
            } else {
                format!("{directory}/{path}")
            }
        };
        let package = table.get("package");
        let text = |key: &str| {
            package
                .and_then(|package| package.get(key))
                .and_then(Value::as_str)
        };
        let mut one = Self {
            name: text("name").unwrap_or_default().to_owned(),
            default_run: text("default-run").map(str::to_owned),
            ..Self::default()
        };
        let mut target = |path: String, program: bool| {
            view.has(&path)
                .then(|| one.targets.insert(path, program))
                .is_some()
        };
        let mut programs = Vec::new();
        for (key, default) in [
            ("bin", "src/bin"),
            ("example", "examples"),
            ("test", "tests"),
            ("bench", "benches"),
        ] {
            for value in table.get(key).and_then(Value::as_array).into_iter().flatten() {
                let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
                let path = value.get("path").and_then(Value::as_str).map(str::to_owned);
                let tried = match path {
                    Some(path) => vec![path],
                    None if key == "bin" => vec![
                        format!("src/bin/{name}.rs"),
                        format!("src/bin/{name}/main.rs"),
                        "src/main.rs".to_owned(),
                    ],
                    None => vec![
                        format!("{default}/{name}.rs"),
                        format!("{default}/{name}/main.rs"),
                    ],
                };
                let found = tried.into_iter().any(|path| target(at(&path), true));
                if found && key == "bin" && !programs.contains(&name.to_owned()) {
                    programs.push(name.to_owned());
                }
            }
        }
        let main_is_named = one_is_main(table);
        if target(at("src/main.rs"), true) && !main_is_named {
            programs.push(text("name").unwrap_or_default().to_owned());
        }
        for path in view.below(&at("src/bin")) {
            let inner = &path[at("src/bin/").len()..];
            let name = inner
                .strip_suffix("/main.rs")
                .or_else(|| inner.strip_suffix(".rs"))
                .filter(|name| !name.contains('/'));
            if let Some(name) = name {
                target(path.to_owned(), true);
                if !programs.contains(&name.to_owned()) {
                    programs.push(name.to_owned());
                }
            }
        }
        let library = table
            .get("lib")
            .and_then(|lib| lib.get("path"))
            .and_then(Value::as_str)
            .unwrap_or("src/lib.rs");
        target(at(library), false);
        target(at(text("build").unwrap_or("build.rs")), true);
        one.programs = programs;
        one
    }
}

/// Whether a `[[bin]]` takes `src/main.rs`.
fn one_is_main(table: &Table) -> bool {
    let bins = table.get("bin").and_then(Value::as_array);
    bins.into_iter()
        .flatten()
        .any(|bin| bin.get("path").and_then(Value::as_str) == Some("src/main.rs"))
}

pub(super) fn find(view: &SourceView) -> Option<Found> {
    if !view.has("Cargo.toml") {
        return None;
    }
    let crates = Crates::read(view).unwrap_or_default();
    let chosen = crates.choose();
    let what = chosen
        .map(|(_, name, _)| format!("program `{name}`"))
        .unwrap_or_default();
    Some(Found {
        reasons: vec![Reason::new("Cargo.toml", what)],
        manifest: true,
        start: chosen.is_some(),
    })
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let view = context.view;
    let crates = Crates::read(view)?;
    let requests = versions(context, &crates);
    let line = context.pin("rust", &requests)?;
    let runtime = context.pin("debian", &[])?;
    let Some((chosen, program, several)) = crates.choose() else {
        return Err(
            Report::new("no_start_command", "there is no binary in `Cargo.toml`").with_hint(
                "add `src/main.rs` or `src/bin/NAME.rs`, or set the root directory to the crate that has one",
            ),
        );
    };
    let all: Vec<&str> = crates
        .crates
        .values()
        .flat_map(|one| one.programs.iter().map(String::as_str))
        .collect();
    if several && context.procfile.start().is_none() {
        let names: Vec<_> = all.iter().map(|name| format!("`{name}`")).collect();
        context.warn(
            "several_programs",
            format!(
                "there are several programs ({}): `{program}` is started",
                names.join(", ")
            ),
            "set `default-run` in `Cargo.toml`, or say which in a `Procfile`: `web: NAME`",
        );
    }
    let locked = if view.has("Cargo.lock") { " --locked" } else { "" };
    if locked.is_empty() {
        context.warn(
            "lock_file_missing",
            "there is no `Cargo.lock`: another build may install other versions",
            "run `cargo generate-lockfile` and commit the file",
        );
    }
    // With a `Procfile` every program may be a process.
    let whole = !context.procfile.processes.is_empty() && crates.is_workspace;
    let (what, built) = if whole {
        ("--workspace".to_owned(), all)
    } else {
        (
            format!("--package {}", shell::quoted(&chosen.name)),
            chosen.programs.iter().map(String::as_str).collect(),
        )
    };
    let cargo = format!("cargo build --release{locked} {what} --bins");
    let (build_needs, run_needs) = libraries(view);
    let mut install = prepared(Step::new("install", From::Image(format!("rust:{line}"))));
    if !build_needs.is_empty() {
        install = install.shell(super::python::apt_install(&build_needs));
    }
    let install = match &context.settings.install_command {
        Some(command) => install.source(["."]).shell(command).secrets(Secrets::All),
        None => {
            let secrets = INSTALL_VARIABLES
                .iter()
                .map(|prefix| (*prefix).to_owned())
                .collect();
            let step = install
                .source(manifests(view, &crates))
                .shell(empty_sources(&crates))
                .shell(&cargo);
            step.secrets(Secrets::Prefixed(secrets))
        }
    };
    let script = context.settings.build_command.clone().unwrap_or_else(|| {
        // Cargo compares times, and the tree's are older than those of what was built from empty sources.
        let copies: Vec<_> = built.iter().map(|name| shell::quoted(&format!("target/release/{name}"))).collect();
        format!(
            "# {cargo}\nfind . -path ./target -prune -o -name '*.rs' -exec touch {{}} +\n{cargo}\nmkdir -p bin\ncp {} bin/",
            copies.join(" ")
        )
    });
    let build = prepared(Step::new("build", From::Step("install".to_owned())))
        .source(["."])
        .shell(script)
        .secrets(Secrets::All);
    let mut deploy = Deploy::new(format!("debian:{runtime}"))
        .input("build", "/etc/ssl/certs/ca-certificates.crt", &[])
        .input("build", "/app", &["target", "**/*.rs", ".git", ".cargo"])
        .path("/app/bin");
    deploy.packages = run_needs;
    deploy.start = Some(vec![format!("/app/bin/{program}")]);
    let line = |line: &str| {
        deploy::as_it_stands(
            &line
                .replace("./target/release/", "bin/")
                .replace("target/release/", "bin/"),
        )
    };
    let mut plan = context.plan("rust", vec![install, build], deploy, line);
    // The version is chosen above; rustup in an official image would fetch another.
    plan.ignore.extend([
        "rust-toolchain".to_owned(),
        "rust-toolchain.toml".to_owned(),
        "target".to_owned(),
    ]);
    Ok(plan)
}

fn prepared(step: Step) -> Step {
    step.cache("cargo-registry", "/opt/cargo-home/registry", Sharing::Locked)
        .cache("cargo-git", "/opt/cargo-home/git", Sharing::Locked)
        .variables(&[
            ("CARGO_HOME", "/opt/cargo-home"),
            ("CARGO_TERM_COLOR", "never"),
            ("CARGO_NET_RETRY", "5"),
        ])
}

/// What asks for a version of Rust.
fn versions(context: &Context<'_>, crates: &Crates) -> Vec<VersionRequest> {
    let mut requests = Vec::new();
    for path in ["rust-toolchain.toml", "rust-toolchain"] {
        let Some(text) = context.view.text(path) else {
            continue;
        };
        let table: Option<Table> = text.parse().ok();
        let channel = table
            .as_ref()
            .and_then(|table| table.get("toolchain")?.get("channel")?.as_str());
        let channel = channel.unwrap_or_else(|| text.trim());
        requests.push(VersionRequest::new(channel, path));
    }
    requests.extend(context.tool_versions(&["rust"]));
    requests.extend(crates.versions.iter().cloned());
    requests
}

/// Every manifest, the lock file and Cargo's settings.
fn manifests(view: &SourceView, crates: &Crates) -> Vec<String> {
    let members = crates
        .crates
        .keys()
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{directory}/Cargo.toml"));
    let files = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", ".cargo/config"];
    files
        .iter()
        .filter(|path| view.has(path))
        .map(|path| (*path).to_owned())
        .chain(members)
        .collect()
}

/// The script that makes an empty source file for every target.
fn empty_sources(crates: &Crates) -> String {
    let targets: BTreeMap<&String, &bool> = crates.crates.values().flat_map(|one| &one.targets).collect();
    let mut directories: Vec<&str> = targets
        .keys()
        .filter_map(|path| path.rsplit_once('/'))
        .map(|(directory, _)| directory)
        .collect();
    directories.dedup();
    let mut lines = vec!["# an empty source for every target".to_owned()];
    if !directories.is_empty() {
        lines.push(format!(
            "mkdir -p {}",
            directories
                .iter()
                .map(|path| shell::quoted(path))
                .collect::<Vec<_>>()
                .join(" ")
        ));
    }
    for (path, program) in targets {
        let content = if *program { "echo 'fn main() {}'" } else { ":" };
        lines.push(format!("{content} > {}", shell::quoted(path)));
    }
    lines.join("\n")
}

/// Debian packages that crates in the lock file need, to build and to run.
fn libraries(view: &SourceView) -> (Vec<String>, Vec<String>) {
    let lock = view.text("Cargo.lock").unwrap_or_default();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let used = LIBRARIES
        .iter()
        .filter(|(name, ..)| lock.contains(&format!("name = \"{name}\"\n")));
    let (build, run): (Vec<_>, Vec<_>) = used.map(|(_, build, run)| (owned(build), owned(run))).unzip();
    (build.concat(), run.concat())
}
