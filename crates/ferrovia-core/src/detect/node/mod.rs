//! Node: `package.json`, or a single program that needs nothing.

mod framework;
mod manager;
mod package;
mod script;
mod start;

use crate::error::Report;
use crate::plan::{Command, Deploy, From, Plan, Secrets, Sharing, Step};
use crate::versions::VersionRequest;

use super::Context;
use super::choose::{Found, Reason};
use super::static_site;
use super::view::SourceView;
use framework::{Framework, Output};
use manager::Manager;
use package::Packages;

/// Where package managers are installed.
const TOOLS_DIRECTORY: &str = "/opt/node-tools";
/// Build variables that installs see: credentials and settings of package managers.
const INSTALL_VARIABLES: &[&str] = &["NPM_", "NODE_", "YARN_", "PNPM_", "BUN_", "npm_config_"];
/// Programs that say by their content that they are servers, without a manifest.
const BARE_PROGRAMS: &[&str] = &[
    "server.js",
    "server.mjs",
    "app.js",
    "index.js",
    "index.mjs",
    "main.js",
];

pub(super) fn find(view: &SourceView) -> Option<Found> {
    if !view.has("package.json") {
        let program = bare_program(view)?;
        return Some(Found {
            reasons: vec![Reason::new(program, "")],
            manifest: false,
            start: true,
        });
    }
    let mut found = Found {
        reasons: vec![Reason::new("package.json", "")],
        manifest: true,
        start: false,
    };
    if let Ok(Some(packages)) = Packages::read(view) {
        let framework = framework::find(view, &packages.root);
        if let Some(start) = start::find(view, &packages, framework.as_ref()) {
            found.start = true;
            found.reasons[0].what = start.source;
        } else if let Some(Framework {
            name,
            output: Output::Static { .. },
            ..
        }) = framework
        {
            found.start = true;
            found.reasons[0].what = (*name).to_owned();
        }
    }
    Some(found)
}

/// A program in the root of a tree without a manifest; not beside an `index.html`, where it is for browsers.
fn bare_program(view: &SourceView) -> Option<&'static str> {
    let is_server = |path: &&&str| {
        let text = view.text(path).unwrap_or_default();
        [
            "require(",
            "from 'node:",
            "from \"node:",
            "process.env",
            "createServer(",
        ]
        .iter()
        .any(|sign| text.contains(sign))
    };
    let found = BARE_PROGRAMS.iter().find(is_server)?;
    (!view.has("index.html")).then_some(found)
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let view = context.view;
    let packages = Packages::read(view)?.unwrap_or_default();
    let framework = framework::find(view, &packages.root);
    let line = context.pin("node", &versions(context, &packages))?;
    let manager = manager::choose(view, &packages);
    if packages.all().any(package::Package::has_dependencies) {
        context.notes.push(manager.describe());
    }
    let start = start::find(view, &packages, framework.as_ref());
    let served = framework.as_ref().and_then(|framework| match &framework.output {
        Output::Static { directory, fallback } => Some((directory.clone(), *fallback)),
        Output::Server(_) => None,
    });
    let static_output = served.filter(|_| serves_files(context, start.as_ref()));
    let mut build = Build {
        packages,
        framework,
        manager,
        line,
        steps: Vec::new(),
        install: None,
    };
    build.add_install(context);
    build.add_build(context);
    if let Some((directory, fallback)) = static_output {
        let deploy = static_site::serve_output(context, "build", &directory, fallback)?;
        let mut plan = context.plan("node", build.steps, deploy.clone(), |_| Vec::new());
        plan.deploy.start = deploy.start;
        plan.deploy.processes.clear();
        return Ok(plan);
    }
    build.finish(context, start)
}

/// Whether a framework's files are served rather than a process started.
fn serves_files(context: &Context<'_>, start: Option<&start::Found>) -> bool {
    let own = match context.procfile.start() {
        Some((_, line)) => Some(line),
        None => start.map(|start| start.line.as_str()),
    };
    own.is_none_or(framework::is_development_server)
}

/// What asks for a version of Node. Files that pin one come before the range that `engines` allows.
fn versions(context: &Context<'_>, packages: &Packages) -> Vec<VersionRequest> {
    let root = &packages.root;
    let mut requests = Vec::new();
    requests.extend(context.version_file(".nvmrc"));
    requests.extend(context.version_file(".node-version"));
    requests.extend(context.tool_versions(&["nodejs", "node"]));
    requests.extend(
        root.volta_node
            .as_ref()
            .map(|text| VersionRequest::new(text, "package.json > volta > node")),
    );
    requests.extend(
        root.engines
            .get("node")
            .map(|text| VersionRequest::new(text, "package.json > engines > node")),
    );
    requests
}

/// A plan in the making.
struct Build {
    packages: Packages,
    framework: Option<Framework>,
    manager: Manager,
    line: String,
    steps: Vec<Step>,
    /// How the dependencies were installed; none: there are none.
    install: Option<Install>,
}

/// How dependencies were installed.
struct Install {
    /// With manifests only, so that the result does not depend on the rest of the source.
    manifests_only: bool,
    /// Build variables that it saw.
    secrets: Secrets,
}

impl Build {
    fn image(&self) -> From {
        From::Image(format!("node:{}", self.line))
    }

    /// Installs all dependencies, if there are any.
    fn add_install(&mut self, context: &mut Context<'_>) {
        let settings = context.settings;
        let packages = &self.packages;
        if !packages.all().any(package::Package::has_dependencies) && settings.install_command.is_none() {
            return;
        }
        if self.manager.lock.is_none() {
            context.warn(
                "lock_file_missing",
                format!(
                    "there is no lock file of {}: another build may install other versions",
                    self.manager.program()
                ),
                format!(
                    "run `{} install` and commit the file that it writes",
                    self.manager.program()
                ),
            );
        }
        let hook = packages.root.install_script().map(|(name, _)| name.to_owned());
        let whole = hook.is_some()
            || settings.install_command.is_some()
            || packages.all().any(package::Package::has_local_dependency);
        let secrets = if whole {
            Secrets::All
        } else {
            Secrets::Prefixed(install_variables(context.view))
        };
        let mut step = self.manager.prepared(Step::new("install", self.image()));
        step = step
            .variables(&[("npm_config_prefix", TOOLS_DIRECTORY)])
            .path(&format!("{TOOLS_DIRECTORY}/bin"));
        step = self.manager.installed(step);
        if whole {
            step = step.source(["."]);
        } else {
            let members = packages
                .members
                .keys()
                .map(|directory| format!("{directory}/package.json"));
            let manifests = std::iter::once("package.json".to_owned()).chain(members);
            step = step.source(manifests.chain(self.manager.files(context.view)));
        }
        step = step.shell(
            settings
                .install_command
                .clone()
                .unwrap_or_else(|| self.manager.install()),
        );
        self.steps.push(step.secrets(secrets.clone()));
        self.install = Some(Install {
            manifests_only: !whole,
            secrets,
        });
    }

    /// Adds the source and builds it, if there is something to build.
    fn add_build(&mut self, context: &Context<'_>) {
        let from = match &self.install {
            Some(_) => From::Step("install".to_owned()),
            None if self.build_script(context).is_some() => self.image(),
            // Nothing runs: the files only pass through.
            None => From::Image(format!("node-runtime:{}", self.line)),
        };
        let mut step = Step::new("build", from);
        if self.install.as_ref().is_none_or(|install| install.manifests_only) {
            step = step.source(["."]);
        }
        if let Some(script) = self.build_script(context) {
            step = self
                .manager
                .prepared(step)
                .variables(&[("NODE_ENV", "production")])
                .secrets(Secrets::All);
            if let Some(framework) = &self.framework {
                step = step.variables(framework.build_variables);
            }
            // A cache cannot be mounted where the script itself takes the directory away.
            let removes = script.contains("npm ci") || script.contains("rm -rf node_modules");
            let caches = self
                .framework
                .as_ref()
                .map_or(&["node_modules/.cache"][..], |framework| framework.caches);
            for cache in caches
                .iter()
                .filter(|cache| !removes || !cache.starts_with("node_modules"))
            {
                step = step.cache(
                    &format!("build-{}", cache.replace(['/', '.'], "-")),
                    &format!("/app/{cache}"),
                    Sharing::Locked,
                );
            }
            step = step.shell(script);
        }
        self.steps.push(step);
    }

    fn build_script(&self, context: &Context<'_>) -> Option<String> {
        if let Some(command) = &context.settings.build_command {
            return Some(command.clone());
        }
        if self.packages.root.scripts.contains_key("build") {
            return Some(self.manager.run("build"));
        }
        let build = self
            .framework
            .as_ref()
            .map(|framework| framework.build)
            .filter(|build| !build.is_empty())?;
        Some(format!("./node_modules/.bin/{build}"))
    }

    /// The application's image for a process.
    fn finish(mut self, context: &mut Context<'_>, start: Option<start::Found>) -> Result<Plan, Report> {
        let builds = self.build_script(context).is_some();
        let resolved = start.map(|start| script::resolve(&self.packages, &start.line, builds));
        let lines = context.procfile.processes.values();
        let mut starts: Vec<_> = lines
            .map(|line| script::resolve(&self.packages, line, builds))
            .collect();
        starts.extend(resolved.clone());
        for note in starts.iter().flat_map(|start| start.notes.clone()) {
            context.warnings.push(Report::new("start_command_changed", note));
        }
        let manager = starts.iter().find_map(|start| start.needs_manager.clone());
        if let Some(program) = &manager {
            context.warn(
                "start_needs_package_manager",
                format!("the start command runs `{program}` in a way that cannot be looked through, so package managers stay in the image"),
                "start the program itself: `node FILE`",
            );
        }
        let with_tools = manager.is_some()
            || starts
                .iter()
                .any(|start| start.command.first().is_some_and(|word| word == "bun"));
        let base = if manager.is_some() { "node" } else { "node-runtime" };
        let mut deploy =
            Deploy::new(format!("{base}:{}", self.line)).variables(&[("NODE_ENV", "production")]);
        if with_tools && self.install.is_some() {
            deploy = deploy
                .input("install", TOOLS_DIRECTORY, &[])
                .path(&format!("{TOOLS_DIRECTORY}/bin"));
        }
        deploy = self.add_production(context, deploy, &starts);
        if self.install.is_some() {
            deploy = deploy.path("/app/node_modules/.bin");
        }
        if let Some(framework) = &self.framework {
            deploy = deploy.variables(framework.variables);
        }
        self.add_system_packages(&mut deploy);
        deploy.start = resolved
            .map(|start| start.command)
            .filter(|command| !command.is_empty());
        let packages = &self.packages;
        Ok(context.plan("node", self.steps, deploy, |line| {
            script::resolve(packages, line, builds).command
        }))
    }

    /// Takes dependencies for development away, and says what the image takes from which step. Where the build leaves
    /// the dependencies alone they are a layer of their own, which a change of the source does not touch.
    fn add_production(
        &mut self,
        context: &mut Context<'_>,
        deploy: Deploy,
        starts: &[script::Start],
    ) -> Deploy {
        const LEFT_BEHIND: &[&str] = &[
            "node_modules/.cache",
            "node_modules/.vite",
            ".next/cache",
            ".angular/cache",
            ".git",
        ];
        let Some(install) = &self.install else {
            return deploy.input("build", "/app", &[".git"]);
        };
        let split = install.manifests_only
            && !self.packages.is_workspace()
            && !self.packages.root.has_any(&["prisma", "@prisma/client", "nuxt"]);
        let mut step = if split { "install" } else { "build" };
        let needed = self.development_at_run_time(starts);
        if let Some(name) = &needed {
            context.warn(
                "development_dependency_needed",
                format!("the start command needs `{name}`, which is a dependency for development: those stay in the image"),
                format!("move `{name}` to `dependencies`, or start the built program with `node`"),
            );
        }
        let prunes = self
            .packages
            .all()
            .any(|package| !package.dev_dependencies.is_empty())
            && needed.is_none();
        if prunes && context.settings.install_command.is_none() {
            let mut production = self
                .manager
                .prepared(Step::new("production", From::Step(step.to_owned())));
            production.secrets = install.secrets.clone();
            production
                .commands
                .push(Command::Shell(self.manager.prune(&self.packages)));
            self.steps
                .push(production.exec(["mkdir", "-p", "/app/node_modules"]));
            step = "production";
        }
        if split {
            let deploy = deploy.input(step, "/app/node_modules", &[".cache", ".vite"]);
            deploy.input(
                "build",
                "/app",
                &["node_modules", ".next/cache", ".angular/cache", ".git"],
            )
        } else {
            deploy.input(step, "/app", LEFT_BEHIND)
        }
    }

    /// A dependency for development that a start command runs.
    fn development_at_run_time(&self, starts: &[script::Start]) -> Option<String> {
        let words = starts
            .iter()
            .flat_map(|start| start.command.iter())
            .flat_map(|word| word.split_whitespace());
        let root = &self.packages.root;
        let is_one = |word: &str| {
            let named = |name: &&String| {
                word == name.as_str()
                    || word
                        .strip_prefix(name.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
            };
            root.dev_dependencies
                .keys()
                .find(named)
                .filter(|name| !root.dependencies.contains_key(*name))
                .cloned()
        };
        words.into_iter().find_map(is_one)
    }

    /// Debian packages that well-known dependencies need.
    fn add_system_packages(&self, deploy: &mut Deploy) {
        if self
            .packages
            .all()
            .any(|package| package.has_any(&["prisma", "@prisma/client"]))
        {
            deploy.packages.push("openssl".to_owned());
        }
        if self
            .packages
            .all()
            .any(|package| package.dependencies.contains_key("puppeteer"))
        {
            deploy.packages.push("chromium".to_owned());
            deploy.variables.insert(
                "PUPPETEER_EXECUTABLE_PATH".to_owned(),
                "/usr/bin/chromium".to_owned(),
            );
        }
    }
}

/// Names and prefixes of variables that an install sees: the usual ones, and what registry settings refer to.
fn install_variables(view: &SourceView) -> Vec<String> {
    let mut names: Vec<String> = INSTALL_VARIABLES
        .iter()
        .map(|prefix| (*prefix).to_owned())
        .collect();
    for path in [".npmrc", ".yarnrc.yml"] {
        for piece in view.text(path).unwrap_or_default().split("${").skip(1) {
            let name = piece
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default();
            if !name.is_empty() && !names.iter().any(|prefix| name.starts_with(prefix)) {
                names.push(name.to_owned());
            }
        }
    }
    names
}
