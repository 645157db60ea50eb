//! Python: a virtual environment in `/app/.venv`, made from whatever says what is needed.
//!
//! Poetry, PDM and Pipenv only turn their lock file into pinned requirements here; pip installs those. So every manager
//! works with any index that pip works with, shares one cache, and leaves nothing of itself in the image.

mod needs;
mod start;

use crate::error::Report;
use crate::plan::{Command, Deploy, From, Plan, Secrets, Sharing, Step};
use crate::versions::VersionRequest;

use super::choose::{Found, Reason};
use super::view::SourceView;
use super::{Context, deploy, shell};
use needs::Needs;

const VENV: &str = "/app/.venv";
const VENV_BIN: &str = "/app/.venv/bin";
/// Where the tools of installs are, apart from the application's environment.
const TOOLS_BIN: &str = "/opt/python-tools/bin";
/// Programs that are started when nothing else says what is.
const PROGRAMS: &[&str] = &[
    "main.py",
    "app.py",
    "server.py",
    "start.py",
    "run.py",
    "bot.py",
    "worker.py",
    "hello.py",
];
/// Build variables that installs see.
const INSTALL_VARIABLES: &[&str] = &["PIP_", "UV_", "POETRY_", "PDM_", "PIPENV_"];

/// Environment of every Python application.
const RUN_VARIABLES: &[(&str, &str)] = &[
    ("PYTHONUNBUFFERED", "1"),
    ("PYTHONFAULTHANDLER", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    // The edge is the only way in, and says who the visitor is and how they came.
    ("FORWARDED_ALLOW_IPS", "*"),
];

/// What says which packages are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Requirements,
    Uv,
    Poetry,
    Pdm,
    Pipenv,
    /// `pyproject.toml` without a lock file.
    Project,
    None,
}

fn manager(view: &SourceView) -> Manager {
    let has = |path| view.has(path);
    let poetry = || {
        view.text("pyproject.toml")
            .is_some_and(|text| text.contains("[tool.poetry"))
    };
    match () {
        () if has("uv.lock") => Manager::Uv,
        () if has("poetry.lock") => Manager::Poetry,
        () if has("pdm.lock") => Manager::Pdm,
        () if has("Pipfile.lock") => Manager::Pipenv,
        () if has("requirements.txt") => Manager::Requirements,
        () if has("Pipfile") => Manager::Pipenv,
        () if poetry() => Manager::Poetry,
        () if has("pyproject.toml") => Manager::Project,
        () => Manager::None,
    }
}

impl Manager {
    const fn file(self) -> &'static str {
        match self {
            Self::Requirements => "requirements.txt",
            Self::Uv => "uv.lock",
            Self::Poetry => "poetry.lock",
            Self::Pdm => "pdm.lock",
            Self::Pipenv => "Pipfile",
            Self::Project => "pyproject.toml",
            Self::None => "",
        }
    }
}

pub(super) fn find(view: &SourceView) -> Option<Found> {
    let manager = manager(view);
    let mut found = Found::default();
    if manager != Manager::None && (manager != Manager::Project || is_application(view)) {
        let file = [manager.file(), "pyproject.toml"]
            .into_iter()
            .find(|file| view.has(file));
        found
            .reasons
            .push(Reason::new(file.unwrap_or(manager.file()), ""));
        found.manifest = true;
    }
    let needs = Needs::read(view).unwrap_or_default();
    if let Some(start) = start::find(view, &needs) {
        found.reasons.push(Reason::new(&start.path, start.what));
        found.start = true;
    }
    (!found.reasons.is_empty()).then_some(found)
}

/// Whether `pyproject.toml` is more than the settings of a formatter.
fn is_application(view: &SourceView) -> bool {
    view.text("pyproject.toml")
        .is_some_and(|text| text.contains("[project]") || text.contains("[tool.poetry]"))
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let view = context.view;
    let manager = manager(view);
    let needs = Needs::read(view)?;
    let line = context.pin("python", &versions(context, &needs))?;
    let settings = context.settings;
    if manager == Manager::None && settings.install_command.is_none() && settings.build_command.is_none() {
        return Ok(plan_without_needs(context, &needs, &line));
    }
    let mut install = install_step(context, manager, &line);
    let libraries = needs.libraries();
    if !libraries.build.is_empty() {
        install
            .commands
            .insert(0, Command::Shell(apt_install(&libraries.build)));
    }
    let whole = install.secrets == Secrets::All;
    let mut build = Step::new("build", From::Step("install".to_owned())).path(VENV_BIN);
    if !whole {
        build = build.source(["."]);
    }
    if manager == Manager::Uv && needs.is_package {
        build = uv(build, &line)
            .shell("uv sync --locked --no-dev --no-editable")
            .secrets(Secrets::Prefixed(
                INSTALL_VARIABLES
                    .iter()
                    .map(|prefix| (*prefix).to_owned())
                    .collect(),
            ));
    } else if matches!(manager, Manager::Poetry | Manager::Pdm) && needs.is_package && needs.has_scripts {
        build = build.shell("pip install --no-deps .");
    }
    let start = start::find(view, &needs);
    if let Some(command) = &context.settings.build_command {
        build = build.shell(command).secrets(Secrets::All);
    } else if start.as_ref().is_some_and(|start| start.collects_static) {
        build = build.secrets(Secrets::All).shell(
            "python manage.py collectstatic --noinput || echo 'WARNING: static files could not be collected; \
             if the settings need variables, give them defaults for the build'",
        );
    }
    let mut deploy = Deploy::new(format!("python-runtime:{line}"))
        .input("install", VENV, &[])
        .input("build", "/app", &[".venv", ".git"])
        .variables(&[("VIRTUAL_ENV", VENV)])
        .variables(RUN_VARIABLES)
        .path(VENV_BIN);
    if build.commands.iter().any(|command| matches!(command, Command::Shell(line) if line.contains("uv sync") || line.contains("pip install"))) {
        deploy.inputs[0].step = "build".to_owned();
    }
    deploy.packages = libraries.run;
    if let Some(start) = start {
        if context.procfile.start().is_none()
            && let Some((message, hint)) = &start.warning
        {
            context.warn("development_server", message.clone(), hint.clone());
        }
        deploy.start = Some(shell::start_command(&start.line));
    }
    Ok(context.plan("python", vec![install, build], deploy, deploy::as_it_stands))
}

/// A program that needs nothing but Python passes through.
fn plan_without_needs(context: &Context<'_>, needs: &Needs, line: &str) -> Plan {
    let base = format!("python-runtime:{line}");
    let step = Step::new("source", From::Image(base.clone())).source(["."]);
    let mut deploy = Deploy::new(base)
        .input("source", "/app", &[".git"])
        .variables(RUN_VARIABLES);
    deploy.start = start::find(context.view, needs).map(|start| shell::start_command(&start.line));
    context.plan("python", vec![step], deploy, deploy::as_it_stands)
}

/// What asks for a version of Python.
fn versions(context: &Context<'_>, needs: &Needs) -> Vec<VersionRequest> {
    let mut requests = Vec::new();
    requests.extend(context.version_file(".python-version"));
    if let Some(mut request) = context.version_file("runtime.txt") {
        request.text = request.text.trim_start_matches("python-").to_owned();
        requests.push(request);
    }
    requests.extend(context.tool_versions(&["python"]));
    requests.extend(needs.versions.iter().cloned());
    requests
}

/// The step that makes the virtual environment.
fn install_step(context: &mut Context<'_>, manager: Manager, line: &str) -> Step {
    let view = context.view;
    let step = Step::new("install", From::Image(format!("python:{line}")))
        .cache("pip", "/opt/pip-cache", Sharing::Shared)
        .variables(&[
            ("PIP_CACHE_DIR", "/opt/pip-cache"),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
            ("PIP_NO_INPUT", "1"),
            ("PIP_ROOT_USER_ACTION", "ignore"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ]);
    let with_venv = |step: Step| step.exec(["python3", "-m", "venv", VENV]);
    let secrets = Secrets::Prefixed(
        INSTALL_VARIABLES
            .iter()
            .map(|prefix| (*prefix).to_owned())
            .collect(),
    );
    if let Some(command) = &context.settings.install_command {
        return with_venv(step)
            .path(VENV_BIN)
            .source(["."])
            .shell(command)
            .secrets(Secrets::All);
    }
    let step = match manager {
        Manager::None => with_venv(step),
        Manager::Requirements => {
            let files = requirement_files(view);
            let local = files
                .iter()
                .any(|file| needs::refers_to_tree(view.text(file).unwrap_or_default()));
            if local {
                return with_venv(step)
                    .path(VENV_BIN)
                    .source(["."])
                    .shell("pip install -r requirements.txt")
                    .secrets(Secrets::All);
            }
            with_venv(step)
                .path(VENV_BIN)
                .source(files)
                .shell("pip install -r requirements.txt")
        }
        Manager::Uv => {
            let step = tool(step, "uv", include_str!("../assets/tools/uv.txt"));
            let sync = "uv sync --locked --no-dev --no-install-project";
            if view
                .text("pyproject.toml")
                .is_some_and(|text| text.contains("[tool.uv.workspace]") || text.contains("path ="))
            {
                return uv(step, line)
                    .source(["."])
                    .shell(sync.replace("--no-install-project", "--no-editable"))
                    .secrets(Secrets::All);
            }
            uv(step, line)
                .source(present(view, &["pyproject.toml", "uv.lock"]))
                .shell(sync)
        }
        Manager::Poetry => {
            let step = tool(step, "poetry", include_str!("../assets/tools/poetry.txt"));
            let locks = if view.has("poetry.lock") {
                ""
            } else {
                "poetry lock\n"
            };
            if !locks.is_empty() {
                lock_missing(context, "`poetry.lock`", "poetry lock");
            }
            let export = "poetry export --only main --format requirements.txt --output /tmp/requirements.txt";
            with_venv(step)
                .path(VENV_BIN)
                .source(present(view, &["pyproject.toml", "poetry.lock", "poetry.toml"]))
                .shell(format!(
                    "{locks}{export}\npip install --no-deps -r /tmp/requirements.txt"
                ))
        }
        Manager::Pdm => {
            let step = tool(step, "pdm", include_str!("../assets/tools/pdm.txt"));
            let export = "pdm export --prod --format requirements --output /tmp/requirements.txt";
            with_venv(step)
                .path(VENV_BIN)
                .source(present(view, &["pyproject.toml", "pdm.lock"]))
                .shell(format!(
                    "{export}\npip install --no-deps -r /tmp/requirements.txt"
                ))
        }
        Manager::Pipenv => {
            let step = tool(step, "pipenv", include_str!("../assets/tools/pipenv.txt"));
            let lock = if view.has("Pipfile.lock") {
                "pipenv verify\n"
            } else {
                "pipenv lock\n"
            };
            if !view.has("Pipfile.lock") {
                lock_missing(context, "`Pipfile.lock`", "pipenv lock");
            }
            // The usual index is whatever pip is told to use; others are the project's own.
            let sources = view
                .text("Pipfile")
                .unwrap_or_default()
                .matches("[[source]]")
                .count();
            let other = if sources <= 1 { " | sed '/^-i /d'" } else { "" };
            with_venv(step)
                .path(VENV_BIN)
                .source(present(view, &["Pipfile", "Pipfile.lock"]))
                .shell(format!("{lock}pipenv requirements{other} > /tmp/requirements.txt\npip install --no-deps -r /tmp/requirements.txt"))
        }
        Manager::Project => {
            lock_missing(context, "lock file", "uv lock");
            return with_venv(step)
                .path(VENV_BIN)
                .source(["."])
                .shell("pip install .")
                .secrets(Secrets::All);
        }
    };
    step.secrets(secrets)
}

fn lock_missing(context: &mut Context<'_>, file: &str, command: &str) {
    context.warn(
        "lock_file_missing",
        format!("there is no {file}: another build may install other versions"),
        format!("run `{command}` and commit the file that it writes"),
    );
}

/// The step with a tool in an environment of its own, all of it pinned.
fn tool(step: Step, name: &str, pins: &str) -> Step {
    let file = format!("/opt/ferrovia/{name}.txt");
    step.file(&file, pins)
        .shell(format!(
            "python3 -m venv /opt/python-tools\n/opt/python-tools/bin/pip install --no-deps -r {file}"
        ))
        .path(TOOLS_BIN)
}

/// The step with the environment of uv.
fn uv(step: Step, line: &str) -> Step {
    step.cache("uv", "/opt/uv-cache", Sharing::Shared).variables(&[
        ("UV_CACHE_DIR", "/opt/uv-cache"),
        ("UV_LINK_MODE", "copy"),
        ("UV_PROJECT_ENVIRONMENT", VENV),
        ("UV_PYTHON_DOWNLOADS", "never"),
        ("UV_PYTHON", line),
    ])
}

/// `requirements.txt`, what it includes, and constraints.
fn requirement_files(view: &SourceView) -> Vec<String> {
    let mut files = vec!["requirements.txt".to_owned()];
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        at += 1;
        for line in view.text(&file).unwrap_or_default().lines() {
            let mut words = line.split(['=', ' ', '\t']).filter(|word| !word.is_empty());
            if let (Some("-r" | "--requirement" | "-c" | "--constraint"), Some(other)) =
                (words.next(), words.next())
            {
                let directory = file
                    .rsplit_once('/')
                    .map_or(String::new(), |(directory, _)| format!("{directory}/"));
                let other = format!("{directory}{}", other.trim_start_matches("./"));
                if view.has(&other) && !files.contains(&other) {
                    files.push(other);
                }
            }
        }
    }
    files
}

fn present(view: &SourceView, paths: &[&str]) -> Vec<String> {
    paths
        .iter()
        .filter(|path| view.has(path))
        .map(|path| (*path).to_owned())
        .collect()
}

/// The script that installs Debian packages and leaves no lists behind.
pub(super) fn apt_install(packages: &[String]) -> String {
    format!(
        "apt-get update\napt-get install --yes --no-install-recommends {}\nrm -rf /var/lib/apt/lists/*",
        packages.join(" ")
    )
}
