//! What starts a Node application that has no `Procfile`.

use crate::detect::view::SourceView;

use super::framework::{self, Framework, Output};
use super::package::{Package, Packages};

/// A command line, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) line: String,
    /// For people: `script start`.
    pub(super) source: String,
}

impl Found {
    fn new(line: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            source: source.into(),
        }
    }
}

/// Programs that only development has.
const DEVELOPMENT: &[&str] = &[
    "nodemon",
    "ts-node",
    "ts-node-dev",
    "tsx",
    "nest",
    "babel-node",
    "vite-node",
    "node-dev",
];
/// Names of programs that start things.
const PROGRAMS: &[&str] = &["server", "index", "main", "app"];

/// The start script (that for production, if the other one is for development), else the framework's server, else
/// `main`, else a program by name.
pub(super) fn find(view: &SourceView, packages: &Packages, framework: Option<&Framework>) -> Option<Found> {
    let root = &packages.root;
    let server = framework.and_then(|framework| match &framework.output {
        Output::Server(command) => Some(Found::new(command, framework.name)),
        Output::Static { .. } => None,
    });
    if let Some(line) = root.scripts.get("start") {
        let program = line.split_whitespace().next().unwrap_or_default();
        let for_production = ["start:prod", "start:production", "serve:prod"];
        let production = for_production
            .iter()
            .find_map(|name| Some((*name, root.scripts.get(*name)?)));
        if let (true, Some((name, line))) = (DEVELOPMENT.contains(&program), production) {
            return Some(Found::new(line, format!("script `{name}`")));
        }
        if let (true, Some(server)) = (framework::is_development_server(line), server.as_ref()) {
            // `next start` is both: it keeps its arguments.
            if !line.contains("next start") {
                return Some(server.clone());
            }
        }
        let hook = if root.scripts.contains_key("prestart") {
            "npm run start"
        } else {
            line
        };
        return Some(Found::new(hook, "script `start`"));
    }
    server
        .or_else(|| by_main(view, root))
        .or_else(|| by_name(view, root))
}

/// `main`, when the file is there or the build may make it.
fn by_main(view: &SourceView, package: &Package) -> Option<Found> {
    let main = package.main.as_deref()?.trim_start_matches("./");
    let tried = [main.to_owned(), format!("{main}.js"), format!("{main}/index.js")];
    let present = tried.iter().any(|path| view.has(path));
    let built = package.scripts.contains_key("build") && main.contains('/');
    (present || built).then(|| Found::new(format!("node {main}"), format!("main `{main}`")))
}

/// A program with a usual name, also one that TypeScript compiles to it.
fn by_name(view: &SourceView, package: &Package) -> Option<Found> {
    for directory in ["", "src/"] {
        for name in PROGRAMS {
            for end in ["js", "mjs", "cjs"] {
                let path = format!("{directory}{name}.{end}");
                // `index.js` of a package without a start is often for browsers or a library.
                if view.has(&path) && !(view.has("index.html") && directory.is_empty()) {
                    return Some(Found::new(format!("node {path}"), format!("program `{path}`")));
                }
            }
        }
    }
    let builds = package
        .scripts
        .get("build")
        .is_some_and(|line| line.contains("tsc") || line.contains("tsup"));
    if !builds {
        return None;
    }
    let config = view.text("tsconfig.json").unwrap_or_default();
    let setting = |key: &str| {
        let after = config
            .split(&format!("\"{key}\""))
            .nth(1)?
            .trim_start()
            .strip_prefix(':')?
            .trim_start();
        after
            .strip_prefix('"')?
            .split('"')
            .next()
            .map(|path| path.trim_start_matches("./").trim_end_matches('/').to_owned())
    };
    let output = setting("outDir").unwrap_or_else(|| "dist".to_owned());
    let root = setting("rootDir");
    // Without `rootDir` the deepest directory that holds all sources is the root.
    let only_src = !view
        .names_in("")
        .any(|name| name.ends_with(".ts") && !name.contains(".config."));
    for name in PROGRAMS {
        if view.has(&format!("src/{name}.ts")) {
            let inner = if root.as_deref() == Some("src") || root.is_none() && only_src {
                ""
            } else {
                "src/"
            };
            let path = format!("{output}/{inner}{name}.js");
            return Some(Found::new(
                format!("node {path}"),
                format!("program `src/{name}.ts`, compiled to `{path}`"),
            ));
        }
        if view.has(&format!("{name}.ts")) {
            let path = format!("{output}/{name}.js");
            return Some(Found::new(
                format!("node {path}"),
                format!("program `{name}.ts`, compiled to `{path}`"),
            ));
        }
    }
    None
}
