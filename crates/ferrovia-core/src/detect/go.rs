//! Go: modules, workspaces, vendored trees, and single programs without a module.

use crate::error::Report;
use crate::plan::{Deploy, From, Plan, Secrets, Sharing, Step};
use crate::versions::{VersionRequest, version};

use super::choose::{Found, Reason};
use super::view::{SourceView, is_foreign};
use super::{Context, deploy, shell};

/// Deepest directory in which a program is looked for.
const MAX_DEPTH: usize = 3;
/// Names that a program that takes requests usually has.
const USUAL_NAMES: &[&str] = &["server", "web", "app", "api", "main"];
/// Modules that do not work without a C compiler.
const NEED_C: &[&str] = &[
    "github.com/mattn/go-sqlite3",
    "github.com/confluentinc/confluent-kafka-go",
    "github.com/h2non/bimg",
    "gocv.io/x/gocv",
];
/// Build variables that the fetching of modules sees.
const INSTALL_VARIABLES: &[&str] = &["GO", "GIT"];
/// Certificates for programs that speak TLS; Debian's slim image has none.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A `main` package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    /// Its directory; empty: the root.
    directory: String,
    name: String,
}

pub(super) fn find(view: &SourceView) -> Option<Found> {
    let manifest = view.first(&["go.mod", "go.work"]);
    let programs = programs(view);
    let mut found = Found {
        manifest: manifest.is_some(),
        start: !programs.is_empty(),
        reasons: Vec::new(),
    };
    if let Some(path) = manifest {
        let module = directive(view.text(path).unwrap_or_default(), "module")
            .map(|module| format!("module `{module}`"));
        found.reasons.push(Reason::new(path, module.unwrap_or_default()));
    } else {
        // Without a module only a program in the root counts.
        programs.iter().find(|program| program.directory.is_empty())?;
    }
    if let Some(program) = choose(&programs, view).0 {
        let path = if program.directory.is_empty() {
            "main package".to_owned()
        } else {
            format!("main package in `{}`", program.directory)
        };
        let file = main_file(view, &program.directory).unwrap_or_default();
        found.reasons.push(Reason::new(&file, path));
    }
    Some(found)
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let view = context.view;
    let requests = versions(context);
    let line = context.pin("go", &requests)?;
    let runtime = context.pin("debian", &[])?;
    let text = view.text("go.mod").unwrap_or_default();
    let needs_c = NEED_C.iter().any(|module| text.contains(module));
    let vendored = view.has("vendor/modules.txt");
    let programs = programs(view);
    let (chosen, several) = choose(&programs, view);
    let chosen = chosen.cloned();
    if let (Some(chosen), true, None) = (&chosen, several, context.procfile.start()) {
        let names: Vec<_> = programs
            .iter()
            .map(|program| format!("`{}`", program.name))
            .collect();
        context.warn(
            "several_programs",
            format!(
                "there are several programs ({}): `{}` is started",
                names.join(", "),
                chosen.name
            ),
            "say which in a `Procfile`: `web: NAME`",
        );
    }
    let prepared = |step: Step| {
        step.cache("go-build", "/opt/go-build", Sharing::Shared)
            .variables(&[
                ("CGO_ENABLED", if needs_c { "1" } else { "0" }),
                ("GOCACHE", "/opt/go-build"),
                ("GOMODCACHE", "/opt/go-mod"),
                ("GOFLAGS", "-buildvcs=false"),
                ("GOTOOLCHAIN", "auto"),
            ])
    };
    let mut steps = Vec::new();
    let mut from = From::Image(format!("go:{line}"));
    let modules = module_files(view);
    if let Some(command) = &context.settings.install_command {
        steps.push(
            prepared(Step::new("install", from))
                .source(["."])
                .shell(command)
                .secrets(Secrets::All),
        );
        from = From::Step("install".to_owned());
    } else if !vendored && !modules.is_empty() {
        // Modules of a workspace may require each other in versions that were never published: the build knows better.
        let download = if view.has("go.work") {
            "go mod download || echo 'not every module can be fetched without the source: the build fetches the rest'"
        } else {
            "go mod download"
        };
        let secrets = INSTALL_VARIABLES
            .iter()
            .map(|prefix| (*prefix).to_owned())
            .collect();
        let step = prepared(Step::new("install", from))
            .source(modules)
            .shell(download);
        steps.push(step.secrets(Secrets::Prefixed(secrets)));
        from = From::Step("install".to_owned());
    }
    let script = match (&context.settings.build_command, programs.as_slice()) {
        (Some(command), _) => command.clone(),
        (None, []) => {
            return Err(Report::new(
                "no_start_command",
                "there is no `main` package in the root, in `cmd/NAME` or below",
            )
            .with_hint("add one, or set the root directory to the module that has it"));
        }
        (None, programs) => build_script(view, programs),
    };
    steps.push(
        prepared(Step::new("build", from))
            .source(["."])
            .shell(script)
            .secrets(Secrets::All),
    );
    let mut deploy = Deploy::new(format!("debian:{runtime}"))
        .input("build", CERTIFICATES, &[])
        .input("build", "/app", &["**/*.go", "vendor", ".git"])
        .path("/app/bin");
    deploy.start = chosen.map(|program| vec![format!("/app/bin/{}", program.name)]);
    Ok(context.plan("go", steps, deploy, deploy::as_it_stands))
}

/// What asks for a version of Go. Older versions than the module's never do; newer ones always.
fn versions(context: &mut Context<'_>) -> Vec<VersionRequest> {
    let mut requests = Vec::new();
    for path in ["go.work", "go.mod"] {
        let Some(text) = context.view.text(path) else {
            continue;
        };
        if let Some(toolchain) =
            directive(text, "toolchain").and_then(|text| text.strip_prefix("go").map(str::to_owned))
        {
            requests.push(VersionRequest::at_least(toolchain, format!("{path} > toolchain")));
        }
        if let Some(line) = directive(text, "go") {
            requests.push(VersionRequest::at_least(line, format!("{path} > go")));
        }
    }
    requests.extend(context.tool_versions(&["golang", "go"]));
    let available = context.tools.iter().find(|tool| tool.tool == "go");
    let newest = available.and_then(|tool| {
        tool.versions
            .iter()
            .filter_map(|available| version(&available.version))
            .max()
    });
    if let (Some(first), Some(newest)) = (requests.first(), newest)
        && first.least
        && version(&first.text).is_some_and(|asked| asked > newest)
    {
        context.warn(
            "go_toolchain_fetched",
            format!(
                "`{}` asks for Go {}, newer than {newest}: Go fetches that toolchain as a module",
                first.source, first.text
            ),
            "ask for an older version, or bring a `Dockerfile`",
        );
        return Vec::new();
    }
    requests
}

/// The value of `KEYWORD VALUE` in a module file.
fn directive(text: &str, keyword: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split("//").next()?.split_whitespace();
        (words.next()? == keyword)
            .then(|| words.next().map(str::to_owned))
            .flatten()
    })
}

/// Every file that the fetching of modules reads.
fn module_files(view: &SourceView) -> Vec<String> {
    let is_one = |path: &&str| {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        matches!(name, "go.mod" | "go.sum" | "go.work" | "go.work.sum")
            && !directory.split('/').any(is_foreign)
    };
    view.paths().filter(is_one).map(str::to_owned).collect()
}

/// All programs, by directory.
fn programs(view: &SourceView) -> Vec<Program> {
    let mut directories: Vec<&str> = Vec::new();
    for path in view.paths().filter(|path| path.ends_with(".go")) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let foreign = directory
            .split('/')
            .any(|part| is_foreign(part) || matches!(part, "examples" | "example" | "internal" | "tools"));
        if !foreign && path.matches('/').count() <= MAX_DEPTH && directories.last() != Some(&directory) {
            directories.push(directory);
        }
    }
    directories.sort_unstable();
    directories.dedup();
    let with_main = directories
        .into_iter()
        .filter(|directory| main_file(view, directory).is_some());
    with_main
        .map(|directory| Program {
            directory: directory.to_owned(),
            name: program_name(view, directory),
        })
        .collect()
}

/// A file of `package main` in a directory.
fn main_file(view: &SourceView, directory: &str) -> Option<String> {
    let path = |name: &str| {
        if directory.is_empty() {
            name.to_owned()
        } else {
            format!("{directory}/{name}")
        }
    };
    let is_main = |name: &&str| {
        let text = view.text(&path(name)).unwrap_or_default();
        let left_out = text
            .lines()
            .take(20)
            .any(|line| line.trim() == "//go:build ignore");
        !left_out
            && text
                .lines()
                .any(|line| line.trim_end() == "package main" || line.starts_with("package main "))
    };
    let mut names = view
        .names_in(directory)
        .filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
    names.find(is_main).map(path)
}

/// As `go build` names it: the directory, of the root the module's last part that is no version.
fn program_name(view: &SourceView, directory: &str) -> String {
    if let Some(name) = directory.rsplit('/').next().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    let module = directive(view.text("go.mod").unwrap_or_default(), "module").unwrap_or_default();
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let name = module
        .trim_matches('"')
        .rsplit('/')
        .find(|part| !is_version(part))
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() { "app".to_owned() } else { name }
}

/// The program that is started: that of the root, the only one, the module's namesake, one with a usual name, the first.
/// And whether another could have been meant.
fn choose<'a>(programs: &'a [Program], view: &SourceView) -> (Option<&'a Program>, bool) {
    let root = programs.iter().find(|program| program.directory.is_empty());
    if root.is_some() || programs.len() == 1 {
        return (root.or(programs.first()), false);
    }
    let namesake = program_name(view, "");
    let named = |name: &str| programs.iter().find(|program| program.name == name);
    let usual = || USUAL_NAMES.iter().find_map(|name| named(name));
    (
        named(&namesake).or_else(usual).or(programs.first()),
        programs.len() > 1,
    )
}

/// The script that builds every program into `bin`.
fn build_script(view: &SourceView, programs: &[Program]) -> String {
    let mut lines = vec!["mkdir -p bin".to_owned()];
    let without_module = !view.has("go.mod") && !view.has("go.work");
    for Program { directory, name } in programs {
        let package = match directory.as_str() {
            "" if without_module => {
                let files = view
                    .names_in("")
                    .filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
                files.map(shell::quoted).collect::<Vec<_>>().join(" ")
            }
            "" => ".".to_owned(),
            directory => shell::quoted(&format!("./{directory}")),
        };
        let output = shell::quoted(&format!("bin/{name}"));
        lines.push(format!(
            "go build -trimpath -ldflags='-s -w' -o {output} {package}"
        ));
    }
    lines.join("\n")
}
