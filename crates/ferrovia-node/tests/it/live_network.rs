//! The firewall from inside containers: who reaches whom, and who does not.

use std::net::{Ipv4Addr, SocketAddr};

use ferrovia_core::id::{DeploymentId, EnvironmentId, InstanceId, ReplicaId};
use ferrovia_core::settings::RestartPolicy;
use ferrovia_core::table::{Member, MemberPhase, NodeRow, Probe, ServiceAddress};
use ferrovia_node::firewall::{Firewall, FirewallTask, Fixed, Host, Nft, bridge_match};
use ferrovia_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::rig::{LINK_LOCAL, PRIVATE, PUBLIC, Rig, SOON, must, plan, run};

const A: Ipv4Addr = Ipv4Addr::new(10, 230, 0, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 230, 0, 12);
const C: Ipv4Addr = Ipv4Addr::new(10, 230, 0, 13);
const UNKNOWN: Ipv4Addr = Ipv4Addr::new(10, 230, 0, 14);
const EDGE_PORT: u16 = 18_480;
const CLOSED_PORT: u16 = 18_481;

pub fn member(address: Ipv4Addr, mark: u32) -> NodeRow {
    let id = Uuid::from_u128(u128::from(u32::from(address)));
    NodeRow::Member(Member {
        address,
        replica_id: ReplicaId::from_uuid(id),
        deployment_id: DeploymentId::from_uuid(id),
        instance_id: InstanceId::from_uuid(id),
        environment_id: EnvironmentId::from_uuid(Uuid::from_u128(u128::from(mark))),
        mark,
        probe: Probe::Tcp { port: 8080 },
        restart: RestartPolicy::default(),
        phase: MemberPhase::Serving,
    })
}

pub fn service(name: &str, address: Ipv4Addr, mark: u32, backends: &[Ipv4Addr]) -> NodeRow {
    NodeRow::Service(ServiceAddress {
        instance_id: InstanceId::from_uuid(Uuid::from_u128(u128::from(u32::from(address)))),
        environment_id: EnvironmentId::from_uuid(Uuid::from_u128(u128::from(mark))),
        mark,
        name: name.parse().unwrap(),
        address,
        backends: backends.to_vec(),
        asleep: false,
    })
}

/// A and B in one environment with a service each, C in another.
fn rows() -> Vec<NodeRow> {
    vec![
        member(A, 1),
        member(B, 1),
        member(C, 2),
        service("a", "10.231.0.11".parse().unwrap(), 1, &[A]),
        service("b", "10.231.0.12".parse().unwrap(), 1, &[B]),
        service("c", "10.231.0.13".parse().unwrap(), 2, &[C]),
    ]
}

async fn firewall(opened: &[&str]) -> Firewall {
    let mut nft = Nft::default();
    let host = Host::default();
    let matching = bridge_match(&mut nft).await.unwrap();
    let edge: SocketAddr = format!("0.0.0.0:{EDGE_PORT}").parse().unwrap();
    let opened: Vec<_> = opened.iter().map(|range| range.parse().unwrap()).collect();
    let fixed = Fixed::new(&plan(), &[edge], &opened, matching, host.has_ipv6()).unwrap();
    let (gone, _) = mpsc::channel(8);
    let (task, firewall) = FirewallTask::new(fixed, host, nft, gone);
    tokio::spawn(task.run());
    firewall
}

/// A web server of the host's.
async fn listen(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream
                    .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhost\n")
                    .await;
            });
        }
    });
}

/// Our tables as they are listed, without an order where the kernel has none.
fn loaded() -> Vec<String> {
    let mut words = Vec::new();
    for family in ["bridge", "ip", "ip6"] {
        let listed = run("nft", &["-s", "list", "table", family, "ferrovia_fn"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        words.extend(
            listed
                .split([',', '\n'])
                .map(|word| format!("{family} {}", word.trim())),
        );
    }
    words.sort();
    words
}

fn host_address() -> String {
    let route = must("ip", &["-4", "route", "get", "203.0.114.1"]);
    let mut words = route.split_whitespace();
    words.find(|word| *word == "src").unwrap();
    words.next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_closed() {
    let rig = Rig::new();
    let firewall = firewall(&[]).await;
    firewall.apply(rows()).await.unwrap();
    listen(EDGE_PORT).await;
    listen(CLOSED_PORT).await;
    let outside = rig.outside();
    rig.serve("a", A);
    rig.serve("b", B);
    rig.serve("c", C);
    rig.serve("unknown", UNKNOWN);
    let get = |target: &str| rig.get("a", target);
    wait_for("the neighbour answers", SOON, async || get("10.230.0.12:8080")).await;

    assert_eq!(get("10.230.0.12:8080").as_deref(), Some("b"), "directly");
    assert_eq!(
        get("10.231.0.12:8080").as_deref(),
        Some("b"),
        "by the service's address"
    );
    wait_for("hairpin mode is on", SOON, async || get("10.231.0.11:8080")).await;
    assert_eq!(
        get("10.231.0.11:8080").as_deref(),
        Some("a"),
        "itself by its own service's address"
    );

    assert_eq!(get("10.230.0.13:8080"), None, "another environment");
    assert_eq!(
        get("10.231.0.13:8080"),
        None,
        "another environment by its service's address"
    );
    assert_eq!(
        get("10.230.0.14:8080"),
        None,
        "an address that the table does not know"
    );
    assert_eq!(
        rig.get("unknown", "10.230.0.11:8080"),
        None,
        "from an address that the table does not know"
    );
    assert_eq!(
        rig.get("unknown", &format!("{PUBLIC}:8080")),
        None,
        "to the outside from there"
    );

    let host = host_address();
    assert_eq!(
        get(&format!("{host}:{EDGE_PORT}")).as_deref(),
        Some("host"),
        "the edge on the host's address"
    );
    assert_eq!(
        get(&format!("{host}:{CLOSED_PORT}")),
        None,
        "another port of the host"
    );
    assert_eq!(
        get(&format!("10.230.0.1:{CLOSED_PORT}")),
        None,
        "another port of the gateway"
    );
    assert_eq!(
        get(&format!("172.17.0.1:{CLOSED_PORT}")),
        None,
        "the host on another bridge"
    );
    assert_eq!(
        get(&format!("203.0.113.76:{CLOSED_PORT}")),
        None,
        "the host towards the outside"
    );

    assert_eq!(get(&format!("{PUBLIC}:8080")).as_deref(), Some("outside"));
    assert_eq!(get(&format!("{PRIVATE}:8080")), None, "private ranges outside");
    assert_eq!(get(&format!("{LINK_LOCAL}:8080")), None, "link-local");
    let from_host = run("curl", &["-s", "-m", "2", &format!("http://{LINK_LOCAL}:8080/")]);
    assert_eq!(
        String::from_utf8_lossy(&from_host.stdout).trim(),
        "outside",
        "what was refused is there"
    );
    assert_eq!(
        outside.get("10.230.0.11:8080"),
        None,
        "from the outside to a replica"
    );
    let socket = rig.exec("a", "test -e /var/run/docker.sock || test -e /run/docker.sock");
    assert!(!socket.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_opens_private_ranges_but_never_link_local() {
    let rig = Rig::new();
    let firewall = firewall(&["192.168.231.0/24", "169.254.0.0/16"]).await;
    firewall.apply(rows()).await.unwrap();
    let _outside = rig.outside();
    rig.serve("a", A);
    wait_for("the outside answers", SOON, async || {
        rig.get("a", &format!("{PUBLIC}:8080"))
    })
    .await;
    assert_eq!(
        rig.get("a", &format!("{PRIVATE}:8080")).as_deref(),
        Some("outside")
    );
    assert_eq!(rig.get("a", &format!("{LINK_LOCAL}:8080")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_with_somebody_elses_address_are_dropped() {
    let rig = Rig::new();
    let firewall = firewall(&[]).await;
    firewall.apply(rows()).await.unwrap();
    rig.serve("a", A);
    rig.run("c", C, &["NET_ADMIN", "NET_RAW"], "sleep 600");
    // C's neighbour in A's environment watches for anything.
    rig.run("b", B, &["NET_RAW"], "sleep 600");
    wait_for("A answers", SOON, async || rig.get("b", "10.230.0.11:8080")).await;

    // As B by IP address, then by hardware and IP address of nobody, then with ARP.
    let spoof =
        "ip addr flush dev eth0; ip addr add 10.230.0.12/22 dev eth0 && ip route add default via 10.230.0.1";
    assert!(rig.exec("c", spoof).status.success());
    assert_eq!(rig.get("c", "10.230.0.11:8080"), None);
    assert_eq!(rig.get("c", "10.231.0.11:8080"), None);
    let arp = rig.exec("c", "arping -c 2 -w 2 -I eth0 -s 10.230.0.12 10.230.0.11");
    assert!(!arp.status.success(), "{}", String::from_utf8_lossy(&arp.stdout));
    let unsolicited = rig.exec("c", "arping -U -c 2 -w 2 -I eth0 -s 10.230.0.1 10.230.0.11");
    let neighbours = rig.exec("a", "ip neigh");
    let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
    assert!(
        !neighbours.contains("02:fe:0a:e6:00:0d"),
        "{neighbours} {unsolicited:?}"
    );
    assert_eq!(
        rig.get("b", "10.230.0.11:8080").as_deref(),
        Some("a"),
        "B itself is not hurt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_others_flush_come_back() {
    let rig = Rig::new();
    let firewall = firewall(&[]).await;
    firewall.apply(rows()).await.unwrap();
    rig.serve("a", A);
    rig.serve("b", B);
    rig.serve("c", C);
    wait_for("B answers", SOON, async || rig.get("a", "10.231.0.12:8080")).await;
    let standard = loaded();
    for hurt in [
        "flush table ip ferrovia_fn",
        "delete table bridge ferrovia_fn",
        "flush set ip ferrovia_fn members",
        "delete element bridge ferrovia_fn members { 10.230.0.11 . 1 }",
        "add element bridge ferrovia_fn members { 10.230.0.13 . 1 }; add element ip ferrovia_fn members { 10.230.0.13 . 1 }",
        "insert rule ip ferrovia_fn same accept",
    ] {
        must("nft", &[hurt]);
        wait_for(hurt, SOON, async || (loaded() == standard).then_some(())).await;
        assert_eq!(rig.get("a", "10.230.0.13:8080"), None, "{hurt}");
        assert_eq!(rig.get("a", "10.231.0.12:8080").as_deref(), Some("b"), "{hurt}");
    }
    // A table that changes is a small transaction after that.
    let mut rows = rows();
    rows.push(member(UNKNOWN, 1));
    rows.retain(|row| !matches!(row, NodeRow::Member(member) if member.address == B));
    firewall.apply(rows).await.unwrap();
    rig.serve("new", UNKNOWN);
    wait_for("the new one answers", SOON, async || {
        rig.get("a", "10.230.0.14:8080")
    })
    .await;
    assert_eq!(rig.get("a", "10.230.0.12:8080"), None);
}
