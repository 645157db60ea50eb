//! Which control groups a host has, and what is written where: pure.

use std::path::{Path, PathBuf};

use super::BuildLimits;

/// Period of a processor quota, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// The control groups of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 1: a tree per controller.
    V1 {
        /// Where the memory controller is mounted.
        memory: PathBuf,
        /// Where the cpu controller is mounted.
        cpu: PathBuf,
        /// Where the pids controller is mounted.
        pids: PathBuf,
        /// The other trees, where runc makes groups of the same name.
        others: Vec<PathBuf>,
    },
    /// Version 2: one tree.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
        /// Whether systemd governs it.
        systemd: bool,
    },
}

/// What must be done to have the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupPlan {
    /// Commands that must succeed, first.
    pub commands: Vec<Vec<String>>,
    /// Directories that must exist.
    pub directories: Vec<PathBuf>,
    /// What is written then, in order.
    pub writes: Vec<Write>,
    /// Groups that the daemon and its clients enter.
    pub daemon: Vec<PathBuf>,
    /// What BuildKit is told as `defaultCgroupParent`.
    pub parent: String,
    /// The file that says the memory limit in force.
    pub memory_limit_file: PathBuf,
}

/// A value for a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The file.
    pub path: PathBuf,
    /// The value.
    pub value: String,
    /// Whether the group is unfit without it.
    pub required: bool,
}

fn required(path: PathBuf, value: impl ToString) -> Write {
    Write {
        path,
        value: value.to_string(),
        required: true,
    }
}

fn optional(path: PathBuf, value: impl ToString) -> Write {
    Write {
        path,
        value: value.to_string(),
        required: false,
    }
}

impl Hierarchy {
    /// This host's; `None` when the controllers are not there.
    pub fn of_host() -> Option<Self> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::detect(&mountinfo, Path::new("/run/systemd/system").is_dir())
    }

    /// Reads it from `/proc/self/mountinfo`; `None` when the controllers are not there.
    pub fn detect(mountinfo: &str, systemd: bool) -> Option<Self> {
        let mut unified = None;
        let mut trees: Vec<(PathBuf, &str)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else {
                continue;
            };
            let mount = head.split(' ').nth(4).unwrap_or_default().replace("\\040", " ");
            let mut fields = tail.splitn(3, ' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or(Some(PathBuf::from(mount))),
                (Some("cgroup"), Some(options)) => trees.push((mount.into(), options)),
                _ => {}
            }
        }
        let with = |controller: &str| {
            let found = trees
                .iter()
                .find(|(_, options)| options.split(',').any(|option| option == controller));
            found.map(|(mount, _)| mount.clone())
        };
        if let (Some(memory), Some(cpu), Some(pids)) = (with("memory"), with("cpu"), with("pids")) {
            let others = trees.iter().map(|(mount, _)| mount.clone()).chain(unified);
            let others = others
                .filter(|mount| ![&memory, &cpu, &pids].contains(&mount))
                .collect();
            return Some(Self::V1 {
                memory,
                cpu,
                pids,
                others,
            });
        }
        unified.map(|root| Self::V2 { root, systemd })
    }

    /// The top groups of this name, one a tree.
    pub(super) fn tops(&self, name: &str) -> Vec<PathBuf> {
        match self {
            Self::V1 {
                memory,
                cpu,
                pids,
                others,
            } => [memory, cpu, pids]
                .into_iter()
                .chain(others)
                .map(|tree| tree.join(name))
                .collect(),
            Self::V2 { .. } => vec![self.top(name)],
        }
    }

    /// The top group whose memory counts.
    pub(super) fn top(&self, name: &str) -> PathBuf {
        match self {
            Self::V1 { memory, .. } => memory.join(name),
            Self::V2 { root, systemd: false } => root.join(name),
            Self::V2 { root, systemd: true } => root.join(slice(name)),
        }
    }

    /// The group of a scope's steps.
    pub(super) fn scope_directory(&self, name: &str, scope: &str) -> PathBuf {
        match self {
            Self::V1 { .. } => self.top(name).join(scope),
            Self::V2 { .. } => self.top(name).join("steps").join(scope),
        }
    }

    /// What must be done to have a group of this name with these bounds.
    pub fn plan(&self, name: &str, limits: &BuildLimits) -> GroupPlan {
        match self {
            Self::V1 {
                memory, cpu, pids, ..
            } => plan_v1([memory, cpu, pids].map(|tree| tree.join(name)), name, limits),
            Self::V2 { root, systemd: false } => plan_v2(root, root.join(name), name, limits),
            Self::V2 { root, systemd: true } => plan_systemd(root, name, limits),
        }
    }
}

fn plan_v1([memory, cpu, pids]: [PathBuf; 3], name: &str, limits: &BuildLimits) -> GroupPlan {
    let quota = limits
        .cpu_quota_millis
        .map_or(-1, |millis| i64::from(millis) * 100);
    let daemon: Vec<PathBuf> = [&memory, &cpu, &pids]
        .iter()
        .map(|tree| tree.join("daemon"))
        .collect();
    GroupPlan {
        commands: Vec::new(),
        directories: daemon.clone(),
        writes: vec![
            // The sum with swap is never below the limit without: it makes way first. Kernels without swap accounting
            // lack the file.
            optional(memory.join("memory.memsw.limit_in_bytes"), -1),
            required(memory.join("memory.limit_in_bytes"), limits.memory_bytes),
            optional(memory.join("memory.memsw.limit_in_bytes"), limits.memory_bytes),
            required(cpu.join("cpu.shares"), limits.cpu_weight * 1024 / 100),
            optional(cpu.join("cpu.cfs_period_us"), CPU_PERIOD_US),
            optional(cpu.join("cpu.cfs_quota_us"), quota),
            required(pids.join("pids.max"), limits.pids),
        ],
        daemon,
        parent: name.to_owned(),
        memory_limit_file: memory.join("memory.limit_in_bytes"),
    }
}

/// The value of `cpu.max`.
fn cpu_max(limits: &BuildLimits) -> String {
    match limits.cpu_quota_millis {
        Some(millis) => format!("{} {CPU_PERIOD_US}", u64::from(millis) * 100),
        None => format!("max {CPU_PERIOD_US}"),
    }
}

const CONTROLLERS: &str = "+cpu +memory +pids";

fn plan_v2(root: &Path, top: PathBuf, name: &str, limits: &BuildLimits) -> GroupPlan {
    GroupPlan {
        commands: Vec::new(),
        directories: vec![top.join("daemon"), top.join("steps")],
        writes: vec![
            // Refused where something else governs the root; the next one then tells whether it matters.
            optional(root.join("cgroup.subtree_control"), CONTROLLERS),
            required(top.join("memory.max"), limits.memory_bytes),
            optional(top.join("memory.swap.max"), 0),
            required(top.join("cpu.weight"), limits.cpu_weight),
            required(top.join("cpu.max"), cpu_max(limits)),
            required(top.join("pids.max"), limits.pids),
            required(top.join("cgroup.subtree_control"), CONTROLLERS),
            required(top.join("steps/cgroup.subtree_control"), CONTROLLERS),
        ],
        daemon: vec![top.join("daemon")],
        parent: format!("{name}/steps"),
        memory_limit_file: top.join("memory.max"),
    }
}

/// The slice's name: without `-`, which would nest it in systemd's tree.
fn slice(name: &str) -> String {
    format!("{}.slice", name.replace('-', "_"))
}

fn plan_systemd(root: &Path, name: &str, limits: &BuildLimits) -> GroupPlan {
    let unit = slice(name);
    let top = root.join(&unit);
    let quota = limits
        .cpu_quota_millis
        .map_or_else(String::new, |millis| format!("{}%", millis.div_ceil(10)));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    GroupPlan {
        commands: vec![
            words(&["systemctl", "start", &unit]),
            words(&[
                "systemctl",
                "set-property",
                "--runtime",
                &unit,
                &format!("MemoryMax={}", limits.memory_bytes),
                "MemorySwapMax=0",
                &format!("CPUWeight={}", limits.cpu_weight),
                &format!("CPUQuota={quota}"),
                &format!("TasksMax={}", limits.pids),
            ]),
        ],
        directories: vec![top.join("daemon"), top.join("steps")],
        writes: vec![
            required(top.join("cgroup.subtree_control"), CONTROLLERS),
            required(top.join("steps/cgroup.subtree_control"), CONTROLLERS),
        ],
        daemon: vec![top.join("daemon")],
        parent: format!("{unit}/steps"),
        memory_limit_file: top.join("memory.max"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 29 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw,nsdelegate
33 30 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
34 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
35 30 0:32 / /sys/fs/cgroup/pids rw shared:11 - cgroup cgroup rw,pids
36 30 0:33 / /sys/fs/cgroup/devices rw shared:11 - cgroup cgroup rw,devices
";
    const V2: &str = "\
24 1 8:1 / / rw - ext4 /dev/sda1 rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    const LIMITS: BuildLimits = BuildLimits {
        memory_bytes: 1 << 30,
        cpu_quota_millis: Some(1500),
        cpu_weight: 50,
        pids: 2048,
    };

    fn value<'a>(plan: &'a GroupPlan, end: &str) -> Option<&'a str> {
        let mut found = plan.writes.iter().rev().filter(|write| write.path.ends_with(end));
        found.next().map(|write| write.value.as_str())
    }

    #[test]
    fn version_1_is_known_by_its_controllers() {
        let hierarchy = Hierarchy::detect(V1, true).unwrap();
        let plan = hierarchy.plan("ferrovia-builds", &LIMITS);
        assert_eq!(plan.commands, Vec::<Vec<String>>::new());
        assert_eq!(
            value(&plan, "memory/ferrovia-builds/memory.limit_in_bytes"),
            Some("1073741824")
        );
        assert_eq!(value(&plan, "memory.memsw.limit_in_bytes"), Some("1073741824"));
        assert_eq!(
            value(&plan, "cpu,cpuacct/ferrovia-builds/cpu.cfs_quota_us"),
            Some("150000")
        );
        assert_eq!(value(&plan, "cpu.shares"), Some("512"));
        assert_eq!(plan.parent, "ferrovia-builds");
        let tops = hierarchy.tops("ferrovia-builds");
        assert!(tops.contains(&"/sys/fs/cgroup/devices/ferrovia-builds".into()));
        assert!(tops.contains(&"/sys/fs/cgroup/unified/ferrovia-builds".into()));
    }

    #[test]
    fn version_2_keeps_processes_out_of_groups_that_have_groups() {
        let hierarchy = Hierarchy::detect(V2, false).unwrap();
        let plan = hierarchy.plan("ferrovia-builds", &LIMITS);
        assert_eq!(value(&plan, "ferrovia-builds/cpu.max"), Some("150000 100000"));
        assert_eq!(value(&plan, "ferrovia-builds/memory.max"), Some("1073741824"));
        assert_eq!(
            value(&plan, "ferrovia-builds/cgroup.subtree_control"),
            Some("+cpu +memory +pids")
        );
        assert_eq!(
            plan.daemon,
            [PathBuf::from("/sys/fs/cgroup/ferrovia-builds/daemon")]
        );
        assert_eq!(plan.parent, "ferrovia-builds/steps");
        let unlimited = BuildLimits {
            cpu_quota_millis: None,
            ..LIMITS
        };
        assert_eq!(
            value(&hierarchy.plan("b", &unlimited), "cpu.max"),
            Some("max 100000")
        );
    }

    #[test]
    fn under_systemd_it_is_a_slice_that_systemd_is_told_about() {
        let hierarchy = Hierarchy::detect(V2, true).unwrap();
        let plan = hierarchy.plan("ferrovia-builds", &LIMITS);
        let set = &plan.commands[1];
        assert_eq!(set[3], "ferrovia_builds.slice");
        assert!(set.contains(&"MemoryMax=1073741824".into()) && set.contains(&"CPUQuota=150%".into()));
        assert_eq!(plan.parent, "ferrovia_builds.slice/steps");
        assert!(
            plan.writes
                .iter()
                .all(|write| !write.path.ends_with("memory.max"))
        );
    }

    #[test]
    fn without_controllers_there_is_nothing() {
        assert_eq!(
            Hierarchy::detect("24 1 8:1 / / rw - ext4 /dev/sda1 rw\n", false),
            None
        );
    }
}
