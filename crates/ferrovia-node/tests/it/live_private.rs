//! Connections between services while replicas come and go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrovia_core::table::{Member, MemberPhase, NodeRow};
use ferrovia_testkit::wait_for;

use crate::bench::{Bench, bench};
use crate::control::Control;
use crate::node::{member, replica, service};
use crate::rig::{Rig, SERVE, SOON, get};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 41);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 42);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 43);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 225, 0, 41);
const WEB: SocketAddrV4 = SocketAddrV4::new(SERVICE, 8080);
const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVICE, 9000);
const CHANGES: usize = 20;
const CLIENTS: usize = 3;

fn in_phase(address: Ipv4Addr, phase: MemberPhase) -> NodeRow {
    NodeRow::Member(Member {
        phase,
        ..replica(address, 1)
    })
}

/// New connections go to `to`; the other of the two drains.
fn rows(to: Ipv4Addr) -> Vec<NodeRow> {
    let phase = |address| match address == to {
        true => MemberPhase::Serving,
        false => MemberPhase::Draining,
    };
    vec![
        member(CLIENT, 1),
        in_phase(FIRST, phase(FIRST)),
        in_phase(SECOND, phase(SECOND)),
        service("web", SERVICE, 1, &[to]),
    ]
}

async fn two_replicas() -> Bench {
    let bench = bench(&rows(FIRST)).await;
    for (name, address) in [("first", FIRST), ("second", SECOND)] {
        bench.rig.create_replica(name, &replica(address, 1), SERVE, "no");
        bench.rig.start(name);
        echo(&bench.rig, name);
        tell(&bench.rig, name);
    }
    bench.rig.run("client", CLIENT, &[], "sleep 600");
    for address in [FIRST, SECOND, SERVICE] {
        wait_for("it answers", SOON, async || {
            bench.rig.get("client", &format!("{address}:8080"))
        })
        .await;
    }
    bench
}

/// Says back what it hears, on port 9000 of a container, from this process.
fn echo(rig: &Rig, name: &str) {
    let listener = rig.inside(name, || TcpListener::bind("0.0.0.0:9000").unwrap());
    let listener = listener.join().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut to = stream.try_clone().unwrap();
                // Ends with its connection.
                let _ = std::io::copy(&mut &stream, &mut to);
            });
        }
    });
}

/// Answers datagrams on port 9001 of a container with its name, from this process.
fn tell(rig: &Rig, name: &'static str) {
    let socket = rig.inside(name, || UdpSocket::bind("0.0.0.0:9001").unwrap());
    let socket = socket.join().unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// What clients met.
#[derive(Debug, Default)]
struct Met {
    first: usize,
    second: usize,
    failures: Vec<String>,
    slowest: Duration,
}

/// One new connection after the other, until told to end.
fn load(rig: &Rig, end: &Arc<AtomicBool>) -> std::thread::JoinHandle<Met> {
    let end = Arc::clone(end);
    rig.inside("client", move || {
        let mut met = Met::default();
        while !end.load(Ordering::Relaxed) {
            let before = Instant::now();
            match get(WEB).as_deref() {
                Ok("first") => met.first += 1,
                Ok("second") => met.second += 1,
                other => met
                    .failures
                    .push(format!("{other:?} after {:?}", before.elapsed())),
            }
            met.slowest = met.slowest.max(before.elapsed());
        }
        met
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_changes_under_load_lose_no_new_connection() {
    let Bench {
        rig, control, node, ..
    } = two_replicas().await;
    let end = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..CLIENTS).map(|_| load(&rig, &end)).collect();
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let to = [SECOND, FIRST][change % 2];
        let before = Instant::now();
        control.publish(&rows(to)).await;
        times.push(before.elapsed());
        // From the acknowledgement on, every new connection goes to the new one.
        let name = if to == FIRST { "first" } else { "second" };
        for _ in 0..5 {
            assert_eq!(rig.get("client", &WEB.to_string()).as_deref(), Some(name));
        }
    }
    end.store(true, Ordering::Relaxed);
    let mets: Vec<Met> = loads.into_iter().map(|load| load.join().unwrap()).collect();
    let sum = |part: fn(&Met) -> usize| mets.iter().map(part).sum::<usize>();
    times.sort();
    println!(
        "{CHANGES} changes: {} connections to the first, {} to the second, slowest {:?}; a change took {:?} (median), {:?} (longest)",
        sum(|met| met.first),
        sum(|met| met.second),
        mets.iter().map(|met| met.slowest).max().unwrap(),
        times[CHANGES / 2],
        times[CHANGES - 1],
    );
    for met in &mets {
        assert!(met.failures.is_empty(), "{:?}", met.failures);
        assert!(met.first > 20 && met.second > 20, "{met:?}");
    }
    assert!(control.troubles().is_empty(), "{:?}", control.troubles());
    drop(node);
}

/// A connection that says and hears a line at a time.
struct Held(TcpStream);

impl Held {
    fn open() -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&ECHO.into(), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(Self(stream))
    }

    fn echo(&mut self, text: &str) -> std::io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        let mut heard = vec![0; text.len()];
        self.0.read_exact(&mut heard)?;
        assert_eq!(heard, text.as_bytes());
        Ok(())
    }
}

fn open_to(control: &Control, version: ferrovia_core::table::Version, address: Ipv4Addr) -> Option<u32> {
    let found = control.in_flight(version)?;
    Some(found.get(&replica(address, 1).replica_id).copied().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_keeps_its_replica_until_it_closes_or_the_drain_ends() {
    let Bench {
        rig,
        control,
        mut node,
        ..
    } = two_replicas().await;
    let inside = |action: Box<dyn FnOnce() -> std::io::Result<Held> + Send>| {
        rig.inside("client", action).join().unwrap()
    };
    let mut closes = inside(Box::new(Held::open)).unwrap();
    closes.echo("before").unwrap();
    let mut stays = inside(Box::new(Held::open)).unwrap();
    stays.echo("before").unwrap();
    let version = control.publish(&rows(SECOND)).await;
    wait_for("both are counted", SOON, async || {
        (open_to(&control, version, FIRST) == Some(2)).then_some(())
    })
    .await;
    closes.echo("while it drains").unwrap();
    assert_eq!(rig.get("client", &WEB.to_string()).as_deref(), Some("second"));
    // A node that dies meanwhile changes nothing for either, and counts again.
    node.kill();
    closes.echo("without a node").unwrap();
    assert_eq!(rig.get("client", &WEB.to_string()).as_deref(), Some("second"));
    node.restart();
    let version = control.publish(&rows(SECOND)).await;
    drop(closes);
    wait_for("one is left", SOON, async || {
        (open_to(&control, version, FIRST) == Some(1)).then_some(())
    })
    .await;
    stays.echo("until the end").unwrap();
    // The drain ends: control stops the replica and takes its address out of the table.
    rig.docker("stop", "first", &["-t", "0"]);
    let mut rows = rows(SECOND);
    rows.retain(|row| !matches!(row, NodeRow::Member(member) if member.address == FIRST));
    let version = control.publish(&rows).await;
    assert!(stays.echo("after it").is_err());
    wait_for("none is counted", SOON, async || {
        (open_to(&control, version, FIRST) == Some(0)).then_some(())
    })
    .await;
}

/// A datagram's "connection" has no end: what was led to an address that left the table must not be led there again.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_follow_the_service() {
    let Bench {
        rig,
        control,
        node: _node,
    } = two_replicas().await;
    let socket = rig
        .inside("client", || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.connect((SERVICE, 9001))?;
            std::io::Result::Ok(socket)
        })
        .join()
        .unwrap()
        .unwrap();
    let answered = |wanted: &str| {
        // What the kernel says of an earlier datagram comes with the next call.
        let _ = socket.send(b"who\n");
        let mut answer = [0; 64];
        match socket.recv(&mut answer) {
            Ok(length) => (answer[..length] == *wanted.as_bytes()).then_some(()),
            Err(_) => None,
        }
    };
    wait_for("the first answers", SOON, async || answered("first")).await;
    let mut without = rows(SECOND);
    without.retain(|row| !matches!(row, NodeRow::Member(member) if member.address == FIRST));
    control.publish(&without).await;
    wait_for("the second answers", SOON, async || answered("second")).await;
}
