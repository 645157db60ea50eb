//! The kinds of work and their classes: what use cases and reconcilers enqueue.

use ferrovia_core::id::{BuildId, InstanceId, TeamId};
use ferrovia_store::queue::Work;

/// Kind: a build.
pub const BUILD: &str = "build";
/// Kind: the cut-over of an instance.
pub const INSTANCE: &str = "instance";
/// Kind: the comparison of the engine with the rows.
pub const RESYNC: &str = "resync";
/// Kind: clean-up.
pub const CLEANUP: &str = "cleanup";

/// Class of what is short and must be quick.
pub const CONTROL_CLASS: &str = "control";
/// Class of builds: as many at once as the machine can bear.
pub const BUILD_CLASS: &str = "build";
/// Class of what can wait.
pub const CLEANUP_CLASS: &str = "cleanup";

/// A build is due.
pub fn build(id: BuildId, team: TeamId) -> Work {
    Work::new(BUILD, id, BUILD_CLASS).team(team)
}

/// An instance is due.
pub fn instance(id: InstanceId, team: TeamId) -> Work {
    Work::new(INSTANCE, id, CONTROL_CLASS).team(team)
}
