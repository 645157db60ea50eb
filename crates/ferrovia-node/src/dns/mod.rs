//! Names inside environments: a DNS server on the host's address of every bridge.
//!
//! The messages are hickory's; the sockets are our own, because hickory-server takes any number of questions and
//! connections from one source, and writes forwarded answers anew where they should pass as they came.
//!
//! A bridge is served when its interface appears, which may be long after `node` began. A service's address never
//! changes, so that answers need no expiry on a change of replicas.

mod forward;
mod message;
mod serve;
mod zone;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::firewall::{Host, build_gateway};
use forward::Forwarder;
use serve::Shared;
pub use zone::{Verdict, Zone};

const DNS_PORT: u16 = 53;
/// How often bridges are looked for while one is there that cannot be served yet, in milliseconds.
const LOOK_MS: u64 = 2_000;
/// How often they are looked for without a hint, in milliseconds.
const QUIET_LOOK_MS: u64 = 10_000;
/// Longest time until a trouble that goes on is told again, as a number of looks.
const TELL_EVERY: u32 = 150;

/// Serves names on every bridge that is there, until it is dropped.
pub async fn serve(
    plan: AddressPlan,
    host: Host,
    resolvers: PathBuf,
    zone: watch::Receiver<Arc<Zone>>,
    mut interfaces: watch::Receiver<u64>,
) {
    let gateways: Vec<(String, Ipv4Addr)> = (0..plan.bridge_count())
        .filter_map(|index| plan.bridge(index))
        .map(|bridge| (bridge.interface, bridge.gateway))
        .chain([(plan.build_interface(), build_gateway(&plan))])
        .collect();
    let own = gateways.iter().map(|(_, gateway)| *gateway).collect();
    let shared = Arc::new(Shared::new(zone, Forwarder::new(resolvers, own)));
    let mut served: BTreeMap<Ipv4Addr, JoinSet<()>> = BTreeMap::new();
    let mut troubles: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
    loop {
        let mut pause = Duration::from_millis(QUIET_LOOK_MS);
        for (interface, gateway) in &gateways {
            if !host.has_interface(interface) {
                served.remove(gateway);
                continue;
            }
            if served.get(gateway).is_some_and(|tasks| tasks.len() == 2) {
                continue;
            }
            match bind(*gateway, &shared).await {
                Ok(tasks) => {
                    tracing::info!(%interface, %gateway, "names are served");
                    served.insert(*gateway, tasks);
                    troubles.remove(gateway);
                }
                // The interface is there before its address.
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    pause = Duration::from_millis(LOOK_MS);
                }
                Err(error) => {
                    pause = Duration::from_millis(LOOK_MS);
                    let times = troubles.entry(*gateway).or_default();
                    if times.is_multiple_of(TELL_EVERY) {
                        tracing::warn!(%interface, "names cannot be served on `{gateway}:{DNS_PORT}`: {error}");
                    }
                    *times += 1;
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = interfaces.changed() => if changed.is_err() {
                sleep(pause).await;
            }
        }
    }
}

async fn bind(gateway: Ipv4Addr, shared: &Arc<Shared>) -> std::io::Result<JoinSet<()>> {
    let datagrams = UdpSocket::bind((gateway, DNS_PORT)).await?;
    let listener = TcpListener::bind((gateway, DNS_PORT)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve::udp(datagrams, Arc::clone(shared)));
    tasks.spawn(serve::tcp(listener, Arc::clone(shared)));
    Ok(tasks)
}
