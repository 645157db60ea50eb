//! Static sites, and trees that have nothing but a `Procfile`.
//!
//! Files are served by nginx, run unprivileged with a configuration of the platform's own: it is small, official images
//! and Debian both have it, and it knows ranges, conditional requests and compression.

use crate::error::Report;
use crate::plan::{Deploy, FileAsset, From, Plan, Step};

use super::choose::{Found, Reason};
use super::view::SourceView;
use super::{Context, deploy, shell};

const CONFIGURATION: &str = include_str!("assets/nginx.conf");
const CONFIGURATION_PATH: &str = "/etc/ferrovia/nginx.conf";
const SITE_DIRECTORY: &str = "/srv/site";

/// Directories that a finished site may lie in, when the root has no `index.html`.
const SITE_DIRECTORIES: &[&str] = &["public", "dist", "_site", "build", "site", "html", "www"];
/// What of a root that is served is not part of the site.
const NOT_SITE: &[&str] = &["Staticfile", "Procfile", "Dockerfile", ".git*", ".dockerignore"];

/// What a path that names no file answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// `index.html`: the application in the browser knows the path.
    Index,
    /// `404.html` with status 404.
    NotFound,
}

pub(super) fn find(view: &SourceView) -> Option<Found> {
    let (_, reason) = site_root(view)?;
    Some(Found {
        reasons: vec![reason],
        manifest: view.has("Staticfile"),
        start: true,
    })
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let Some((root, _)) = site_root(context.view) else {
        return Err(Report::new("no_site", "there is no `index.html` to serve")
            .with_hint("put it into the root or into `public`, or name the directory in a `Staticfile` (`root: DIRECTORY`)"));
    };
    let fallback = match staticfile(context.view, &["index_fallback", "pushstate"]).as_deref() {
        Some("true" | "enabled" | "yes") => Fallback::Index,
        _ => Fallback::NotFound,
    };
    let (line, deploy) = served(context, fallback)?;
    let (paths, from) = match root.as_str() {
        "" => (".", "/app".to_owned()),
        root => (root, format!("/app/{root}")),
    };
    let mut steps = Vec::new();
    let mut step = "source";
    if let Some(command) = &context.settings.build_command {
        step = "build";
        steps.push(
            Step::new(step, From::Image("debian:trixie".to_owned()))
                .source(["."])
                .shell(command),
        );
    } else {
        steps.push(Step::new(step, From::Image(format!("static:{line}"))).source([paths]));
    }
    let deploy = deploy.input_to(step, &from, SITE_DIRECTORY, NOT_SITE);
    Ok(context.plan("static", steps, deploy, deploy::as_it_stands))
}

/// An image that serves [`SITE_DIRECTORY`], still empty, and the line of its base.
fn served(context: &mut Context<'_>, fallback: Fallback) -> Result<(String, Deploy), Report> {
    let line = context.pin("static", &[])?;
    let mut deploy = Deploy::new(format!("static:{line}"));
    let tried = match fallback {
        Fallback::Index => "$uri $uri/index.html $uri.html /index.html",
        Fallback::NotFound => "$uri $uri/ $uri.html =404",
    };
    deploy.files.push(FileAsset {
        path: CONFIGURATION_PATH.to_owned(),
        content: CONFIGURATION.replace("@TRY@", tried),
        executable: false,
    });
    deploy.start = Some(shell::shell_command(&format!(
        "sed \"s/@PORT@/${{PORT:-8080}}/\" {CONFIGURATION_PATH} > /tmp/nginx.conf && exec nginx -e stderr -c /tmp/nginx.conf"
    )));
    // On SIGTERM nginx drops requests that it is answering; on SIGQUIT it finishes them.
    deploy.stop_signal = Some("SIGQUIT".to_owned());
    Ok((line, deploy))
}

/// An image that serves what a step left in a directory below the application's.
pub(super) fn serve_output(
    context: &mut Context<'_>,
    step: &str,
    output: &str,
    fallback: Fallback,
) -> Result<Deploy, Report> {
    let (_, deploy) = served(context, fallback)?;
    let from = format!("/app/{}", output.trim_start_matches("./").trim_matches('/'));
    Ok(deploy.input_to(step, from.trim_end_matches('/'), SITE_DIRECTORY, &[]))
}

/// The directory that is served, relative; and what says so.
fn site_root(view: &SourceView) -> Option<(String, Reason)> {
    if let Some(root) = staticfile(view, &["root"]) {
        let root = root.trim_start_matches("./").trim_matches('/').to_owned();
        let root = if root == "." { String::new() } else { root };
        return Some((root.clone(), Reason::new("Staticfile", format!("root `{root}`"))));
    }
    if view.has("index.html") {
        return Some((String::new(), Reason::new("index.html", "")));
    }
    let directory = SITE_DIRECTORIES
        .iter()
        .find(|directory| view.has(&format!("{directory}/index.html")));
    match directory {
        Some(directory) => Some((
            (*directory).to_owned(),
            Reason::new(&format!("{directory}/index.html"), ""),
        )),
        None => view
            .has("Staticfile")
            .then(|| (String::new(), Reason::new("Staticfile", ""))),
    }
}

/// The value of the first of these keys in the `Staticfile`.
fn staticfile(view: &SourceView, keys: &[&str]) -> Option<String> {
    let text = view.text("Staticfile")?;
    text.lines().find_map(|line| {
        let (key, value) = line.split('#').next()?.split_once(':')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (keys.contains(&key.trim()) && !value.is_empty()).then(|| value.to_owned())
    })
}

pub(super) fn find_procfile(view: &SourceView) -> Option<Found> {
    let (procfile, _) = super::procfile::Procfile::parse(view.text("Procfile")?);
    let (name, _) = procfile.start()?;
    let reasons = vec![Reason::new("Procfile", format!("process `{name}`"))];
    Some(Found {
        reasons,
        manifest: false,
        start: true,
    })
}

/// Runs the `Procfile` on plain Debian with the tree as it is.
pub(super) fn plan_procfile(context: &mut Context<'_>) -> Result<Plan, Report> {
    let base = format!("debian:{}", context.pin("debian", &[])?);
    let mut step = Step::new("source", From::Image(base.clone())).source(["."]);
    for command in [&context.settings.install_command, &context.settings.build_command]
        .into_iter()
        .flatten()
    {
        step = step.shell(command);
    }
    let deploy = Deploy::new(base).input("source", "/app", &[]).path("/app/bin");
    if let Some((name, line)) = context.procfile.start() {
        let (_, command) = shell::split_assignments(line);
        let program = command
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_start_matches("./");
        if context.view.has(program) && !context.view.is_executable(program) {
            let message = format!("`Procfile` starts `{name}` with `{program}`, which is not executable");
            let hint = format!("run `chmod +x {program}`, or start it with `sh {program}`");
            context.warn("not_executable", message, hint);
        }
    }
    Ok(context.plan("procfile", vec![step], deploy, deploy::as_it_stands))
}
