//! Software with entry points like those of the official images starts under the default profile, and answers at its
//! static address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ferrovia_core::workload::ReplicaStatus;
use ferrovia_engine::Engine;
use ferrovia_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::docker_lab::{Lab, docker};

const SOON: Duration = Duration::from_secs(60);

/// Sends bytes and reads the beginning of the answer.
async fn exchange(address: Ipv4Addr, port: u16, question: &[u8]) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::from((address, port))).await?;
        stream.write_all(question).await?;
        let mut answer = vec![0; 64];
        let read = stream.read(&mut answer).await?;
        answer.truncate(read);
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(2), exchange)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Starts an entry point, waits for its answer, and tells under which users its processes run.
async fn start(entry: &str, port: u16, question: &[u8], answer: &[u8]) -> Vec<String> {
    let lab = Lab::new().await;
    let mut workload = lab.workload(entry);
    workload.command = Some(vec![format!("/entry/{entry}")]);
    let replica = lab.engine.apply(&workload).await.unwrap().remove(0);
    let handle = replica.handle.as_str();
    let asked = async || {
        let found = lab.engine.find(handle).await.unwrap().unwrap();
        let logs = || docker(&["logs", "--tail", "20", handle]);
        assert_eq!(found.status, ReplicaStatus::Running, "{}", logs());
        exchange(replica.address.unwrap(), port, question)
            .await
            .ok()
            .filter(|got| got.starts_with(answer))
    };
    wait_for(entry, SOON, asked).await;
    let users = docker(&["top", handle, "-eo", "pid,user:20,comm"]);
    lab.engine.stop(handle, 10_000).await.unwrap();
    let processes = users.lines().skip(1);
    let users: Vec<String> = processes
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(users.len() >= 2, "{users:?}");
    users
}

#[tokio::test]
async fn nginx() {
    let users = start("nginx", 80, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK").await;
    assert!(
        users.iter().any(|user| user.starts_with("root ")),
        "the master keeps port 80: {users:?}"
    );
    assert!(
        users
            .iter()
            .any(|user| !user.starts_with("root ") && user.ends_with(" nginx")),
        "{users:?}"
    );
}

#[tokio::test]
async fn postgres() {
    let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
    let users = start("postgres", 5432, &ssl_request, b"N").await;
    assert!(
        users
            .iter()
            .all(|user| user.ends_with("docker-init") || !user.starts_with("root ")),
        "{users:?}"
    );
}

#[tokio::test]
async fn redis() {
    let users = start("redis", 6379, b"PING\r\n", b"+PONG").await;
    assert!(
        users
            .iter()
            .all(|user| user.ends_with("docker-init") || !user.starts_with("root ")),
        "{users:?}"
    );
}
