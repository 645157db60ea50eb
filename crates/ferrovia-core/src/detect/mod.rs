//! Detection: what a source tree is, why, and the plan to build it.
//!
//! Every provider says whether it matches and because of what; all matches are shown. One is chosen by rules that can
//! be told in a sentence: forced by a setting; else named by the `Procfile`'s command; else the one that has most (a
//! manifest and a known start before either alone); else the first in a fixed order. Deliberately absent: descending into
//! a directory that holds the application (it is suggested instead), and anything that runs the tree's own code.

mod choose;
mod deploy;
mod go;
mod java;
mod node;
mod procfile;
mod python;
mod rust;
mod shell;
mod static_site;
mod view;

use serde::{Deserialize, Serialize};

use crate::dockerfile;
use crate::error::Report;
use crate::plan::Plan;
use crate::settings::{BuildSettings, BuilderKind};
use crate::versions::{AvailableTool, ResolvedVersion, VersionRequest, resolve};

pub use choose::{Match, Reason};
pub use view::{MAX_HEAD_BYTES, MAX_READ_FILES, MAX_VIEW_BYTES, SourceView, is_wanted};

use procfile::Procfile;

/// What detection is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The tree, narrowed to the root directory.
    pub view: &'a SourceView,
    /// How it should be built.
    pub settings: &'a BuildSettings,
    /// What the platform has or can make.
    pub tools: &'a [AvailableTool],
    /// Names of the service's variables, as far as they are known.
    pub variables: &'a [String],
    /// Whether a plan without a start command will do, because the instance may have one of its own: then it is a
    /// warning with the code `no_start_command`, else a refusal.
    pub allow_no_start: bool,
}

/// What a tree is and how it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detection {
    /// First line of the build log: what was chosen and why.
    pub summary: String,
    /// Everything that matches, the chosen one first.
    pub matches: Vec<Match>,
    /// What else was decided and why, a line each: versions, the package manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How it is built.
    pub method: Method,
    /// What should be told although the build goes on.
    pub warnings: Vec<Report>,
}

/// How a tree is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "builder", rename_all = "snake_case")]
pub enum Method {
    /// By its own Dockerfile.
    Dockerfile {
        /// Its path, relative to the root directory.
        path: String,
        /// The stage to build; none: the last.
        target: Option<String>,
    },
    /// By a plan.
    Auto {
        /// The plan.
        plan: Box<Plan>,
    },
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{}", report.message)]
pub struct Refusal {
    /// What people are told.
    pub report: Report,
    /// Everything that matches.
    pub matches: Vec<Match>,
    /// What was noticed before.
    pub warnings: Vec<Report>,
}

impl From<Report> for Box<Refusal> {
    fn from(report: Report) -> Self {
        Box::new(Refusal {
            report,
            matches: Vec::new(),
            warnings: Vec::new(),
        })
    }
}

/// Says what a tree is and plans its build: an explicit builder, else a `Dockerfile`, else a provider.
///
/// # Errors
/// A [`Refusal`] when nothing matches, a manifest cannot be read, a version is not available, or nothing says how to
/// start the application.
pub fn detect(request: &Request<'_>) -> Result<Detection, Box<Refusal>> {
    let settings = request.settings;
    let path = settings.dockerfile.as_deref().unwrap_or(dockerfile::DEFAULT_PATH);
    let path = path.trim_start_matches("./");
    let present = request.view.has(path);
    match settings.builder {
        Some(BuilderKind::Auto) => auto(request),
        None if settings.provider.is_some() && settings.dockerfile.is_none() => auto(request),
        Some(BuilderKind::Dockerfile) if !present => Err(no_dockerfile(request.view, path).into()),
        None if !present && settings.dockerfile.is_some() => Err(no_dockerfile(request.view, path).into()),
        None if !present => auto(request),
        Some(BuilderKind::Dockerfile) | None => by_dockerfile(request, path),
    }
}

fn by_dockerfile(request: &Request<'_>, path: &str) -> Result<Detection, Box<Refusal>> {
    let settings = request.settings;
    let mut warnings = Vec::new();
    if let Some(text) = request.view.text(path) {
        let file = dockerfile::Dockerfile::read(text);
        if let Some(target) = &settings.target {
            file.check_target(target)?;
        }
        warnings.extend(file.unlisted_arguments(&settings.arguments, request.variables));
    }
    let why = match (settings.builder, settings.dockerfile.is_some()) {
        (Some(_), _) => "the setting `builder` asks for it",
        (None, true) => "the setting `dockerfile` names it",
        (None, false) => "there is one (set the builder to `auto` to detect the application instead)",
    };
    let stage = settings
        .target
        .as_ref()
        .map(|target| format!(", stage `{target}`"))
        .unwrap_or_default();
    Ok(Detection {
        summary: format!("builder: `{path}`{stage}, because {why}"),
        matches: choose::matches(request.view),
        notes: Vec::new(),
        method: Method::Dockerfile {
            path: path.to_owned(),
            target: settings.target.clone(),
        },
        warnings,
    })
}

fn auto(request: &Request<'_>) -> Result<Detection, Box<Refusal>> {
    let mut context = Context::new(request);
    let (chosen, matches, why) = choose::choose(&context)?;
    let refuse = |report: Report, context: &Context<'_>| {
        let warnings = context.warnings.clone();
        Box::new(Refusal {
            report,
            matches: matches.clone(),
            warnings,
        })
    };
    context.note_leftovers();
    let plan = (chosen.plan)(&mut context).map_err(|report| refuse(report, &context))?;
    plan.check(request.allow_no_start)
        .map_err(|report| refuse(report, &context))?;
    if plan.deploy.start.is_none() {
        context.warnings.extend(plan.check(false).err());
    }
    Ok(Detection {
        summary: choose::summary(&matches, &why),
        matches,
        notes: context.notes,
        method: Method::Auto { plan: Box::new(plan) },
        warnings: context.warnings,
    })
}

/// What providers work with.
struct Context<'a> {
    view: &'a SourceView,
    settings: &'a BuildSettings,
    tools: &'a [AvailableTool],
    procfile: Procfile,
    versions: Vec<ResolvedVersion>,
    notes: Vec<String>,
    warnings: Vec<Report>,
}

impl<'a> Context<'a> {
    fn new(request: &Request<'a>) -> Self {
        let (procfile, warnings) = Procfile::parse(request.view.text("Procfile").unwrap_or_default());
        Self {
            view: request.view,
            settings: request.settings,
            tools: request.tools,
            procfile,
            versions: Vec::new(),
            notes: Vec::new(),
            warnings,
        }
    }

    fn warn(&mut self, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Report::new(code, message).with_hint(hint));
    }

    /// Pins a tool's version; gives its line.
    fn pin(&mut self, tool: &str, requests: &[VersionRequest]) -> Result<String, Report> {
        let Some(available) = self.tools.iter().find(|available| available.tool == tool) else {
            return Err(
                Report::new("version_unavailable", format!("{tool} is not available here"))
                    .with_hint("run `ferrovia doctor`, or bring a `Dockerfile`"),
            );
        };
        let (resolved, warnings) = resolve(available, requests)?;
        self.warnings.extend(warnings);
        let line = resolved.line.clone();
        if available.versions.len() > 1 || resolved.request.is_some() {
            self.notes.push(resolved.describe());
        }
        self.versions.push(resolved);
        Ok(line)
    }

    /// The versions of `.tool-versions` for one of these names.
    fn tool_versions(&self, names: &[&str]) -> Option<VersionRequest> {
        let text = self.view.text(".tool-versions")?;
        let version = text.lines().find_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let name = words.next()?;
            names.contains(&name).then(|| words.next()).flatten()
        })?;
        Some(VersionRequest::new(version, ".tool-versions"))
    }

    /// The first line of a version file that says something.
    fn version_file(&self, path: &str) -> Option<VersionRequest> {
        let text = self.view.text(path)?;
        let line = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        let line = line.into_iter().find(|line| !line.is_empty())?;
        Some(VersionRequest::new(line, path))
    }
}

fn no_dockerfile(view: &SourceView, path: &str) -> Report {
    let others: Vec<_> = view
        .paths()
        .filter(|path| path.to_ascii_lowercase().contains("dockerfile"))
        .take(5)
        .collect();
    let hint = match others.as_slice() {
        [] => "add it, or set the builder to `auto`".to_owned(),
        others => format!(
            "there is `{}`: set the Dockerfile's path to it",
            others.join("`, `")
        ),
    };
    Report::new("dockerfile_missing", format!("there is no `{path}` in the tree")).with_hint(hint)
}

/// That a manifest cannot be read.
fn unreadable_manifest(path: &str, why: impl std::fmt::Display) -> Report {
    Report::new("manifest_invalid", format!("`{path}` cannot be read: {why}")).with_hint("correct the file")
}
