//! The firewall from inside containers: who reaches whom, and who does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ferrovia_core::table::NodeRow;
use ferrovia_node::firewall::{Firewall, FirewallTask, Fixed, Host, Nft, bridge_match};
use ferrovia_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::command::{must, run};
use crate::node::{member, service};
use crate::outside::{LINK_LOCAL, NEAR, Outside, PRIVATE, PUBLIC};
use crate::place::Place;
use crate::rig::{Rig, SOON};

const A: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 12);
const C: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 13);
const UNKNOWN: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 14);
const EDGE_PORT: u16 = 18_480;
const CLOSED_PORT: u16 = 18_481;
/// How long rules that others changed may be away.
const REPAIRED_MS: u128 = 2_000;

/// A and B in one environment with a service each, C in another.
fn rows() -> Vec<NodeRow> {
    vec![
        member(A, 1),
        member(B, 1),
        member(C, 2),
        service("a", "10.225.0.11".parse().unwrap(), 1, &[A]),
        service("b", "10.225.0.12".parse().unwrap(), 1, &[B]),
        service("c", "10.225.0.13".parse().unwrap(), 2, &[C]),
    ]
}

async fn firewall(opened: &[&str]) -> Firewall {
    let (task, firewall) = task(opened).await;
    tokio::spawn(task.run());
    firewall
}

async fn task(opened: &[&str]) -> (FirewallTask, Firewall) {
    let mut nft = Nft::default();
    let host = Host::default();
    let matching = bridge_match(&mut nft).await.unwrap();
    let edge: SocketAddr = format!("0.0.0.0:{EDGE_PORT}").parse().unwrap();
    let opened: Vec<_> = opened.iter().map(|range| range.parse().unwrap()).collect();
    let fixed = Fixed::new(
        &Place::shared().plan(),
        &[edge],
        &opened,
        matching,
        host.has_ipv6(),
    )
    .unwrap();
    let (gone, _) = mpsc::channel(8);
    FirewallTask::new(fixed, host, nft, gone)
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
    let outside = Outside::new();
    rig.serve("a", A);
    rig.serve("b", B);
    rig.serve("c", C);
    rig.serve("unknown", UNKNOWN);
    let get = |target: &str| rig.get("a", target);
    wait_for("the neighbour answers", SOON, async || get("10.224.0.12:8080")).await;

    assert_eq!(get("10.224.0.12:8080").as_deref(), Some("b"), "directly");
    assert_eq!(
        get("10.225.0.12:8080").as_deref(),
        Some("b"),
        "by the service's address"
    );
    wait_for("hairpin mode is on", SOON, async || get("10.225.0.11:8080")).await;
    assert_eq!(
        get("10.225.0.11:8080").as_deref(),
        Some("a"),
        "itself by its own service's address"
    );

    assert_eq!(get("10.224.0.13:8080"), None, "another environment");
    assert_eq!(
        get("10.225.0.13:8080"),
        None,
        "another environment by its service's address"
    );
    assert_eq!(
        get("10.224.0.14:8080"),
        None,
        "an address that the table does not know"
    );
    assert_eq!(
        rig.get("unknown", "10.224.0.11:8080"),
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
        get(&format!("10.224.0.1:{CLOSED_PORT}")),
        None,
        "another port of the gateway"
    );
    assert_eq!(
        get(&format!("172.17.0.1:{CLOSED_PORT}")),
        None,
        "the host on another bridge"
    );
    assert_eq!(
        get(&format!("{NEAR}:{CLOSED_PORT}")),
        None,
        "the host towards the outside"
    );

    assert_eq!(get(&format!("{PUBLIC}:8080")).as_deref(), Some("outside"));
    assert_eq!(get(&format!("{PRIVATE}:8080")), None, "private ranges outside");
    assert_eq!(get(&format!("{LINK_LOCAL}:8080")), None, "link-local");
    assert_eq!(
        get(&format!("127.0.0.1:{CLOSED_PORT}")),
        None,
        "the host's loopback"
    );
    let from_host = run("curl", &["-s", "-m", "2", &format!("http://{LINK_LOCAL}:8080/")]);
    assert_eq!(
        String::from_utf8_lossy(&from_host.stdout).trim(),
        "outside",
        "what was refused is there"
    );
    assert_eq!(
        outside.get("10.224.0.11:8080"),
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
    let _outside = Outside::new();
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
    wait_for("A answers", SOON, async || rig.get("b", "10.224.0.11:8080")).await;

    // As B by IP address, then by hardware and IP address of nobody, then with ARP.
    let spoof =
        "ip addr flush dev eth0; ip addr add 10.224.0.12/22 dev eth0 && ip route add default via 10.224.0.1";
    assert!(rig.exec("c", spoof).status.success());
    assert_eq!(rig.get("c", "10.224.0.11:8080"), None);
    assert_eq!(rig.get("c", "10.225.0.11:8080"), None);
    let arp = rig.exec("c", "arping -c 2 -w 2 -I eth0 -s 10.224.0.12 10.224.0.11");
    assert!(!arp.status.success(), "{}", String::from_utf8_lossy(&arp.stdout));
    let unsolicited = rig.exec("c", "arping -U -c 2 -w 2 -I eth0 -s 10.224.0.1 10.224.0.11");
    let neighbours = rig.exec("a", "ip neigh");
    let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
    assert!(
        !neighbours.contains("02:fe:0a:e0:00:0d"),
        "{neighbours} {unsolicited:?}"
    );
    assert_eq!(
        rig.get("b", "10.224.0.11:8080").as_deref(),
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
    wait_for("B answers", SOON, async || rig.get("a", "10.225.0.12:8080")).await;
    let standard = loaded();
    for hurt in [
        "flush table ip ferrovia_fn",
        "delete table bridge ferrovia_fn",
        "flush set ip ferrovia_fn members",
        "delete element bridge ferrovia_fn members { 10.224.0.11 . 1 }",
        "add element bridge ferrovia_fn members { 10.224.0.13 . 1 }; add element ip ferrovia_fn members { 10.224.0.13 . 1 }",
        "insert rule ip ferrovia_fn same accept",
    ] {
        must("nft", &[hurt]);
        let before = Instant::now();
        wait_for(hurt, SOON, async || (loaded() == standard).then_some(())).await;
        let took = before.elapsed();
        println!("repaired after {took:?}: {hurt}");
        assert!(took.as_millis() < REPAIRED_MS, "{hurt}: {took:?}");
        assert_eq!(rig.get("a", "10.224.0.13:8080"), None, "{hurt}");
        assert_eq!(rig.get("a", "10.225.0.12:8080").as_deref(), Some("b"), "{hurt}");
    }
    // A table that changes is a small transaction after that.
    let mut rows = rows();
    rows.push(member(UNKNOWN, 1));
    rows.retain(|row| !matches!(row, NodeRow::Member(member) if member.address == B));
    firewall.apply(rows).await.unwrap();
    rig.serve("new", UNKNOWN);
    wait_for("the new one answers", SOON, async || {
        rig.get("a", "10.224.0.14:8080")
    })
    .await;
    assert_eq!(rig.get("a", "10.224.0.12:8080"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_table_everything_is_closed_and_what_was_loaded_stays() {
    let rig = Rig::new();
    let _outside = Outside::new();
    rig.serve("a", A);
    rig.serve("b", B);
    wait_for("without a firewall it is open", SOON, async || {
        rig.get("a", "10.224.0.12:8080")
    })
    .await;
    let (mut fresh, _) = task(&[]).await;
    fresh.ensure_closed().await.unwrap();
    assert_eq!(rig.get("a", "10.224.0.12:8080"), None);
    assert_eq!(rig.get("a", &format!("{PUBLIC}:8080")), None);
    drop(fresh);

    let firewall = firewall(&[]).await;
    firewall.apply(rows()).await.unwrap();
    drop(firewall);
    let standard = loaded();
    let (mut next, _) = task(&[]).await;
    next.ensure_closed().await.unwrap();
    assert_eq!(loaded(), standard);
    // A gave its gateway up for some seconds when nobody answered.
    wait_for("it is open as before", SOON, async || {
        rig.get("a", "10.225.0.12:8080").filter(|name| name == "b")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_reaches_the_outside_and_nothing_of_ours() {
    let rig = Rig::new();
    rig.build_network();
    let firewall = firewall(&[]).await;
    firewall.apply(rows()).await.unwrap();
    listen(EDGE_PORT).await;
    listen(CLOSED_PORT).await;
    let _outside = Outside::new();
    rig.serve("a", A);
    rig.serve("build", Ipv4Addr::new(10, 226, 0, 9));
    rig.serve("other", Ipv4Addr::new(10, 226, 0, 10));
    let get = |target: &str| rig.get("build", target);
    wait_for("the outside answers", SOON, async || {
        get(&format!("{PUBLIC}:8080"))
    })
    .await;
    let host = host_address();
    for (target, what) in [
        ("10.224.0.11:8080".to_owned(), "a replica"),
        ("10.225.0.11:8080".to_owned(), "a service"),
        ("10.226.0.10:8080".to_owned(), "another step"),
        (format!("{PRIVATE}:8080"), "a private range"),
        (format!("{LINK_LOCAL}:8080"), "link-local"),
        (format!("{host}:{CLOSED_PORT}"), "a port of the host"),
        (format!("10.226.0.1:{CLOSED_PORT}"), "a port of the gateway"),
        (format!("10.224.0.1:{CLOSED_PORT}"), "the gateway of replicas"),
        (format!("{NEAR}:{CLOSED_PORT}"), "the host towards the outside"),
        (format!("{host}:{EDGE_PORT}"), "the edge"),
    ] {
        assert_eq!(get(&target), None, "{what}");
    }
    assert_eq!(rig.get("a", "10.226.0.9:8080"), None, "from a replica");
}

/// What one rule costs does not grow with what is loaded: a table of a thousand environments is loaded, changed and
/// found flushed in bounded time.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_environments() {
    let rig = Rig::new();
    let firewall = firewall(&[]).await;
    let address = |base: u8, number: u32| {
        let [_, _, high, low] = (number * 2 + 8).to_be_bytes();
        Ipv4Addr::new(10, base, high, low)
    };
    let mut rows = rows();
    for number in 100..1_100 {
        let name = format!("web{number}");
        rows.push(member(address(224, number), number));
        rows.push(service(
            &name,
            address(225, number),
            number,
            &[address(224, number)],
        ));
    }
    let before = Instant::now();
    firewall.apply(rows.clone()).await.unwrap();
    let whole = before.elapsed();
    rig.serve("a", A);
    rig.serve("b", B);
    wait_for("B answers", SOON, async || rig.get("a", "10.225.0.12:8080")).await;
    let mut changes = Vec::new();
    for number in 2_000..2_020 {
        rows.push(member(address(224, number), number));
        let before = Instant::now();
        firewall.apply(rows.clone()).await.unwrap();
        changes.push(before.elapsed());
    }
    changes.sort();
    println!(
        "1,000 environments: loaded in {whole:?}, a change in {:?} (median of 20)",
        changes[10]
    );
    assert!(whole < Duration::from_secs(10) && changes[10] < Duration::from_secs(1));
    let standard = loaded();
    must("nft", &["delete table ip ferrovia_fn"]);
    let before = Instant::now();
    wait_for("all is back", SOON, async || (loaded() == standard).then_some(())).await;
    println!("loaded again after {:?}", before.elapsed());
    assert_eq!(rig.get("a", "10.225.0.12:8080").as_deref(), Some("b"));
}
