//! The edge beside nginx as a proxy, in turns: `cargo bench -p ferrovia-edge`. Needs `nginx`, `wrk` and `taskset`.
//!
//! Each proxy has one thread and core 0; the server behind it (an nginx that answers out of its configuration) and the
//! clients share core 1. Absolute numbers say more about the machine than about the proxies; the ratios are the
//! result.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark may fail by panicking"
)]

#[path = "../tests/it/control.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod control;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ferrovia_edge::{Options, command, listeners};
use ferrovia_table::Peers;

use control::{Control, to};

const HOST: &str = "bench.localhost";
const ROUNDS: usize = 7;
const SECONDS: u32 = 4;
const CONNECTIONS: u32 = 32;

/// Waits until `what` holds; fails after fifteen seconds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A child that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, directory, address] = arguments.as_slice()
        && mode == "edge"
    {
        return edge(Path::new(directory), address.parse().unwrap());
    }
    tokio::runtime::Runtime::new().unwrap().block_on(compare());
}

/// The process that is measured.
fn edge(directory: &Path, address: SocketAddr) {
    let listeners = listeners::bind_all(address, 1).unwrap();
    let table = directory.join("table");
    let mut options = Options::new(directory.to_owned(), table, listeners, Peers::same_user());
    options.workers = 1;
    ferrovia_edge::run(options).unwrap();
}

fn on_core(core: u32, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &core.to_string(), program])
        .stdin(Stdio::null());
    command
}

/// An nginx of one process with this `http` block.
fn nginx(directory: &Path, name: &str, core: u32, http: &str) -> Process {
    let configuration = directory.join(format!("{name}.conf"));
    let prefix = directory.display();
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {prefix}/{name}.pid; error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {prefix}/{name}-body; proxy_temp_path {prefix}/{name}-proxy;\n\
         fastcgi_temp_path {prefix}/{name}-f; uwsgi_temp_path {prefix}/{name}-u; scgi_temp_path {prefix}/{name}-s;\n\
         keepalive_requests 10000; {http} }}\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let child = on_core(core, "nginx").arg("-c").arg(&configuration).spawn();
    Process(child.expect("`taskset` and `nginx` are needed"))
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn answers(address: SocketAddr) {
    eventually("a server answers", async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
}

async fn compare() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (app, peer, ours) = (free_address(), free_address(), free_address());
    let body = "return 200 'hello, this is a small body\\n';";
    let _app = nginx(
        path,
        "app",
        1,
        &format!("server {{ listen {app}; keepalive_requests 100000000; location / {{ {body} }} }}"),
    );
    let peer_process = nginx(
        path,
        "peer",
        0,
        &format!(
            "upstream app {{ server {app}; keepalive 128; keepalive_requests 100000000; }}\n\
             server {{ listen {peer}; server_name {HOST}; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;\n\
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-Id $request_id;\n\
             add_header X-Request-Id $request_id; }} }}"
        ),
    );
    let control = Control::start(path);
    let this = std::env::current_exe().unwrap();
    let mut command = on_core(0, this.to_str().unwrap());
    // A group of its own: an interrupted run ends it by its drop and not twice.
    command
        .arg("edge")
        .arg(path)
        .arg(ours.to_string())
        .process_group(0);
    let edge_process = Process(command.spawn().unwrap());
    for address in [app, peer, ours] {
        answers(address).await;
    }
    control.publish(vec![to(HOST, &[(1, app)])]).await;

    let fresh = (pss_kb(&edge_process), pss_kb(&peer_process));
    let mut results = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (place, (address, process)) in [(ours, &edge_process), (peer, &peer_process)]
            .into_iter()
            .enumerate()
        {
            let seconds = if round == 0 { 1 } else { SECONDS };
            let before = cpu_seconds(process);
            let (requests, per_second, p99) = wrk(address, seconds).await;
            let result = Measured {
                per_second,
                p99,
                cpu: (cpu_seconds(process) - before) * 1e6 / requests,
            };
            // The first round warms everything up.
            if round > 0 {
                results[place].push(result);
            }
        }
    }
    let used = (pss_kb(&edge_process), pss_kb(&peer_process));
    report(&results, fresh, used);
    let _ = tokio::task::spawn_blocking({
        let socket = path.join("edge.sock");
        move || command::drain(&socket, 0, 0)
    })
    .await;
}

/// One proxy in one round.
struct Measured {
    per_second: f64,
    /// The 99th percentile of latency, in microseconds.
    p99: f64,
    /// Time on a core per request, in microseconds: what else the machine does hardly changes it.
    cpu: f64,
}

/// Requests, requests per second, and the 99th percentile of latency in microseconds.
async fn wrk(address: SocketAddr, seconds: u32) -> (f64, f64, f64) {
    let output = tokio::task::spawn_blocking(move || {
        on_core(1, "wrk")
            .args([
                "-t1",
                "--latency",
                &format!("-c{CONNECTIONS}"),
                &format!("-d{seconds}s"),
            ])
            .args(["-H", &format!("Host: {HOST}"), &format!("http://{address}/")])
            .output()
            .expect("`wrk` is needed")
    });
    let text = String::from_utf8(output.await.unwrap().stdout).unwrap();
    assert!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("no `{label}` in {text}")).trim()
    };
    let requests = text.lines().find_map(|line| line.split_once(" requests in "));
    (
        requests.unwrap().0.trim().parse().unwrap(),
        after("Requests/sec:").parse().unwrap(),
        microseconds(after("99%")),
    )
}

fn microseconds(text: &str) -> f64 {
    let at = text.find(|c: char| c.is_alphabetic()).unwrap();
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().unwrap();
    match unit {
        "us" => number,
        "ms" => number * 1e3,
        _ => number * 1e6,
    }
}

/// Time that a process has been on a core, in seconds.
fn cpu_seconds(process: &Process) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    // Fields 14 and 15 of proc(5), in hundredths.
    (ticks(11) + ticks(12)) / 100.0
}

/// The proportional share of memory of a process, in kB.
fn pss_kb(process: &Process) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.0.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(results: &[Vec<Measured>; 2], fresh: (f64, f64), used: (f64, f64)) {
    let mut table = String::new();
    let mut line = |what: &str, edge: f64, nginx: f64, ratio: f64| {
        writeln!(table, "{what:<36}{edge:>12.1}{nginx:>12.1}{ratio:>10.2}").unwrap();
    };
    let [ours, peer] = results;
    for (what, of) in [
        ("requests/s", (|m| m.per_second) as fn(&Measured) -> f64),
        ("p99, microseconds", |m| m.p99),
        ("microseconds on a core per request", |m| m.cpu),
    ] {
        // Ratios of neighbours in time: what disturbs one disturbs the other.
        let ratio = median(ours.iter().zip(peer).map(|(a, b)| of(a) / of(b)));
        line(
            what,
            median(ours.iter().map(of)),
            median(peer.iter().map(of)),
            ratio,
        );
    }
    line(
        "memory before any request, kB PSS",
        fresh.0,
        fresh.1,
        fresh.0 / fresh.1,
    );
    line("memory after the load, kB PSS", used.0, used.1, used.0 / used.1);
    print!("{:<36}{:>12}{:>12}{:>10}\n{table}", "", "edge", "nginx", "ratio");
}
