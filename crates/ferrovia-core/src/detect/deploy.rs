//! What all providers do alike at the end of a plan.

use crate::error::Report;
use crate::plan::{Deploy, FORMAT, Plan, PortPlan, Step};

use super::procfile::RELEASE;
use super::{Context, shell};

/// What no build step needs to see. Dependencies are installed anew; a tree's own would be for another machine.
const IGNORED: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    ".DS_Store",
    "**/.DS_Store",
    "**/node_modules",
    "**/__pycache__",
    "**/*.pyc",
    "**/.venv",
    "venv",
    "**/.pytest_cache",
    "**/.mypy_cache",
    "**/.ruff_cache",
    "**/.tox",
    "**/.env.local",
    "**/.env.*.local",
];

impl Context<'_> {
    /// The plan: detected start command, unless the `Procfile` has one; all its processes kept.
    ///
    /// `line` makes a command line of the `Procfile` ready for the image (a provider may know scripts by name).
    pub(super) fn plan(
        &self,
        provider: &str,
        steps: Vec<Step>,
        mut deploy: Deploy,
        line: impl Fn(&str) -> Vec<String>,
    ) -> Plan {
        for (name, command) in &self.procfile.processes {
            deploy.processes.insert(name.clone(), line(command));
        }
        if let Some((name, _)) = self.procfile.start() {
            deploy.start = deploy.processes.get(name).cloned();
        }
        if self.procfile.has_no_port() {
            deploy.port = PortPlan::None;
        }
        Plan {
            format: FORMAT,
            provider: provider.to_owned(),
            versions: self.versions.clone(),
            ignore: IGNORED.iter().map(|pattern| (*pattern).to_owned()).collect(),
            steps,
            deploy,
        }
    }

    /// Warns of what the tree has and the build does not do, or does although it may not be meant.
    pub(super) fn note_leftovers(&mut self) {
        if self.view.has(".env") {
            self.warn(
                "env_file_in_tree",
                "`.env` is in the tree and gets into the image, where everyone who has the image can read it",
                "list it in `.gitignore` and set its values with `ferrovia variables import .env`",
            );
        }
        if self.procfile.processes.contains_key(RELEASE) {
            self.warnings.push(Report::new(
                "release_not_run",
                "the `release` process of the `Procfile` is kept in the plan and is never run by a build",
            ));
        }
    }
}

/// Argument lists of a `Procfile`'s commands as they stand there.
pub(super) fn as_it_stands(line: &str) -> Vec<String> {
    shell::start_command(line)
}
