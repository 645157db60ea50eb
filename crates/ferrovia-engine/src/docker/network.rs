//! The bridges that replicas are on: one Docker network per block of addresses, made when it is first needed.
//!
//! A network that is there is taken over when it is exactly what would be made, and refused with a sentence when
//! anything else has its name, its interface or its addresses: replicas on a network of another shape would be
//! reachable by others, or by nobody. Docker only connects here; who may reach whom is `node`'s to say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use ferrovia_core::network::Bridge;
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Ask};
use super::labels;
use crate::Error;

/// How long a list of networks may take, in milliseconds.
const LIST_TIMEOUT_MS: u64 = 30_000;
/// How long the making of a network may take, in milliseconds (a restart of a busy engine can be waited for).
const CREATE_TIMEOUT_MS: u64 = 60_000;
/// What a bridge carries when the host does not say.
const USUAL_MTU_BYTES: u32 = 1500;
/// Routes of the host.
const ROUTES_FILE: &str = "/proc/net/route";
/// Interfaces of the host.
const INTERFACES_DIRECTORY: &str = "/sys/class/net";

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const MTU: &str = "com.docker.network.driver.mtu";

/// A network as Docker lists it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    name: String,
    driver: String,
    #[serde(default)]
    internal: bool,
    #[serde(default, rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    config: Option<Vec<IpamBlock>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpamBlock {
    subnet: Option<String>,
    gateway: Option<String>,
}

/// What to do about a bridge.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is there as it should be.
    Adopt,
    /// It is not there, and nothing is in its way.
    Create,
    /// Something else has its place.
    Refuse(String),
}

/// Makes sure that the network of a bridge is there.
pub(super) async fn ensure(api: &Api, installation: &str, bridge: &Bridge) -> Result<(), Error> {
    match judge(&list(api).await?, installation, bridge) {
        Verdict::Adopt => return Ok(()),
        Verdict::Refuse(why) => return Err(Error::Network(why)),
        Verdict::Create => {}
    }
    let routes = tokio::fs::read_to_string(ROUTES_FILE).await.unwrap_or_default();
    let interface = Path::new(INTERFACES_DIRECTORY).join(&bridge.interface);
    if tokio::fs::try_exists(&interface).await.unwrap_or(false) {
        return Err(Error::Network(format!(
            "an interface `{0}` exists that belongs to no Docker network; remove it with \
             `ip link delete {0}`",
            bridge.interface
        )));
    }
    if let Some(other) = routed_elsewhere(&routes, bridge) {
        return Err(Error::Network(format!(
            "addresses of `{}` are routed to `{other}` on this host; choose another range for the private network",
            bridge.block
        )));
    }
    let mtu = host_mtu(&routes).await;
    let ask = Ask::post("/networks/create", CREATE_TIMEOUT_MS).body(body(installation, bridge, mtu));
    let Err(refusal) = api.ask(ask).await else {
        tracing::info!(network = %bridge.interface, block = %bridge.block, "made a network");
        return Ok(());
    };
    if refusal.code().is_none() {
        return Err(refusal.into_error("create network"));
    }
    // Another process of the platform may have been faster.
    match judge(&list(api).await?, installation, bridge) {
        Verdict::Adopt => Ok(()),
        Verdict::Refuse(why) => Err(Error::Network(why)),
        Verdict::Create => Err(Error::Network(format!(
            "Docker cannot make the network `{}` ({}): {}",
            bridge.interface,
            bridge.block,
            refusal.message()
        ))),
    }
}

async fn list(api: &Api) -> Result<Vec<Network>, Error> {
    let ask = Ask::get("/networks", LIST_TIMEOUT_MS);
    api.ask_for(ask)
        .await
        .map_err(|refusal| refusal.into_error("list networks"))
}

fn judge(networks: &[Network], installation: &str, bridge: &Bridge) -> Verdict {
    let option = |network: &Network, key: &str| {
        network
            .options
            .as_ref()
            .and_then(|options| options.get(key).cloned())
    };
    for network in networks {
        if network.name == bridge.interface {
            return match misfit(network, installation, bridge) {
                None => Verdict::Adopt,
                Some(what) => Verdict::Refuse(format!(
                    "the Docker network `{0}` is not the platform's: {what}; `docker ps -a --filter network={0}` \
                     shows what uses it; remove that, and it with `docker network rm {0}`",
                    network.name
                )),
            };
        }
    }
    for network in networks {
        if option(network, BRIDGE_NAME).as_deref() == Some(bridge.interface.as_str()) {
            return Verdict::Refuse(format!(
                "the Docker network `{}` has the interface `{}`; remove it with `docker network rm {}`",
                network.name, bridge.interface, network.name
            ));
        }
        if let Some(block) = blocks(network).find(|block| overlap(*block, bridge.block)) {
            return Verdict::Refuse(format!(
                "the addresses `{}` of the private network overlap with `{block}` of the Docker network `{}`; remove \
                 it, or choose another range for the private network",
                bridge.block, network.name
            ));
        }
    }
    Verdict::Create
}

/// What about a network of the right name is not as it should be.
fn misfit(network: &Network, installation: &str, bridge: &Bridge) -> Option<String> {
    let option = |key: &str| {
        network
            .options
            .as_ref()
            .and_then(|options| options.get(key))
            .map(String::as_str)
    };
    let owner = network
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::INSTALLATION))
        .map(String::as_str);
    if owner != Some(installation) {
        return Some(match owner {
            Some(other) => format!("it belongs to the installation `{other}`"),
            None => "it was made by somebody else".into(),
        });
    }
    let gateway = network
        .ipam
        .config
        .iter()
        .flatten()
        .find_map(|block| block.gateway.as_deref());
    let gateway = gateway.and_then(|text| text.split('/').next()?.parse::<Ipv4Addr>().ok());
    if network.driver != "bridge" {
        return Some(format!("its driver is `{}`", network.driver));
    }
    if blocks(network).next() != Some(bridge.block) || gateway != Some(bridge.gateway) {
        return Some(format!(
            "its addresses are not `{}` with the gateway `{}`",
            bridge.block, bridge.gateway
        ));
    }
    if option(BRIDGE_NAME) != Some(bridge.interface.as_str()) {
        return Some(format!("its interface is not `{}`", bridge.interface));
    }
    if option(ENABLE_ICC) == Some("false") || option(ENABLE_MASQUERADE) == Some("false") || network.internal {
        return Some("it is closed to itself or to the outside".into());
    }
    network.enable_ipv6.then(|| "it has IPv6 addresses".into())
}

fn blocks(network: &Network) -> impl Iterator<Item = Ipv4Net> {
    network
        .ipam
        .config
        .iter()
        .flatten()
        .filter_map(|block| block.subnet.as_ref()?.parse().ok())
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn body(installation: &str, bridge: &Bridge, mtu: u32) -> Value {
    json!({
        "Name": bridge.interface,
        "Driver": "bridge",
        "CheckDuplicate": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Config": [{ "Subnet": bridge.block, "Gateway": bridge.gateway }] },
        "Options": {
            BRIDGE_NAME: bridge.interface,
            ENABLE_ICC: "true",
            ENABLE_MASQUERADE: "true",
            MTU: mtu.to_string(),
        },
        "Labels": { labels::INSTALLATION: installation },
    })
}

/// One route of the host: interface, destination.
fn routes(text: &str) -> impl Iterator<Item = (&str, Ipv4Net)> {
    let address = |hex: &str| {
        u32::from_str_radix(hex, 16)
            .ok()
            .map(|raw| Ipv4Addr::from(raw.swap_bytes()))
    };
    text.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let mask = address(fields.get(7)?)?;
        let net = Ipv4Net::with_netmask(address(fields.get(1)?)?, mask).ok()?;
        Some((*fields.first()?, net))
    })
}

/// The interface that addresses of the bridge are routed to, when it is another than its own.
fn routed_elsewhere(text: &str, bridge: &Bridge) -> Option<String> {
    let taken = |(interface, net): &(&str, Ipv4Net)| {
        net.prefix_len() > 0 && *interface != bridge.interface && overlap(*net, bridge.block)
    };
    routes(text)
        .find(taken)
        .map(|(interface, _)| interface.to_owned())
}

/// What the interface of the default route carries, in bytes.
async fn host_mtu(text: &str) -> u32 {
    let Some((interface, _)) = routes(text).find(|(_, net)| net.prefix_len() == 0) else {
        return USUAL_MTU_BYTES;
    };
    let file = Path::new(INTERFACES_DIRECTORY).join(interface).join("mtu");
    let mtu = tokio::fs::read_to_string(file)
        .await
        .ok()
        .and_then(|mtu| mtu.trim().parse().ok());
    mtu.unwrap_or(USUAL_MTU_BYTES)
}

#[cfg(test)]
mod tests {
    use ferrovia_core::network::AddressPlan;

    use super::*;

    fn bridge() -> Bridge {
        AddressPlan::default().bridge(0).unwrap()
    }

    /// The network that would be made, as Docker lists it, with changes.
    fn made(change: impl FnOnce(&mut Value)) -> Network {
        let mut value = body("mine", &bridge(), 1500);
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_made_is_adopted() {
        assert_eq!(judge(&[], "mine", &bridge()), Verdict::Create);
        assert_eq!(judge(&[made(|_| ())], "mine", &bridge()), Verdict::Adopt);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 7] = [
            (|n| n["Labels"] = json!({}), "made by somebody else"),
            (
                |n| n["Labels"]["ferrovia.installation"] = json!("other"),
                "the installation `other`",
            ),
            (
                |n| n["IPAM"]["Config"][0]["Subnet"] = json!("10.210.0.0/16"),
                "not `10.210.0.0/22`",
            ),
            (|n| n["Options"][ENABLE_ICC] = json!("false"), "closed to itself"),
            (|n| n["Driver"] = json!("macvlan"), "driver is `macvlan`"),
            (
                |n| n["Name"] = json!("lan"),
                "network `lan` has the interface `fv0`",
            ),
            (
                |n| (n["Name"], n["Options"]) = (json!("lan"), json!({})),
                "overlap with `10.210.0.0/22`",
            ),
        ];
        for (change, words) in cases {
            let Verdict::Refuse(why) = judge(&[made(change)], "mine", &bridge()) else {
                panic!("{words}")
            };
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn the_host_s_routes_are_heeded() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            vpn0\t0000D20A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routed_elsewhere(table, &bridge()).as_deref(), Some("vpn0"));
        let own = table.replace("vpn0", "fv0");
        assert_eq!(routed_elsewhere(&own, &bridge()), None);
    }
}
