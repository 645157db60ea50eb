//! The ruleset as text for `nft -f -`: whole, or the change from one state to another.
//!
//! Text and not JSON: it is what people read in `nft list ruleset`, its errors name a line, and nothing in it is
//! free text (addresses, numbers, and interface names that were checked). Each text is one transaction of the kernel.
//!
//! The order of decisions. In the `bridge` family: a frame from one of our ports must have a hardware address that
//! owns its IP (or ARP) address; between two ports both ends must be in one environment. In the `ip` family, by the
//! bridge's name, which is there from the first packet on: the same two decisions again (bridged packets pass there
//! too, and a port that is new is covered), then names of services, the host, the outside. Every check is made for
//! every packet: an established connection gives no right, since an address may have got another owner since.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use ferrovia_core::table::hardware_address;
use ipnet::Ipv4Net;

use super::fixed::{BridgeMatch, Fixed};
use super::wanted::Wanted;

/// Elements in one command, so that no line grows without bound.
const CHUNK: usize = 500;

/// The whole ruleset; it replaces what is loaded in one transaction.
pub fn whole(fixed: &Fixed, wanted: &Wanted) -> String {
    let mut out = String::new();
    remove(fixed, &mut out);
    bridge_table(fixed, &mut out);
    ip_table(fixed, &mut out);
    if fixed.ipv6 {
        ip6_table(fixed, &mut out);
    }
    out.push_str(&change(fixed, &Wanted::default(), wanted).unwrap_or_default());
    out
}

/// Takes everything of ours away, whether it is there or not.
pub fn remove(fixed: &Fixed, out: &mut String) {
    let table = &fixed.table;
    for family in families(fixed) {
        let _ = writeln!(out, "table {family} {table}\ndelete table {family} {table}");
    }
}

/// The families that have a table of ours.
pub fn families(fixed: &Fixed) -> impl Iterator<Item = &'static str> {
    ["bridge", "ip"].into_iter().chain(fixed.ipv6.then_some("ip6"))
}

/// The transaction from what is loaded to what is wanted; `None` when they are the same.
pub fn change(fixed: &Fixed, loaded: &Wanted, wanted: &Wanted) -> Option<String> {
    let table = &fixed.table;
    let mut gone = Elements::default();
    let mut new = Elements::default();
    for (address, mark) in &loaded.members {
        if wanted.members.get(address) != Some(mark) {
            gone.member(*address, *mark);
        }
    }
    for (address, mark) in &wanted.members {
        if loaded.members.get(address) != Some(mark) {
            new.member(*address, *mark);
        }
    }
    for port in loaded.ports.difference(&wanted.ports) {
        gone.port(port);
    }
    for port in wanted.ports.difference(&loaded.ports) {
        new.port(port);
    }
    let mut chains_gone = String::new();
    for service in loaded
        .services
        .keys()
        .filter(|service| !wanted.services.contains_key(service))
    {
        gone.service(*service);
        let _ = writeln!(
            chains_gone,
            "flush chain ip {table} {chain}\ndelete chain ip {table} {chain}",
            chain = chain_of(*service)
        );
    }
    let mut chains = String::new();
    for (service, backends) in &wanted.services {
        let before = loaded.services.get(service);
        if before == Some(backends) {
            continue;
        }
        let chain = chain_of(*service);
        if before.is_some() {
            let _ = writeln!(chains, "flush chain ip {table} {chain}");
        } else {
            let _ = writeln!(chains, "add chain ip {table} {chain}");
            new.service(*service);
        }
        let _ = writeln!(chains, "add rule ip {table} {chain} {}", spread(backends));
    }
    let mut out = String::new();
    gone.write("delete", table, &mut out);
    out.push_str(&chains_gone);
    out.push_str(&chains);
    new.write("add", table, &mut out);
    (!out.is_empty()).then_some(out)
}

/// The chain of a service.
pub fn chain_of(service: Ipv4Addr) -> String {
    let [a, b, c, d] = service.octets();
    format!("service_{a}_{b}_{c}_{d}")
}

/// New connections go to any of the backends, with equal chance.
fn spread(backends: &[Ipv4Addr]) -> String {
    match backends {
        [only] => format!("dnat to {only}"),
        many => {
            let places: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(place, backend)| format!("{place} : {backend}"))
                .collect();
            format!(
                "dnat to numgen random mod {} map {{ {} }}",
                many.len(),
                places.join(", ")
            )
        }
    }
}

/// Elements by family and set.
#[derive(Default)]
struct Elements(BTreeMap<(&'static str, &'static str), Vec<String>>);

impl Elements {
    fn push(&mut self, family: &'static str, set: &'static str, element: String) {
        self.0.entry((family, set)).or_default().push(element);
    }

    fn member(&mut self, address: Ipv4Addr, mark: u32) {
        for family in ["bridge", "ip"] {
            self.push(family, "environment_of", format!("{address} : {mark}"));
            self.push(family, "members", format!("{address} . {mark}"));
            self.push(
                family,
                "owners",
                format!("{} . {address}", hardware_address(address)),
            );
        }
        self.push("ip", "itself", format!("{address} . {address}"));
    }

    fn port(&mut self, port: &str) {
        self.push("bridge", "ports", format!("\"{port}\""));
    }

    fn service(&mut self, service: Ipv4Addr) {
        self.push(
            "ip",
            "services",
            format!("{service} : goto {}", chain_of(service)),
        );
    }

    fn write(&self, verb: &str, table: &str, out: &mut String) {
        for ((family, set), elements) in &self.0 {
            for chunk in elements.chunks(CHUNK) {
                let _ = writeln!(
                    out,
                    "{verb} element {family} {table} {set} {{ {} }}",
                    chunk.join(", ")
                );
            }
        }
    }
}

fn set(kind: &str, name: &str, flags: &str, elements: &[String]) -> String {
    let elements = match elements {
        [] => String::new(),
        some => format!(" elements = {{ {} }};", some.join(", ")),
    };
    format!("  set {name} {{ type {kind};{flags}{elements} }}\n")
}

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("\"{name}\"")).collect()
}

fn texts(ranges: &[Ipv4Net]) -> Vec<String> {
    ranges.iter().map(Ipv4Net::to_string).collect()
}

const INTERVAL: &str = " flags interval; auto-merge;";

/// Sets that both families have, and the decision between two ends.
fn membership() -> &'static str {
    "  map environment_of { type ipv4_addr : mark; }
  set members { type ipv4_addr . mark; }
  set owners { type ether_addr . ipv4_addr; }
"
}

fn bridge_table(fixed: &Fixed, out: &mut String) {
    let Fixed {
        table,
        build_interface,
        builds,
        members,
        ..
    } = fixed;
    let (mask, value) = fixed.hardware_pool();
    let _ = writeln!(out, "table bridge {table} {{");
    out.push_str(membership());
    match fixed.bridge_match {
        BridgeMatch::Name => out.push_str(&set("ifname", "bridges", "", &quoted(&fixed.bridges))),
        BridgeMatch::Port => out.push_str(&set("ifname", "ports", "", &[])),
    }
    out.push_str(
        "  chain owned {
    ether type arp ether saddr . arp saddr ip @owners arp saddr ether . arp saddr ip @owners accept
    ether type ip ether saddr . ip saddr @owners accept
    counter drop
  }
  chain same {
    meta mark set 0
    ether type arp meta mark set arp saddr ip map @environment_of
    ether type ip meta mark set ip saddr map @environment_of
    ether type arp arp daddr ip . meta mark @members meta mark set 0 accept
    ether type ip ip daddr . meta mark @members meta mark set 0 accept
    counter drop
  }
",
    );
    let (prerouting, forward) = match fixed.bridge_match {
        BridgeMatch::Name => (
            format!(
                "    meta ibrname @bridges goto owned
    meta ibrname \"{build_interface}\" ether type != {{ arp, ip }} counter drop
"
            ),
            format!(
                "    meta ibrname @bridges goto same
    meta ibrname \"{build_interface}\" counter drop
"
            ),
        ),
        BridgeMatch::Port => (
            format!(
                "    iifname @ports goto owned
    ether saddr & {mask} == {value} goto owned
    ether daddr & {mask} == {value} goto owned
    ether type arp arp saddr ip {members} goto owned
    ether type arp arp daddr ip {members} goto owned
    ether type ip ip saddr {members} goto owned
"
            ),
            format!(
                "    iifname @ports goto same
    oifname @ports goto same
    ether saddr & {mask} == {value} goto same
    ether daddr & {mask} == {value} goto same
    ether type arp arp daddr ip {members} goto same
    ether type ip ip daddr {members} goto same
    ether type arp arp saddr ip {builds} counter drop
    ether type arp arp daddr ip {builds} counter drop
    ether type ip ip saddr {builds} counter drop
    ether type ip ip daddr {builds} counter drop
"
            ),
        ),
    };
    let _ = write!(
        out,
        "  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
{prerouting}  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
{forward}  }}
}}
"
    );
}

fn ip_table(fixed: &Fixed, out: &mut String) {
    let Fixed {
        table,
        build_interface: build,
        builds,
        build_gateway,
        ..
    } = fixed;
    let gateways: Vec<String> = fixed.gateways.iter().map(Ipv4Addr::to_string).collect();
    let public: Vec<String> = fixed
        .edge
        .iter()
        .map(|(range, port)| format!("{range} . {port}"))
        .collect();
    let _ = writeln!(out, "table ip {table} {{");
    out.push_str(membership());
    out.push_str(
        "  set itself { type ipv4_addr . ipv4_addr; }\n  map services { type ipv4_addr : verdict; }\n",
    );
    out.push_str(&set("ifname", "bridges", "", &quoted(&fixed.bridges)));
    out.push_str(&set("ipv4_addr", "gateways", "", &gateways));
    out.push_str(&set(
        "ipv4_addr . inet_service",
        "public",
        " flags interval;",
        &public,
    ));
    out.push_str(&set("ipv4_addr", "never", INTERVAL, &texts(&fixed.never())));
    out.push_str(&set("ipv4_addr", "closed", INTERVAL, &texts(&fixed.closed())));
    out.push_str(&set("ipv4_addr", "opened", INTERVAL, &texts(&fixed.opened)));
    let _ = write!(
        out,
        "  chain source {{
    type filter hook prerouting priority -300; policy accept;
    iifname @bridges ether saddr . ip saddr != @owners counter drop
    iifname \"{build}\" ip saddr != {builds} counter drop
  }}
  chain translate {{
    type nat hook prerouting priority -110; policy accept;
    iifname @bridges ip daddr vmap @services
  }}
  chain same {{
    meta mark set 0
    meta mark set ip saddr map @environment_of
    ip daddr . meta mark @members meta mark set 0 accept
    counter drop
  }}
  chain outside {{
    ip daddr @never counter drop
    ip daddr @opened accept
    ip daddr @closed counter drop
  }}
  chain inbound {{
    ct state established,related accept
    counter drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname @bridges oifname @bridges goto same
    iifname \"{build}\" oifname \"{build}\" counter drop
    iifname @bridges goto outside
    iifname \"{build}\" goto outside
    oifname @bridges goto inbound
    oifname \"{build}\" goto inbound
  }}
  chain host {{
    ct state established,related accept
    ip daddr @gateways udp dport 53 accept
    ip daddr @gateways tcp dport 53 accept
    ip daddr . tcp dport @public accept
    counter drop
  }}
  chain host_of_builds {{
    ct state established,related accept
    ip daddr {build_gateway} udp dport 53 accept
    ip daddr {build_gateway} tcp dport 53 accept
    counter drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname @bridges goto host
    iifname \"{build}\" goto host_of_builds
  }}
  chain itself {{
    type nat hook postrouting priority 90; policy accept;
    ip saddr . ip daddr @itself masquerade
  }}
}}
"
    );
}

fn ip6_table(fixed: &Fixed, out: &mut String) {
    let Fixed {
        table,
        build_interface: build,
        ..
    } = fixed;
    let _ = writeln!(out, "table ip6 {table} {{");
    out.push_str(&set("ifname", "bridges", "", &quoted(&fixed.bridges)));
    let _ = write!(
        out,
        "  chain closed {{
    type filter hook prerouting priority -300; policy accept;
    iifname @bridges counter drop
    iifname \"{build}\" counter drop
  }}
}}
"
    );
}

/// All sets of the ruleset that [`Wanted`] fills, as `nft` would list their elements: for comparing.
pub fn elements(fixed: &Fixed, wanted: &Wanted) -> BTreeMap<(&'static str, &'static str), BTreeSet<String>> {
    let mut all = Elements::default();
    for (address, mark) in &wanted.members {
        all.member(*address, *mark);
    }
    for service in wanted.services.keys() {
        all.service(*service);
    }
    for port in &wanted.ports {
        all.port(port);
    }
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for family in ["bridge", "ip"] {
        for name in ["environment_of", "members", "owners"] {
            found.insert((family, name), BTreeSet::new());
        }
    }
    found.insert(("ip", "itself"), BTreeSet::new());
    found.insert(("ip", "services"), BTreeSet::new());
    if fixed.bridge_match == BridgeMatch::Port {
        found.insert(("bridge", "ports"), BTreeSet::new());
    }
    for (place, elements) in all.0 {
        found.insert(
            place,
            elements
                .into_iter()
                .map(|element| element.replace('"', ""))
                .collect(),
        );
    }
    found
}
