//! The fake engine over its socket: the contract, replicas that answer, state that outlives clients, faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferrovia_core::workload::{ImageReference, Observed, ReplicaStatus, Workload};
use ferrovia_engine::fake::{
    Call, FakeEngine, Fault, Options, Rule, Script, ServeOptions, When, address_plan, serve,
};
use ferrovia_engine::{Engine, Error, Scope};
use ferrovia_testkit::wait_for;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::contract::{Subject, clear, holds};
use crate::workload;

const SOON: Duration = Duration::from_secs(10);
static BLOCK: AtomicU32 = AtomicU32::new(0);

/// A fake engine in a task of its own.
struct Process {
    engine: FakeEngine,
    directory: TempDir,
    block: u8,
    addresses: AtomicU32,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Process {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("fake.sock");
        let options = ServeOptions {
            socket: socket.clone(),
            logs: Some(directory.path().join("logs")),
            engine: Options::default(),
        };
        let (shutdown, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            serve(options, async { _ = ended.await }).await.unwrap();
        });
        wait_for("the socket", SOON, async || socket.exists().then_some(())).await;
        // Test processes run at the same time on one host.
        let block = (std::process::id() * 7 + BLOCK.fetch_add(1, Ordering::Relaxed)) % 250 + 1;
        let engine = FakeEngine::new(&socket);
        let shutdown = Some(shutdown);
        Self {
            engine,
            directory,
            block: block as u8,
            addresses: AtomicU32::new(0),
            shutdown,
            task,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("fake.sock")
    }

    fn workload(&self, service: &str, variables: &[(&str, &str)]) -> Workload {
        let mut workload = workload::workload(workload::owner(service, 7), self.image());
        workload.variables = workload::variables(variables);
        workload.replicas = vec![workload::slot(1, self.address())];
        workload
    }

    async fn run(&self, workload: &Workload) -> Observed {
        self.engine
            .ensure_image(&workload.image, &workload::login())
            .await
            .unwrap();
        self.engine.apply(workload).await.unwrap().remove(0)
    }
}

impl Subject for Process {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self) -> ImageReference {
        ImageReference {
            repository: "127.0.0.1:7071/apps/web".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
        }
    }

    fn command(&self) -> Option<Vec<String>> {
        None
    }

    fn address(&self) -> Ipv4Addr {
        let plan = address_plan(self.block);
        let first = u32::from(plan.members.network()) + 2;
        Ipv4Addr::from(first + self.addresses.fetch_add(1, Ordering::Relaxed))
    }
}

/// Status and body of a request; `None` when nobody listens.
async fn get(address: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(SocketAddr::from((address, port))).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: fake\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

async fn answered(address: Ipv4Addr, port: u16, path: &str) -> (u16, String) {
    wait_for(path, SOON, async || get(address, port, path).await).await
}

#[tokio::test]
async fn keeps_the_contract() {
    holds(&Process::new().await).await;
}

#[tokio::test]
async fn replicas_answer_at_their_addresses_while_they_run() {
    let process = Process::new().await;
    let workload = process.workload(
        "web",
        &[("PORT", "3000"), ("A", "$x\n"), ("FAKE_HEALTH_STATUS", "503")],
    );
    let replica = process.run(&workload).await;
    let address = replica.address.unwrap();
    let (status, body) = answered(address, 3000, "/").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["number"], &body["name"]),
        (200, &7.into(), &replica.name.as_str().into())
    );
    assert_eq!(answered(address, 3000, "/healthz").await.0, 503);
    let environment: Value = serde_json::from_str(&answered(address, 3000, "/__fake/env").await.1).unwrap();
    assert_eq!(
        (&environment["A"], &environment["FERROVIA_REPLICA_ID"]),
        (&"$x\n".into(), &replica.name.into())
    );
    let stream = answered(address, 3000, "/__fake/stream?chunks=3&bytes=5&interval_ms=1")
        .await
        .1;
    assert_eq!(stream.matches("5\r\nxxxxx\r\n").count(), 3, "{stream}");
    answered(address, 3000, "/__fake/log?lines=3&text=hello").await;
    let log = process.engine.log_file(&replica.handle).await.unwrap().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("{\"log\":\"hello 3\\n\",\"stream\":\"stdout\",\"time\":\"20"),
        "{text}"
    );
    process.engine.stop(&replica.handle, 0).await.unwrap();
    assert_eq!(get(address, 3000, "/").await, None);
    process.engine.start(&replica.handle).await.unwrap();
    answered(address, 3000, "/__fake/exit?code=9").await;
    let exited = async || {
        let found = process.engine.find(&replica.handle).await.unwrap()?;
        matches!(found.status, ReplicaStatus::Exited(exit) if exit.code == 9).then_some(())
    };
    wait_for("the exit", SOON, exited).await;
    process.engine.remove(&replica.handle).await.unwrap();
    assert!(!log.exists());
}

#[tokio::test]
async fn uploads_are_counted_and_websockets_echo_until_the_replica_ends() {
    let process = Process::new().await;
    let replica = process.run(&process.workload("web", &[])).await;
    let address = SocketAddr::from((replica.address.unwrap(), 8080));
    let mut stream = wait_for("it listens", SOON, async || {
        TcpStream::connect(address).await.ok()
    })
    .await;
    let head = "POST /__fake/upload HTTP/1.1\r\nHost: fake\r\nContent-Length: 300000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 300_000]).await.unwrap();
    let mut answer = vec![0; 1000];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).ends_with("{\"bytes\":300000}"));
    let upgrade = "GET /__fake/ws HTTP/1.1\r\nHost: fake\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let read = stream.read(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer[..read]).to_lowercase();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    stream
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await
        .unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, &[0x81, 2, b'h', b'i']);
    process.engine.stop(&replica.handle, 0).await.unwrap();
    assert_eq!(
        stream.read(&mut answer).await.unwrap_or(0),
        0,
        "it ends with its replica"
    );
}

#[tokio::test]
async fn what_does_not_listen_is_not_reached() {
    let process = Process::new().await;
    for listen in ["none", "loopback"] {
        let replica = process
            .run(&process.workload(listen, &[("FAKE_LISTEN", listen)]))
            .await;
        let log = process.engine.log_file(&replica.handle).await.unwrap().unwrap();
        let said = async || {
            std::fs::read_to_string(&log)
                .ok()
                .filter(|text| text.contains("listens"))
        };
        wait_for("it says where it listens", SOON, said).await;
        assert_eq!(get(replica.address.unwrap(), 8080, "/").await, None);
    }
    let replica = process
        .run(&process.workload("other", &[("FAKE_LISTEN", "9090"), ("PORT", "80")]))
        .await;
    assert_eq!(answered(replica.address.unwrap(), 9090, "/").await.0, 200);
    let mut elsewhere = process.workload("elsewhere", &[]);
    elsewhere.replicas[0].address = Some(Ipv4Addr::new(10, 210, 0, 5));
    assert!(matches!(
        process.engine.apply(&elsewhere).await,
        Err(Error::Refused { call: "create", .. })
    ));
}

#[tokio::test]
async fn state_outlives_its_clients_and_a_second_server_is_refused() {
    let process = Process::new().await;
    let replica = process.run(&process.workload("web", &[])).await;
    let other = FakeEngine::new(&process.socket());
    assert_eq!(other.observe(Scope::All).await.unwrap(), [replica]);
    let again = ServeOptions {
        socket: process.socket(),
        logs: None,
        engine: Options::default(),
    };
    assert!(serve(again, std::future::pending()).await.is_err());
}

#[tokio::test]
async fn a_killed_caller_s_call_waits_for_its_successor() {
    let process = Process::new().await;
    let workload = process.workload("web", &[]);
    process
        .engine
        .ensure_image(&workload.image, &workload::login())
        .await
        .unwrap();
    let rules = vec![Rule {
        call: Some(Call::Create),
        when: When::Nth(0),
        fault: Fault::KillAfter,
    }];
    process
        .engine
        .set_script(Script {
            rules,
            ..Script::default()
        })
        .await
        .unwrap();
    let (engine, doomed) = (process.engine.clone(), workload.clone());
    let call = tokio::spawn(async move { engine.apply(&doomed).await });
    process.engine.killed().await.unwrap();
    assert!(!call.is_finished());
    process.engine.revive().await.unwrap();
    assert!(call.await.unwrap().is_err());
    assert_eq!(process.engine.steps(Some(Call::Create)).await.unwrap(), 1);
    let replicas = process.engine.observe(Scope::All).await.unwrap();
    assert_eq!(replicas[0].status, ReplicaStatus::Created);
    clear(&process.engine, &replicas).await;
}

#[tokio::test]
async fn everything_ends_with_the_process() {
    let mut process = Process::new().await;
    let replica = process.run(&process.workload("web", &[])).await;
    let address = replica.address.unwrap();
    answered(address, 8080, "/").await;
    process.shutdown.take().unwrap().send(()).unwrap();
    (&mut process.task).await.unwrap();
    assert_eq!(get(address, 8080, "/").await, None);
    assert!(!process.socket().exists());
    assert!(matches!(
        process.engine.observe(Scope::All).await,
        Err(Error::Unavailable(_) | Error::Unknown { .. })
    ));
}
