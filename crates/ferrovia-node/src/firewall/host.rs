//! What the firewall needs of the host beside rules: kernel settings, and the ports of our bridges.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Kernel settings under `/proc/sys` and the value that the private network needs.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("net/ipv4/ip_forward", "1", "packets are not forwarded"),
    (
        "net/bridge/bridge-nf-call-iptables",
        "1",
        "names of services lead nowhere",
    ),
    (
        "net/bridge/bridge-nf-call-ip6tables",
        "1",
        "IPv6 between replicas is closed by the bridge's rules only",
    ),
];

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
        for (name, wanted, effect) in SETTINGS {
            let path = self.settings.join(name);
            match std::fs::read_to_string(&path) {
                Ok(found) if found.trim() == wanted => continue,
                Ok(found) => tracing::info!("`{name}` is {}; it is set to {wanted}", found.trim()),
                Err(_) => {}
            }
            if let Err(error) = std::fs::write(&path, wanted) {
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

    /// The ports of these bridges. Each is put in hairpin mode, so that a replica reaches itself through its own
    /// service's address: the frame goes back out of the port it came in by.
    pub fn ports(&self, bridges: &[String]) -> BTreeSet<String> {
        let mut ports = BTreeSet::new();
        for bridge in bridges {
            let Ok(entries) = std::fs::read_dir(self.interfaces.join(bridge).join("brif")) else {
                continue;
            };
            for entry in entries.flatten() {
                ensure_hairpin(&entry.path());
                // Names of interfaces have neither quotes nor white space, but the kernel does not say so.
                let name = entry.file_name().into_string().unwrap_or_default();
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
