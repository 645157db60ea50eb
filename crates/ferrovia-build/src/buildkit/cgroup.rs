//! The control group that all builds share: one bound of memory, processor and processes for daemon and steps together.
//!
//! What is written where is a pure plan ([`Hierarchy::plan`]); three kinds of hosts differ only there:
//! version 1 (a tree per controller), version 2 (one tree), and version 2 under systemd, where the top group is a slice
//! whose bounds systemd is told, since it would reset what it did not set. Below the top there are `daemon` and, made by
//! the daemon itself, `SCOPE/buildkit/ID` for each step: a group with members may not have groups below it in version 2.
//!
//! A scope is whose steps they are: a service's id. It tells which steps must be gone when a build was cancelled, and,
//! since BuildKit counts the group among what a step depends on, no project ever gets another's cached step.

mod counters;
mod hierarchy;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferrovia_core::error::{Class, Report};
use rustix::process::{Pid, Signal, kill_process};

pub use self::counters::OomWatch;
pub use self::hierarchy::{GroupPlan, Hierarchy};
use crate::BuildError;

/// Bounds of all builds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildLimits {
    /// Memory, page cache included, in bytes.
    pub memory_bytes: u64,
    /// Processor time in thousandths of a core; none: whatever is idle.
    pub cpu_quota_millis: Option<u32>,
    /// Weight against everything else on the host, 1 to 10,000; an application has 100.
    pub cpu_weight: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// Least memory that builds work in: the daemon alone takes 60 MB.
pub const MIN_MEMORY_BYTES: u64 = 384 * 1024 * 1024;
/// Weight of builds against applications, which have 100.
const DEFAULT_CPU_WEIGHT: u32 = 50;
/// Processes and threads of all builds together.
const DEFAULT_PIDS: u32 = 4096;
/// How long the kernel may take to end what was killed, in milliseconds.
const KILL_TIMEOUT_MS: u64 = 10_000;
/// How long the kernel may take to let empty groups go, in milliseconds.
const REMOVE_TIMEOUT_MS: u64 = 2_000;
/// How often groups are looked at while they end, in milliseconds.
const POLL_MS: u64 = 20;

impl BuildLimits {
    /// The default on a host with this much memory: half of it.
    pub fn for_host(memory_bytes: u64) -> Self {
        Self {
            memory_bytes: (memory_bytes / 2).max(MIN_MEMORY_BYTES),
            cpu_quota_millis: None,
            cpu_weight: DEFAULT_CPU_WEIGHT,
            pids: DEFAULT_PIDS,
        }
    }
}

/// The control group, made.
#[derive(Debug, Clone)]
pub struct BuildGroup {
    hierarchy: Hierarchy,
    name: String,
}

impl BuildGroup {
    /// The group of this name (letters, digits and `-`) in a hierarchy; nothing is made yet.
    pub fn new(hierarchy: Hierarchy, name: impl Into<String>) -> Self {
        Self {
            hierarchy,
            name: name.into(),
        }
    }

    /// Makes the group and sets its bounds; safe to repeat, with other bounds too.
    pub async fn ensure(&self, limits: &BuildLimits) -> Result<GroupPlan, BuildError> {
        let plan = self.hierarchy.plan(&self.name, limits);
        for arguments in &plan.commands {
            let output = tokio::process::Command::new(&arguments[0])
                .args(&arguments[1..])
                .output()
                .await;
            match output {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    return Err(refused(
                        &arguments.join(" "),
                        &String::from_utf8_lossy(&output.stderr),
                    ));
                }
                Err(error) => return Err(refused(&arguments.join(" "), &error.to_string())),
            }
        }
        for directory in &plan.directories {
            std::fs::create_dir_all(directory)
                .map_err(|error| refused(&directory.to_string_lossy(), &error.to_string()))?;
        }
        for write in &plan.writes {
            // One write of the whole value: these are no ordinary files.
            let written = std::fs::OpenOptions::new()
                .write(true)
                .open(&write.path)
                .and_then(|mut file| io::Write::write_all(&mut file, write.value.as_bytes()));
            match written {
                Err(error) if write.required => {
                    return Err(refused(&write.path.to_string_lossy(), &error.to_string()));
                }
                _ => {}
            }
        }
        let set = read_number(&plan.memory_limit_file);
        if set.is_none_or(|bytes| bytes > limits.memory_bytes) {
            let why = "it does not hold the value that was written";
            return Err(refused(&plan.memory_limit_file.to_string_lossy(), why));
        }
        Ok(plan)
    }

    /// Whether a step of this scope has processes. A scope is a name below the group: `canary`, a service's id.
    pub fn is_busy(&self, scope: &str) -> bool {
        !members(&self.hierarchy.scope_directory(&self.name, scope)).is_empty()
    }

    /// Kills every process of this scope's steps, once.
    pub fn kill(&self, scope: &str) {
        for process in members(&self.hierarchy.scope_directory(&self.name, scope)) {
            // One that ended meanwhile is what is wanted.
            let _ = kill_process(process, Signal::KILL);
        }
    }

    /// Counts the processes that the kernel killed for memory from now on.
    pub fn oom_watch(&self) -> OomWatch {
        OomWatch::start(self.hierarchy.clone(), self.name.clone())
    }

    /// Ends every process in the group. What is in it is ours: nobody else enters it.
    ///
    /// # Errors
    /// When processes do not end.
    pub async fn empty(&self) -> Result<(), BuildError> {
        let tops = self.hierarchy.tops(&self.name);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
        loop {
            let mut left = false;
            for top in &tops {
                for process in members(top) {
                    left = true;
                    // A process that ended meanwhile is what is wanted.
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            if !left {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(refused(&self.name, "processes in it do not end"));
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }

    /// Ends every process in the group and takes the group away; one that is gone is success.
    ///
    /// # Errors
    /// When processes do not end, or the group stays.
    pub async fn remove(&self) -> Result<(), BuildError> {
        self.empty().await?;
        let deadline = tokio::time::Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS);
        let mut stays = None;
        for top in self.hierarchy.tops(&self.name) {
            // A group is busy for a moment after its last process ended.
            while let Err(error) = remove_tree(&top) {
                if tokio::time::Instant::now() > deadline {
                    stays = Some(refused(
                        &top.to_string_lossy(),
                        &format!("the group stays: {error}"),
                    ));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            }
        }
        stays.map_or(Ok(()), Err)
    }
}

/// Processes in a group and all below it.
fn members(directory: &Path) -> Vec<Pid> {
    let own = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let own = own
        .lines()
        .filter_map(|line| Pid::from_raw(line.trim().parse().ok()?));
    own.chain(subdirectories(directory).iter().flat_map(|below| members(below)))
        .collect()
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect()
}

/// Groups go from the bottom; one that is busy stays, and keeps those above it.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for below in subdirectories(directory) {
        // What is above says whether it matters.
        let _ = remove_tree(&below);
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number in a control file; `max` is the largest.
fn read_number(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn refused(what: &str, why: &str) -> BuildError {
    BuildError {
        report: Report::new(
            "build_limits_unavailable",
            format!("the limits of builds cannot be set (`{what}`: {})", why.trim()),
        )
        .with_hint("the host must have the memory, cpu and pids controllers of control groups, and Ferrovia root's rights"),
        class: Class::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_that_stays_is_told() {
        // Ordinary directories: one with a file in it stays as one that is busy does.
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
            systemd: false,
        };
        let group = BuildGroup::new(hierarchy, "builds");
        group.remove().await.unwrap();
        let below = root.path().join("builds/scope/buildkit");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("busy"), "").unwrap();
        let error = group.remove().await.unwrap_err();
        assert!(error.report.message.contains("the group stays"), "{error}");
        std::fs::remove_file(below.join("busy")).unwrap();
        group.remove().await.unwrap();
        assert!(!root.path().join("builds").exists());
    }
}
