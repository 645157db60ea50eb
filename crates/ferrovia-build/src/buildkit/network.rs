//! The network of builds: one bridge on the host, and behind it a network namespace with everything that builds.
//!
//! ```text
//! host:       fvbuild (bridge, .1, the gateway) ── fvbuild-up
//! namespace:                                       uplink ── builds (bridge, .2) ── steps (.16 …)
//! ```
//!
//! The daemon and its clients run in the namespace too, not only the steps: `ADD http://169.254.169.254/…`, `FROM
//! 127.0.0.1:5000/…`, git sources and the token services that a registry names make *them* connect, as root, wherever a
//! Dockerfile says. In here all of it passes `fvbuild`, where `node`'s firewall lets out what may go out. What the host
//! has on loopback is out of reach; the platform's registry is given in by a listener that is made inside ([`listen`]).
//!
//! Steps of different projects share the bridge `builds`: a static table in the namespace lets each talk to the uplink
//! only. It is a table that `node` does not own, since it is no part of the host. Deleting the namespace takes
//! everything in it away, whatever state a killed daemon left.
//!
//! On the host, [`BuildNetwork::ensure_bridge`] makes what CNI's `bridge` and `firewall` plugins would make there: the
//! way out (source translation, and acceptance where Docker's policy for forwarding is to drop). It only opens; what
//! is closed, `node` closes, in tables that are asked first.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ferrovia_core::error::{Class, Report};
use ferrovia_core::network::AddressPlan;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::BuildError;

/// The bridge inside the namespace.
pub const INNER_BRIDGE: &str = "builds";
/// The end of the wire to the host, inside the namespace.
const UPLINK: &str = "uplink";
/// How long one command may take, in milliseconds.
const COMMAND_TIMEOUT_MS: u64 = 10_000;
/// Addresses at the beginning of the range that no step gets.
const RESERVED_ADDRESSES: u32 = 16;
/// What links carry when the host's own is not known, in bytes.
const DEFAULT_MTU_BYTES: u32 = 1500;

/// The network of builds.
#[derive(Debug, Clone)]
pub struct BuildNetwork {
    interface: String,
    addresses: ipnet::Ipv4Net,
    mtu_bytes: u32,
}

impl BuildNetwork {
    /// As the address plan says.
    pub fn new(plan: &AddressPlan) -> Self {
        Self {
            interface: plan.build_interface(),
            addresses: plan.builds,
            mtu_bytes: host_mtu().unwrap_or(DEFAULT_MTU_BYTES),
        }
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.addresses.network()) + offset)
    }

    /// The host's address on the bridge, where `node` answers names.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The file that stands for the namespace.
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.interface)
    }

    /// The CNI configuration of steps; leases lie in `lease_directory`.
    pub fn conflist(&self, lease_directory: &Path) -> serde_json::Value {
        let last = u32::from(self.addresses.broadcast()) - u32::from(self.addresses.network()) - 1;
        serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "ferrovia-builds",
            "plugins": [{
                "type": "bridge",
                "bridge": INNER_BRIDGE,
                "isGateway": false,
                "ipMasq": false,
                "mtu": self.mtu_bytes,
                "ipam": {
                    "type": "host-local",
                    "dataDir": lease_directory,
                    "ranges": [[{
                        "subnet": self.addresses,
                        "rangeStart": self.address(RESERVED_ADDRESSES),
                        "rangeEnd": self.address(last),
                        "gateway": self.gateway(),
                    }]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        })
    }

    /// The rules inside the namespace: a step reaches the gateway and what is behind it, no other step, and not the daemon.
    fn rules(&self) -> String {
        let (range, gateway) = (self.addresses, self.gateway());
        format!(
            "table bridge ferrovia_builds\ndelete table bridge ferrovia_builds\n\
             table bridge ferrovia_builds {{\n\
             chain forward {{\ntype filter hook forward priority 0; policy drop;\n\
             iifname \"{UPLINK}\" accept\n\
             oifname != \"{UPLINK}\" drop\n\
             ip daddr {range} ip daddr != {gateway} drop\n\
             accept\n}}\n\
             chain input {{\ntype filter hook input priority 0; policy accept;\n\
             iifname != \"{UPLINK}\" drop\n}}\n}}\n"
        )
    }

    /// The host's end: the bridge with the gateway's address. Safe to repeat; never taken away by a build, since
    /// `node` answers and guards there.
    pub async fn ensure_bridge(&self) -> Result<(), BuildError> {
        let name = &self.interface;
        if !interface_exists(name) {
            let made = ip(&["link", "add", name, "type", "bridge"]).await;
            // Another one made it in between.
            if !interface_exists(name) {
                made?;
            }
        }
        let address = format!("{}/{}", self.gateway(), self.addresses.prefix_len());
        ip(&["address", "replace", &address, "dev", name]).await?;
        ip(&["link", "set", name, "up"]).await?;
        self.open_way_out().await
    }

    /// Translates the sources of what leaves, and accepts it in the chain whose policy Docker sets to drop.
    async fn open_way_out(&self) -> Result<(), BuildError> {
        let (table, name, range) = (self.nat_table(), &self.interface, self.addresses);
        let rules = format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\nchain out {{\n\
             type nat hook postrouting priority 100; policy accept;\n\
             ip saddr {range} oifname != \"{name}\" masquerade\n}}\n}}\n"
        );
        run("nft", &["-f", "-"], rules.as_bytes()).await?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| refused("ip_forward", &error.to_string()))?;
        for rule in self.accepted() {
            let words: Vec<&str> = rule.iter().map(String::as_str).collect();
            let there = run("iptables", &[&["-w", "-C", "FORWARD"], &words[..]].concat(), b"").await;
            if there.is_err() {
                run("iptables", &[&["-w", "-I", "FORWARD"], &words[..]].concat(), b"").await?;
            }
        }
        Ok(())
    }

    /// What fails keeps nothing else open.
    async fn close_way_out(&self) -> Result<(), BuildError> {
        let table = self.nat_table();
        let rules = format!("table ip {table}\ndelete table ip {table}\n");
        let closed = run("nft", &["-f", "-"], rules.as_bytes()).await;
        for rule in self.accepted() {
            let words: Vec<&str> = rule.iter().map(String::as_str).collect();
            // One that is not there is what is wanted.
            let _ = run("iptables", &[&["-w", "-D", "FORWARD"], &words[..]].concat(), b"").await;
        }
        closed
    }

    /// Rules of `iptables`, which Docker brings along.
    fn accepted(&self) -> [Vec<String>; 2] {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let name = &self.interface;
        [
            words(&format!("-i {name} -m comment --comment {name} -j ACCEPT")),
            words(&format!(
                "-o {name} -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment {name} -j ACCEPT"
            )),
        ]
    }

    fn nat_table(&self) -> String {
        format!("ferrovia_out_{}", self.interface)
    }

    /// The namespace, new: whatever was in an old one ends.
    pub async fn renew(&self) -> Result<(), BuildError> {
        self.ensure_bridge().await?;
        self.remove_namespace().await?;
        let (name, outer) = (self.interface.as_str(), self.outer());
        let mtu = self.mtu_bytes.to_string();
        let own = format!("{}/{}", self.address(2), self.addresses.prefix_len());
        let gateway = self.gateway().to_string();
        ip(&["netns", "add", name]).await?;
        ip(&[
            "link", "add", &outer, "mtu", &mtu, "type", "veth", "peer", "name", UPLINK, "mtu", &mtu, "netns",
            name,
        ])
        .await?;
        ip(&["link", "set", &outer, "master", name, "up"]).await?;
        for inside in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", INNER_BRIDGE, "mtu", &mtu, "type", "bridge"],
            &["link", "set", UPLINK, "master", INNER_BRIDGE, "up"],
            &["address", "add", &own, "dev", INNER_BRIDGE],
            &["link", "set", INNER_BRIDGE, "up"],
            &["route", "add", "default", "via", &gateway],
        ] {
            ip(&[&["-n", name], inside].concat()).await?;
        }
        let net = format!("--net={}", self.namespace().display());
        run("nsenter", &[&net, "nft", "-f", "-"], self.rules().as_bytes()).await
    }

    /// Takes the namespace and everything in it away; one that is gone is success.
    pub async fn remove_namespace(&self) -> Result<(), BuildError> {
        let deleted = match self.namespace().exists() {
            true => ip(&["netns", "delete", &self.interface]).await,
            false => Ok(()),
        };
        // A namespace that something still holds keeps its end of the wire.
        if interface_exists(&self.outer()) {
            let removed = ip(&["link", "delete", &self.outer()]).await;
            if interface_exists(&self.outer()) {
                return deleted.and(removed);
            }
        }
        deleted
    }

    /// Takes the host's end away too: when the platform goes. What fails does not keep the rest.
    ///
    /// # Errors
    /// Everything that failed.
    pub async fn remove(&self) -> Result<(), Vec<BuildError>> {
        let mut failures = Vec::new();
        failures.extend(self.remove_namespace().await.err());
        failures.extend(self.close_way_out().await.err());
        if interface_exists(&self.interface) {
            failures.extend(ip(&["link", "delete", &self.interface]).await.err());
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    fn outer(&self) -> String {
        format!("{}-up", self.interface)
    }
}

/// A listener inside a network namespace, for a process that is outside of it.
pub fn listen(namespace: &Path, address: SocketAddr) -> std::io::Result<TcpListener> {
    let namespace = std::fs::File::open(namespace)?;
    // A thread of its own enters the namespace and ends: no other thread ever runs in there.
    let thread = std::thread::Builder::new()
        .name("build-net".into())
        .spawn(move || {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )?;
            TcpListener::bind(address)
        })?;
    let listener = thread
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread that listens ended")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn interface_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// The smallest of the links that lead outside.
fn host_mtu() -> Option<u32> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let defaults = routes.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then_some(interface)
    });
    defaults
        .filter_map(|name| {
            let text = std::fs::read_to_string(Path::new("/sys/class/net").join(name).join("mtu"));
            text.ok()?.trim().parse().ok()
        })
        .min()
}

async fn ip(arguments: &[&str]) -> Result<(), BuildError> {
    run("ip", arguments, b"").await
}

async fn run(program: &str, arguments: &[&str], input: &[u8]) -> Result<(), BuildError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let done = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).await?;
        }
        child.wait_with_output().await
    };
    let why = match tokio::time::timeout(Duration::from_millis(COMMAND_TIMEOUT_MS), done).await {
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it did not end in {COMMAND_TIMEOUT_MS} ms"),
    };
    Err(refused(&format!("{program} {}", arguments.join(" ")), &why))
}

fn refused(what: &str, why: &str) -> BuildError {
    BuildError {
        report: Report::new(
            "build_network_unavailable",
            format!("the network of builds cannot be made (`{what}`: {why})"),
        )
        .with_hint("Ferrovia needs root's rights, `iproute2`, `iptables` and `nftables`, and a kernel with bridges and namespaces"),
        class: Class::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_get_addresses_that_nothing_else_has() {
        let network = BuildNetwork {
            mtu_bytes: 1450,
            ..BuildNetwork::new(&AddressPlan::default())
        };
        let conflist = network.conflist(Path::new("/run/x"));
        let plugin = &conflist["plugins"][0];
        let range = &plugin["ipam"]["ranges"][0][0];
        assert_eq!(range["gateway"], "10.212.0.1");
        assert_eq!(range["rangeStart"], "10.212.0.16");
        assert_eq!(range["rangeEnd"], "10.212.0.254");
        assert_eq!(plugin["mtu"], 1450);
        assert_eq!(plugin["ipMasq"], false);
        assert!(
            network
                .rules()
                .contains("ip daddr 10.212.0.0/24 ip daddr != 10.212.0.1 drop")
        );
    }
}
