//! The processes of the platform: who lives, who is started, who is adopted.

pub mod build_id;
pub mod child;
pub mod draining;
pub mod executable;
pub mod lock;
pub mod log;
pub mod open_files;
pub mod spawn;
pub mod spawned;
pub mod supervisor;
pub mod user;
pub mod watch;

use std::fmt;
use std::path::PathBuf;

use crate::config::Paths;

/// A process that `serve` keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// The fake engine, when it is the engine.
    FakeEngine,
    /// The agent on the host.
    Node,
    /// Public traffic.
    Edge,
    /// API, reconcilers, builds.
    Control,
}

impl Unit {
    /// Its subcommand, and the name of its lock and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FakeEngine => "fake-engine",
            Self::Node => "node",
            Self::Edge => "edge",
            Self::Control => "control",
        }
    }
}

impl Unit {
    /// The directory of its lock: the edge's user may write only in its own.
    pub fn lock_directory(self, paths: &Paths) -> PathBuf {
        match self {
            Self::Edge => paths.edge_run(),
            Self::FakeEngine | Self::Node | Self::Control => paths.run.clone(),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
