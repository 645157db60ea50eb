//! Flags and commands.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use uuid::Uuid;

/// Push a directory, get a URL.
#[derive(Debug, Parser)]
#[command(
    name = "ferrovia",
    version,
    about,
    propagate_version = true,
    subcommand_required = true
)]
pub struct Args {
    /// Print JSON: one value, or one object a line for streams
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Which server and what on it.
#[derive(Clone, Default, ClapArgs)]
pub struct Global {
    /// URL of the server
    #[arg(long, global = true, env = "FERROVIA_URL", value_name = "URL")]
    pub url: Option<String>,
    /// API token; better given by environment or `ferrovia login`
    #[arg(
        long,
        global = true,
        env = "FERROVIA_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide = true
    )]
    pub token: Option<String>,
    /// Project
    #[arg(long, short, global = true, env = "FERROVIA_PROJECT", value_name = "NAME")]
    pub project: Option<String>,
    /// Environment
    #[arg(long, short, global = true, env = "FERROVIA_ENVIRONMENT", value_name = "NAME")]
    pub environment: Option<String>,
    /// Service
    #[arg(long, short, global = true, env = "FERROVIA_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
}

impl Global {
    /// The same, where an empty text (a variable that a pipeline leaves empty) says nothing.
    pub fn without_empty(self) -> Self {
        let Self {
            url,
            token,
            project,
            environment,
            service,
        } = self;
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            url: said(url),
            token: said(token),
            project: said(project),
            environment: said(environment),
            service: said(service),
        }
    }
}

impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Global")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a server with a token, read from stdin or asked for
    Login {
        /// URL of the server
        url: Option<String>,
    },
    /// Remember what this directory belongs to
    Link {
        /// Create the project, environment and service if they are new: settings and variables can then be set before
        /// the first deployment
        #[arg(long)]
        create: bool,
    },
    /// Who you are to the server
    Whoami,
    /// Upload a directory, build and deploy it
    Up(Up),
    /// Deploy an image
    Deploy(Deploy),
    /// What would be built from a directory, and why; needs no server
    Detect {
        /// The directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// What runs in the environment
    Status,
    /// What the application wrote
    Logs(Logs),
    /// Open the service's URL
    Open,
    /// Deploy the same build with the variables and settings of now
    Redeploy(Wait),
    /// New containers of the same deployment
    Restart,
    /// Stop the deployment that is under way
    Cancel,
    /// Set how many copies run
    Scale {
        /// Copies, 0 to 100
        replicas: u32,
    },
    /// Keep the platform's hands off the service
    Hold,
    /// End a hold
    Release,
    /// Stop every copy; nothing is deleted
    Down,
    /// List, set and unset variables
    Variables(Variables),
    /// List and delete services, see and change settings
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// List, create and delete projects
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
    },
    /// List, create and delete environments
    Environment {
        #[command(subcommand)]
        command: EnvironmentCommand,
    },
    /// List, create and revoke API tokens
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// What is wrong with this installation, in sentences
    Doctor,
}

#[derive(Debug, ClapArgs)]
pub struct Up {
    /// The directory
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// Port on which the application listens, or `none`
    #[arg(long, value_name = "N|none", value_parser = port)]
    pub port: Option<Port>,
    /// Create the project, environment and service if they are new
    #[arg(long)]
    pub create: bool,
    /// Build although an equal image exists
    #[arg(long)]
    pub rebuild: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, ClapArgs)]
pub struct Deploy {
    /// The image: `nginx:1.27`, `ghcr.io/owner/name@sha256:…`
    #[arg(long, value_name = "REF")]
    pub image: String,
    /// Port on which the application listens, or `none`
    #[arg(long, value_name = "N|none", value_parser = port)]
    pub port: Option<Port>,
    /// Create the project, environment and service if they are new
    #[arg(long)]
    pub create: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Wait {
    /// Do not wait for the end
    #[arg(long)]
    pub detach: bool,
    /// Print every line of the build, and not only a line for each step
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Logs {
    /// The build's log instead of the application's
    #[arg(long)]
    pub build: bool,
    /// Go on with lines to come
    #[arg(long, short)]
    pub follow: bool,
    /// Lines since then: `10m`, `2h`, `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only so many lines, the newest; without it 100, and with `--since` all since then
    #[arg(long, short = 'n', alias = "limit", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub lines: Option<u32>,
    /// Only lines with this text
    pub filter: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Variables {
    /// The environment's shared variables instead of the service's
    #[arg(long, global = true)]
    pub shared: bool,
    #[command(subcommand)]
    pub command: Option<VariablesCommand>,
}

#[derive(Debug, Subcommand)]
pub enum VariablesCommand {
    /// List them, as a `.env` file
    List,
    /// Set some; values are taken literally
    Set {
        /// `KEY=VALUE`
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
        /// Never show the values again, to anybody
        #[arg(long)]
        sealed: bool,
        /// Mark them as not secret: they may be build arguments
        #[arg(long, conflicts_with = "sealed")]
        public: bool,
    },
    /// Take some away
    Unset {
        /// Their names
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Set all of a `.env` or JSON file
    Import {
        /// The file, `-` for stdin
        file: PathBuf,
        /// Never show the values again, to anybody
        #[arg(long)]
        sealed: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List the project's services
    List,
    /// Show the settings of the service in the environment, or change some
    Settings {
        /// `health_path=/healthz`, `resources.memory_bytes=1073741824`; `KEY=null` is the default again
        #[arg(value_name = "KEY=VALUE")]
        changes: Vec<String>,
    },
    /// Delete a service in every environment
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// List projects
    List,
    /// Create a project with an environment `production`
    Create {
        /// Its name
        name: String,
    },
    /// Delete a project and everything in it
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum EnvironmentCommand {
    /// List the project's environments
    List,
    /// Create an empty environment
    Create {
        /// Its name
        name: String,
    },
    /// Delete an environment and everything in it
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List tokens
    List,
    /// Create a token; it is shown once
    Create {
        /// What you call it
        #[arg(long)]
        name: String,
        /// `owner`, or `deploy:PROJECT`
        #[arg(long, default_value = "owner")]
        scope: String,
    },
    /// Revoke a token at once
    Revoke {
        /// Its id
        id: Uuid,
    },
}

/// A port, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// This one.
    Number(u16),
    /// None: no URL, no probe.
    None,
}

fn port(text: &str) -> Result<Port, String> {
    match text {
        "none" => Ok(Port::None),
        _ => match text.parse() {
            Ok(0) | Err(_) => Err("give a port from 1 to 65535, or `none`".to_owned()),
            Ok(number) => Ok(Port::Number(number)),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_fit() {
        Args::command().debug_assert();
    }

    #[test]
    fn ports() {
        assert_eq!(port("none"), Ok(Port::None));
        assert_eq!(port("3000"), Ok(Port::Number(3000)));
        assert!(port("0").is_err() && port("65536").is_err());
    }
}
