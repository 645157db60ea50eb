//! Counting the processes that the kernel killed for memory.
//!
//! Version 2 counts them where they are asked for. Version 1 counts them in the group of the one that died, which goes
//! with its step: so these groups are read often enough while something is built. What dies with its step between two
//! looks is known by its exit code, see [`super::super::failure`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Hierarchy, read_number, subdirectories};

/// Time between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 200;

/// Counts while it lives.
#[derive(Debug)]
pub struct OomWatch {
    killed: Arc<AtomicU64>,
    hierarchy: Hierarchy,
    name: String,
    task: tokio::task::JoinHandle<()>,
}

impl OomWatch {
    pub(super) fn start(hierarchy: Hierarchy, name: String) -> Self {
        let killed = Arc::new(AtomicU64::new(0));
        let (seen, trees, group) = (Arc::clone(&killed), hierarchy.clone(), name.clone());
        let task = tokio::spawn(async move {
            let mut counts = Counts::begin(&trees, &group);
            loop {
                tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
                seen.store(counts.look(&trees, &group), Ordering::Relaxed);
            }
        });
        Self {
            killed,
            hierarchy,
            name,
            task,
        }
    }

    /// How many were killed since the beginning, as far as was seen.
    pub fn killed(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }

    /// Whether the limit was ever reached: needed for a kill, and common without one, since files are counted too.
    pub fn reached_limit(&self) -> bool {
        reached_limit(&self.hierarchy, &self.name)
    }
}

impl Drop for OomWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the group as a whole was at its limit since it was made. Kernels count failures to get memory in version 1
/// or do not; the largest use is there in all of them, and ends some pages below the limit.
fn reached_limit(hierarchy: &Hierarchy, name: &str) -> bool {
    let top = hierarchy.top(name);
    match hierarchy {
        Hierarchy::V1 { .. } => {
            let used = read_number(&top.join("memory.max_usage_in_bytes")).unwrap_or(0);
            let limit = read_number(&top.join("memory.limit_in_bytes")).unwrap_or(u64::MAX);
            used >= limit - limit / 50
        }
        Hierarchy::V2 { .. } => counter(&top.join("memory.events"), "max ") > 0,
    }
}

/// `NAME VALUE` in a file of such lines.
fn counter(path: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0)
}

#[derive(Default)]
struct Counts {
    before: u64,
    groups: HashMap<std::path::PathBuf, u64>,
}

impl Counts {
    fn begin(hierarchy: &Hierarchy, name: &str) -> Self {
        let mut counts = Self::default();
        counts.before = counts.look(hierarchy, name);
        counts
    }

    /// Kills since the beginning. Groups that are gone keep what was last seen of them.
    fn look(&mut self, hierarchy: &Hierarchy, name: &str) -> u64 {
        let top = hierarchy.top(name);
        match hierarchy {
            Hierarchy::V2 { .. } => {
                let killed = counter(&top.join("memory.events"), "oom_kill ");
                self.groups.insert(top, killed);
            }
            Hierarchy::V1 { .. } => self.look_below(&top),
        }
        self.groups.values().sum::<u64>().saturating_sub(self.before)
    }

    fn look_below(&mut self, directory: &Path) {
        let killed = counter(&directory.join("memory.oom_control"), "oom_kill ");
        if killed > 0 {
            self.groups.insert(directory.to_owned(), killed);
        }
        for below in subdirectories(directory) {
            self.look_below(&below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_remembers_groups_that_are_gone() {
        let tree = tempfile::tempdir().unwrap();
        let step = tree.path().join("b/buildkit/step");
        std::fs::create_dir_all(&step).unwrap();
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        std::fs::write(step.join("memory.oom_control"), control).unwrap();
        let hierarchy = Hierarchy::V1 {
            memory: tree.path().into(),
            cpu: "/nowhere".into(),
            pids: "/nowhere".into(),
            others: vec![],
        };
        let mut counts = Counts::begin(&hierarchy, "b");
        assert_eq!(counts.look(&hierarchy, "b"), 0);
        let other = tree.path().join("b/buildkit/other");
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("memory.oom_control"), "oom_kill 1\n").unwrap();
        assert_eq!(counts.look(&hierarchy, "b"), 1);
        std::fs::remove_dir_all(&other).unwrap();
        assert_eq!(counts.look(&hierarchy, "b"), 1);
    }

    #[test]
    fn version_2_counts_at_the_top() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("b")).unwrap();
        let events = tree.path().join("b/memory.events");
        std::fs::write(
            &events,
            "low 0\nhigh 0\nmax 7\noom 3\noom_kill 3\noom_group_kill 0\n",
        )
        .unwrap();
        let hierarchy = Hierarchy::V2 {
            root: tree.path().into(),
            systemd: false,
        };
        let mut counts = Counts::begin(&hierarchy, "b");
        assert!(reached_limit(&hierarchy, "b"));
        std::fs::write(&events, "max 9\noom_kill 5\n").unwrap();
        assert_eq!(counts.look(&hierarchy, "b"), 2);
    }
}
