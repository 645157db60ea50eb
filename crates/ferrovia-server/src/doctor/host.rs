//! The host: rights, tools, other firewalls, disk, kernel settings.

use std::path::{Path, PathBuf};

use ferrovia_api::system::Finding;
use ferrovia_build::bases::standing;
use ferrovia_build::buildkit::canary;
use ferrovia_build::platform::{bases_directory, daemon_directory};
use ferrovia_core::bases::Origin;

use super::{good, problem, warning};
use crate::config::{Config, EngineKind};

/// Free space below which builds and databases are about to fail, in bytes.
const LOW_DISK_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Free space below which nothing can be written safely, in bytes.
const NO_DISK_BYTES: u64 = 256 * 1024 * 1024;
/// Kernel settings without which the private network does not work, with the wanted value.
const SYSCTLS: [(&str, &str); 2] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
];

/// What `serve` cannot do without.
pub fn requirements(config: &Config) -> Vec<Finding> {
    if config.engine == EngineKind::Fake {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !rustix::process::geteuid().is_root() {
        findings.push(problem(
            "rights",
            "needs_root",
            "the Docker engine needs root: containers, addresses and the firewall are made",
            "Start it as root, or try the platform without containers: `ferroviad serve --engine fake`",
        ));
    }
    findings.push(match find_program("nft") {
        Some(path) => good("firewall", format!("`nft` is {}", path.display())),
        None => problem(
            "firewall",
            "nft_missing",
            "`nft` is not installed, and environments are closed to each other by it",
            "apt-get install nftables",
        ),
    });
    findings
}

/// What may hurt although everything starts.
pub fn surroundings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![disk(&config.paths.data)];
    if config.engine == EngineKind::Docker {
        findings.extend(sysctls());
        findings.extend(other_firewalls());
        findings.push(conntrack(find_program("conntrack").as_deref()));
        findings.push(buildkit(config.file.build.buildkit_dir.as_deref()));
        findings.push(bases(&config.paths.buildkit()));
        findings.extend(build_limits(&config.paths.buildkit()));
    }
    findings
}

fn disk(path: &Path) -> Finding {
    let free = match rustix::fs::statvfs(path) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return problem(
                "disk",
                "data_dir_missing",
                format!("`{}`: {error}", path.display()),
                "Start the platform once to make it",
            );
        }
    };
    let text = format!("{} MB are free at `{}`", free / 1_000_000, path.display());
    match free {
        ..NO_DISK_BYTES => problem(
            "disk",
            "disk_full",
            text,
            "Free some space: databases and logs are about to fail",
        ),
        NO_DISK_BYTES..LOW_DISK_BYTES => warning(
            "disk",
            "disk_low",
            text,
            "Free some space: builds are about to fail",
        ),
        _ => good("disk", text),
    }
}

fn sysctls() -> impl Iterator<Item = Finding> {
    SYSCTLS.into_iter().filter_map(|(name, wanted)| {
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(name));
        let dotted = name.replace('/', ".");
        match value.as_deref().map(str::trim) {
            Ok(value) if value == wanted => None,
            Ok(value) => Some(problem(
                "kernel",
                "kernel_setting",
                format!("`{dotted}` is {value}, not {wanted}: replicas do not reach each other"),
                format!("sysctl -w {dotted}={wanted}; something else on this host sets it back"),
            )),
            // The file appears with the first bridge.
            Err(_) => None,
        }
    })
}

fn other_firewalls() -> Vec<Finding> {
    let mut findings = Vec::new();
    if std::fs::read_to_string("/etc/ufw/ufw.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "ENABLED=yes"))
    {
        findings.push(warning(
            "firewall",
            "other_firewall",
            "ufw is active: it may drop what comes from replicas to the host's DNS",
            "ufw allow in on fv0; and again for every further bridge (`fv1`, `fvbuild`)",
        ));
    }
    if Path::new("/run/firewalld").exists() {
        findings.push(warning(
            "firewall",
            "other_firewall",
            "firewalld is active: it may drop what comes from replicas to the host's DNS",
            "firewall-cmd --permanent --zone=trusted --add-interface=fv0 --add-interface=fvbuild && firewall-cmd --reload",
        ));
    }
    findings
}

fn conntrack(program: Option<&Path>) -> Finding {
    match program {
        Some(path) => good(
            "private connections",
            format!("`conntrack` is {}", path.display()),
        ),
        None => warning(
            "private connections",
            "conntrack_missing",
            "`conntrack` is not installed: connections to replicas that are gone are not forgotten, and drains may take \
             their longest",
            "apt-get install conntrack",
        ),
    }
}

fn buildkit(dir: Option<&Path>) -> Finding {
    let in_dir = dir.map(|dir| dir.join("buildkitd")).filter(|path| path.exists());
    match in_dir.or_else(|| find_program("buildkitd")) {
        Some(path) => good("builds", format!("`buildkitd` is {}", path.display())),
        None => problem(
            "builds",
            "buildkit_missing",
            "`buildkitd` is not installed: nothing can be built from source",
            "`script/buildkit` of the source makes it; name its directory with `--buildkit-dir`",
        ),
    }
}

/// Which base images builds start from.
fn bases(data: &Path) -> Finding {
    let standing = standing(&bases_directory(data));
    let names: Vec<_> = standing
        .bases
        .iter()
        .filter(|base| !base.outdated)
        .map(|base| format!("`{}`", base.key))
        .collect();
    let here = match names.as_slice() {
        [] => "none is here yet".to_owned(),
        names => format!("here are {}", names.join(", ")),
    };
    good(
        "base images",
        match standing.origin {
            None => "the first build decides whether they come from a registry or are made here".to_owned(),
            Some(Origin::Official) => format!("official images, kept in the platform's registry: {here}"),
            Some(Origin::Made) => {
                format!("no image registry answers, so they are made from Debian packages: {here}")
            }
        },
    )
}

/// Whether the limits of builds held when BuildKit started last.
fn build_limits(data: &Path) -> Option<Finding> {
    let report = canary::last(&daemon_directory(data))?;
    Some(match report.trouble {
        None => good(
            "build limits",
            format!(
                "a step past {} MB was killed as it must be, at {:.0}",
                report.limit_bytes / 1_000_000,
                report.at
            ),
        ),
        Some(trouble) => problem(
            "build limits",
            "build_limits_not_enforced",
            format!("nothing is built: {trouble}"),
            "Give this host the memory controller of control groups; see `docs/error-codes/build_limits_not_enforced.md`",
        ),
    })
}

/// A program on the `PATH`.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_told_with_what_installs_it() {
        let missing = conntrack(None);
        assert_eq!(missing.code, "conntrack_missing");
        assert_eq!(missing.hint.as_deref(), Some("apt-get install conntrack"));
        assert_eq!(conntrack(Some(Path::new("/usr/sbin/conntrack"))).code, "ok");
    }
}
