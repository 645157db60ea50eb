//! A build plan: what is done to turn a source tree into an image, as data.
//!
//! It is a pure function of tree, settings and available tools, is shown to people and kept with the build. Whoever
//! executes it (today: a Dockerfile for BuildKit) must not decide anything that would change the image.
//!
//! Steps run as root in throw-away images; only what [`Deploy::inputs`] names gets into the application's image, which
//! has no compiler, no package manager and no secret, and runs as [`USER_ID`].

mod check;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::versions::ResolvedVersion;

/// Layout of the JSON; grows when a field changes its meaning.
pub const FORMAT: u32 = 1;
/// Where the application lies, in steps and in its image.
pub const APP_DIRECTORY: &str = "/app";
/// User and group that the application runs as.
pub const USER_ID: u32 = 1000;
/// Label of the image: `none` when the application has no port.
pub const PORT_LABEL: &str = "ferrovia.port";
/// Label of the image: the plan's processes as JSON, name to argument list.
pub const PROCESSES_LABEL: &str = "ferrovia.processes";

/// What is done to turn a source tree into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// What the tree is: `node`, `python`, …
    pub provider: String,
    /// Tools with their pinned versions.
    pub versions: Vec<ResolvedVersion>,
    /// Paths of the tree that no step sees, as patterns of a `.dockerignore`.
    pub ignore: Vec<String>,
    /// In an order in which they can run.
    pub steps: Vec<Step>,
    /// The application's image.
    pub deploy: Deploy,
}

/// A stage of the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Lower case, unique in the plan: `install`, `build`.
    pub name: String,
    /// What it starts from.
    pub from: From,
    /// In order.
    pub commands: Vec<Command>,
    /// Directories kept between builds, mounted for every command that runs something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Cache>,
    /// Which build variables its commands see.
    #[serde(default)]
    pub secrets: Secrets,
    /// Environment of its commands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// What a step starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// A base, by key: `node:20`.
    Image(String),
    /// An earlier step, with everything that it left.
    Step(String),
}

/// What a command copies from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyFrom {
    /// The source tree; paths are relative to its root.
    Source,
    /// Another step; paths are absolute.
    Step(String),
}

/// One command of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Runs a program, without a shell.
    Exec(Vec<String>),
    /// Runs a script by `/bin/sh`; it ends at the first line that fails.
    Shell(String),
    /// Copies paths; each keeps its path below `to`.
    Copy {
        /// Where from.
        from: CopyFrom,
        /// Files and directories that exist; `.` is everything.
        paths: Vec<String>,
        /// Directory to copy into.
        to: String,
    },
    /// Puts a directory in front of the `PATH`.
    Path(String),
    /// Writes a file.
    File(FileAsset),
}

/// A file that the plan brings along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAsset {
    /// Absolute.
    pub path: String,
    /// UTF-8.
    pub content: String,
    /// Whether it is executable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A directory kept between builds of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Unique in the service: `npm`.
    pub name: String,
    /// Absolute.
    pub directory: String,
    /// Whether two builds may use it at once.
    pub sharing: Sharing,
}

/// Whether two builds may use a cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// They may.
    Shared,
    /// One waits for the other.
    Locked,
}

/// Which build variables a step's commands see, as environment and never in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secrets {
    /// None.
    #[default]
    None,
    /// Those whose names begin with one of these.
    Prefixed(Vec<String>),
    /// All.
    All,
}

impl Secrets {
    /// Whether a variable of this name is seen.
    pub fn sees(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Prefixed(prefixes) => prefixes.iter().any(|prefix| name.starts_with(prefix)),
            Self::All => true,
        }
    }
}

/// The application's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Key of the base that it stands on.
    pub base: String,
    /// Debian packages that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// What it takes from steps; what changes least comes first.
    pub inputs: Vec<DeployInput>,
    /// Files that it brings along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileAsset>,
    /// What starts it, as an argument list; none only when the instance has a start command of its own.
    pub start: Option<Vec<String>>,
    /// Every process type of the `Procfile`, as argument lists; `release` is never run by a build.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub processes: BTreeMap<String, Vec<String>>,
    /// Whether it listens.
    pub port: PortPlan,
    /// Environment of the image.
    pub variables: BTreeMap<String, String>,
    /// Directories in front of the `PATH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Signal that ends it; none: SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Paths that the image takes from a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployInput {
    /// The step.
    pub step: String,
    /// Absolute path in the step.
    pub from: String,
    /// Absolute path in the image.
    pub to: String,
    /// What of it is left behind, as patterns of a `.dockerignore`, relative to `from`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Whether an application listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortPlan {
    /// On `PORT`.
    Web,
    /// Nowhere: a worker.
    None,
}

impl Step {
    /// A step without commands.
    pub fn new(name: &str, from: From) -> Self {
        Self {
            name: name.to_owned(),
            from,
            commands: Vec::new(),
            caches: Vec::new(),
            secrets: Secrets::None,
            variables: BTreeMap::new(),
        }
    }

    /// With a program to run.
    #[must_use]
    pub fn exec<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.commands
            .push(Command::Exec(arguments.map(str::to_owned).to_vec()));
        self
    }

    /// With a script to run.
    #[must_use]
    pub fn shell(mut self, script: impl Into<String>) -> Self {
        self.commands.push(Command::Shell(script.into()));
        self
    }

    /// With paths of the source tree, copied into the application's directory.
    #[must_use]
    pub fn source<I: IntoIterator<Item = S>, S: Into<String>>(mut self, paths: I) -> Self {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        if !paths.is_empty() {
            let to = APP_DIRECTORY.to_owned();
            self.commands.push(Command::Copy {
                from: CopyFrom::Source,
                paths,
                to,
            });
        }
        self
    }

    /// With a file of the plan's own.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<String>) -> Self {
        self.commands.push(Command::File(FileAsset {
            path: path.to_owned(),
            content: content.into(),
            executable: false,
        }));
        self
    }

    /// With a directory in front of the `PATH`.
    #[must_use]
    pub fn path(mut self, directory: &str) -> Self {
        self.commands.push(Command::Path(directory.to_owned()));
        self
    }

    /// With a cache.
    #[must_use]
    pub fn cache(mut self, name: &str, directory: &str, sharing: Sharing) -> Self {
        self.caches.push(Cache {
            name: name.to_owned(),
            directory: directory.to_owned(),
            sharing,
        });
        self
    }

    /// With build variables.
    #[must_use]
    pub fn secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// With environment variables of its commands.
    #[must_use]
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables
            .extend(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self
    }
}

impl Deploy {
    /// An image that holds nothing but its base.
    pub fn new(base: String) -> Self {
        Self {
            base,
            packages: Vec::new(),
            inputs: Vec::new(),
            files: Vec::new(),
            start: None,
            processes: BTreeMap::new(),
            port: PortPlan::Web,
            variables: BTreeMap::new(),
            paths: Vec::new(),
            stop_signal: None,
        }
    }

    /// With a path of a step, at the same place.
    #[must_use]
    pub fn input(self, step: &str, path: &str, exclude: &[&str]) -> Self {
        self.input_to(step, path, path, exclude)
    }

    /// With a path of a step, at another place.
    #[must_use]
    pub fn input_to(mut self, step: &str, from: &str, to: &str, exclude: &[&str]) -> Self {
        self.inputs.push(DeployInput {
            step: step.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        });
        self
    }

    /// With environment variables.
    #[must_use]
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables
            .extend(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self
    }

    /// With a directory in front of the `PATH`.
    #[must_use]
    pub fn path(mut self, directory: &str) -> Self {
        self.paths.push(directory.to_owned());
        self
    }
}
