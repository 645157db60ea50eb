//! Names as replicas and steps of builds resolve them, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ferrovia_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::bench::{Bench, bench};
use crate::node::{member, service};
use crate::rig::{Rig, SOON};

const A: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 21);
const B: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 22);
const UNKNOWN: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 23);
const BUILD: Ipv4Addr = Ipv4Addr::new(10, 226, 0, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 1);
const BUILD_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 226, 0, 1);
const DB: Ipv4Addr = Ipv4Addr::new(10, 225, 0, 31);
const CACHE: Ipv4Addr = Ipv4Addr::new(10, 225, 0, 32);
/// What the host's resolver says to every question.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Udp,
    Tcp,
}

/// What is answered: a code (3 is "no such name", 5 "refused") or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Address(Ipv4Addr),
    Code(u8),
    Nothing,
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn read(answer: &[u8]) -> Answer {
    assert_eq!(answer[..2], [0x12, 0x34]);
    match (answer[3] & 15, answer[7]) {
        (0, 1) => {
            let (_, address) = answer.split_last_chunk::<4>().unwrap();
            Answer::Address((*address).into())
        }
        (code, _) => Answer::Code(code),
    }
}

fn ask_once(by: By, server: Ipv4Addr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let server = SocketAddr::from((server, 53));
    match by {
        By::Udp => {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.connect(server)?;
            socket.send(question)?;
            let mut answer = vec![0; 512];
            let length = socket.recv(&mut answer)?;
            answer.truncate(length);
            Ok(answer)
        }
        By::Tcp => {
            let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.write_all(&(question.len() as u16).to_be_bytes())?;
            stream.write_all(question)?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        }
    }
}

fn ask(rig: &Rig, from: &str, by: By, server: Ipv4Addr, name: &str) -> Answer {
    let question = question(name);
    let answer = rig.inside(from, move || ask_once(by, server, &question));
    match answer.join().unwrap() {
        Ok(answer) => read(&answer),
        Err(_) => Answer::Nothing,
    }
}

/// The host's resolver: the question with the answer bit and one address, whatever it asks.
async fn resolver() {
    let answer = |question: &[u8]| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
        answer.extend(ELSEWHERE.octets());
        answer
    };
    let datagrams = UdpSocket::bind("127.0.53.53:53").await.unwrap();
    let listener = TcpListener::bind("127.0.53.53:53").await.unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut question).await {
            let _ = datagrams.send_to(&answer(&question[..length]), from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            let answer = answer(&question);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_told_inside_the_environment_only_over_udp_and_tcp() {
    let rows = [
        member(A, 1),
        member(B, 2),
        service("db", DB, 1, &[A]),
        service("cache", CACHE, 2, &[B]),
    ];
    resolver().await;
    let Bench {
        rig,
        mut node,
        control,
        ..
    } = bench(&rows).await;
    rig.build_network();
    rig.run("a", A, &[], "sleep 600");
    rig.run("b", B, &[], "sleep 600");
    rig.run("unknown", UNKNOWN, &[], "sleep 600");
    rig.run("build", BUILD, &[], "sleep 600");
    for (from, gateway) in [("a", GATEWAY), ("build", BUILD_GATEWAY)] {
        wait_for("names are served", SOON, async || {
            (ask(&rig, from, By::Tcp, gateway, "example.com") == Answer::Address(ELSEWHERE)).then_some(())
        })
        .await;
    }
    let check = || {
        for by in [By::Udp, By::Tcp] {
            let ask = |from: &str, name: &str| ask(&rig, from, by, GATEWAY, name);
            for name in [
                "db",
                "db.ferrovia.internal",
                "db.railway.internal",
                "DB.Ferrovia.internal",
            ] {
                assert_eq!(ask("a", name), Answer::Address(DB), "{by:?} {name}");
                assert_eq!(ask("b", name), Answer::Code(3), "{by:?} {name}");
            }
            assert_eq!(ask("b", "cache"), Answer::Address(CACHE), "{by:?}");
            assert_eq!(ask("a", "21.0.224.10.in-addr.arpa"), Answer::Code(3), "{by:?}");
            assert_eq!(ask("a", "example.com"), Answer::Address(ELSEWHERE), "{by:?}");
            assert_eq!(
                ask("unknown", "example.com"),
                Answer::Nothing,
                "{by:?}: the firewall closes it"
            );
        }
    };
    check();
    for by in [By::Udp, By::Tcp] {
        let ask = |server, name| ask(&rig, "build", by, server, name);
        assert_eq!(ask(BUILD_GATEWAY, "example.com"), Answer::Address(ELSEWHERE));
        assert_eq!(ask(BUILD_GATEWAY, "db"), Answer::Code(3));
        assert_eq!(ask(GATEWAY, "example.com"), Answer::Nothing, "not its gateway");
    }
    // Control is dead, and so was the node: names come from the last good table.
    drop(control);
    node.kill();
    node.restart();
    wait_for("names are served again", SOON, async || {
        (ask(&rig, "a", By::Tcp, GATEWAY, "db") == Answer::Address(DB)).then_some(())
    })
    .await;
    check();
}
