//! What the firewall needs of the host beside rules: kernel settings, and the ports of our bridges.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A kernel setting under `/proc/sys`, and what is wrong without it.
struct Setting {
    name: &'static str,
    needed: Needed,
    effect: &'static str,
}

/// Which values will do.
#[derive(Debug, Clone, Copy)]
enum Needed {
    Exactly(u64),
    AtLeast(u64),
}

/// What the private network needs.
const SETTINGS: [Setting; 6] = [
    Setting {
        name: "net/ipv4/ip_forward",
        needed: Needed::Exactly(1),
        effect: "packets are not forwarded",
    },
    Setting {
        name: "net/bridge/bridge-nf-call-iptables",
        needed: Needed::Exactly(1),
        effect: "names of services lead nowhere",
    },
    Setting {
        name: "net/bridge/bridge-nf-call-ip6tables",
        needed: Needed::Exactly(1),
        effect: "IPv6 between replicas is closed by the bridge's rules only",
    },
    // The kernel keeps the neighbours of all replicas in one table, two or more for each, and with its own limits
    // (1,024 in all) the 500th replica is reached no more.
    Setting {
        name: "net/ipv4/neigh/default/gc_thresh3",
        needed: Needed::AtLeast(65_536),
        effect: "hundreds of replicas do not reach each other",
    },
    Setting {
        name: "net/ipv4/neigh/default/gc_thresh2",
        needed: Needed::AtLeast(32_768),
        effect: "hundreds of replicas reach each other slowly",
    },
    Setting {
        name: "net/ipv4/neigh/default/gc_thresh1",
        needed: Needed::AtLeast(16_384),
        effect: "hundreds of replicas reach each other slowly",
    },
];

impl Needed {
    fn holds(self, found: &str) -> bool {
        let found = found.trim().parse::<u64>();
        match self {
            Self::Exactly(value) => found == Ok(value),
            Self::AtLeast(least) => found.is_ok_and(|found| found >= least),
        }
    }

    const fn value(self) -> u64 {
        match self {
            Self::Exactly(value) | Self::AtLeast(value) => value,
        }
    }
}

/// The host's files, as the kernel shows them; tests give others.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/proc/sys`.
    pub settings: PathBuf,
    /// `/sys/class/net`.
    pub interfaces: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            settings: "/proc/sys".into(),
            interfaces: "/sys/class/net".into(),
        }
    }
}

impl Host {
    /// Sets what is set otherwise; sentences about what could not be set.
    pub fn ensure_settings(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for Setting { name, needed, effect } in SETTINGS {
            let path = self.settings.join(name);
            let wanted = needed.value().to_string();
            match std::fs::read_to_string(&path) {
                Ok(found) if needed.holds(&found) => continue,
                Ok(found) => tracing::info!("`{name}` is {}; it is set to {wanted}", found.trim()),
                Err(_) => {}
            }
            if let Err(error) = std::fs::write(&path, &wanted) {
                let name = name.replace('/', ".");
                troubles.push(format!(
                    "`{name}` cannot be set to {wanted} ({error}), so that {effect}; run `modprobe br_netfilter && sysctl -w {name}={wanted}`"
                ));
            }
        }
        troubles
    }

    /// Whether the host speaks IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.settings.join("net/ipv6").is_dir()
    }

    /// Whether an interface of this name is there.
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.join(name).is_dir()
    }

    /// The ports of these bridges. Each that is not among the `known` is put in hairpin mode, so that a replica reaches
    /// itself through its own service's address: the frame goes back out of the port it came in by.
    pub fn ports(&self, bridges: &[String], known: &BTreeSet<String>) -> BTreeSet<String> {
        let mut ports = BTreeSet::new();
        for bridge in bridges {
            let Ok(entries) = std::fs::read_dir(self.interfaces.join(bridge).join("brif")) else {
                continue;
            };
            for entry in entries.flatten() {
                // Names of interfaces have neither quotes nor white space, but the kernel does not say so.
                let name = entry.file_name().into_string().unwrap_or_default();
                if !known.contains(&name) {
                    ensure_hairpin(&entry.path());
                }
                if !name.is_empty()
                    && name
                        .chars()
                        .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '*'))
                {
                    ports.insert(name);
                }
            }
        }
        ports
    }
}

fn ensure_hairpin(port: &Path) {
    let mode = port.join("hairpin_mode");
    if std::fs::read_to_string(&mode).is_ok_and(|mode| mode.trim() == "0")
        && let Err(error) = std::fs::write(&mode, "1")
    {
        tracing::debug!(port = %port.display(), %error, "hairpin mode was not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_will_do_are_left_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            settings: directory.path().to_owned(),
            ..Host::default()
        };
        let path = |name: &str| directory.path().join(name);
        for Setting { name, .. } in SETTINGS {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "0\n").unwrap();
        }
        let generous = "net/ipv4/neigh/default/gc_thresh3";
        std::fs::write(path(generous), "1000000\n").unwrap();
        assert_eq!(host.ensure_settings(), Vec::<String>::new());
        for Setting { name, needed, .. } in SETTINGS {
            let found = std::fs::read_to_string(path(name)).unwrap();
            assert!(needed.holds(&found), "{name}: {found}");
        }
        assert_eq!(std::fs::read_to_string(path(generous)).unwrap(), "1000000\n");

        std::fs::remove_dir_all(path("net/bridge")).unwrap();
        let troubles = host.ensure_settings();
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[0].contains("modprobe br_netfilter"), "{troubles:?}");
    }
}
