//! A Docker Engine that ends and begins again, killed too: one of the test's own, since the machine's is shared.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrovia_core::table::NodeRow;
use ferrovia_log::Query;
use ferrovia_testkit::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, bench_at};
use crate::command::{must, run};
use crate::node::{member, replica, service};
use crate::place::Place;
use crate::rig::{Rig, SOON, get};

/// Longest start of a Docker Engine: one that was killed leaves a containerd, whose end the next waits for.
const ANSWERS: Duration = Duration::from_secs(120);

/// A web server that also writes numbered lines.
const SERVE: &str = "mkdir -p /www; hostname > /www/index.html; httpd -p 8080 -h /www; n=0; while true; do n=$((n+1)); echo $n; usleep 5000; done";

/// A Docker Engine beside the machine's: it touches neither its bridge nor its rules.
struct Dockerd {
    directory: tempfile::TempDir,
    process: Child,
}

impl Dockerd {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("fm").tempdir().unwrap();
        // One without a bridge takes that of the machine's engine away.
        must("ip", &["link", "add", "fmd0", "type", "bridge"]);
        must("ip", &["address", "add", "10.248.0.1/24", "dev", "fmd0"]);
        let process = spawn(directory.path().to_owned());
        let mut dockerd = Self { directory, process };
        dockerd.wait_until_it_answers();
        for direction in ["-i", "-o"] {
            // The machine's own Docker lets nothing through that is not its own.
            must("iptables", &["-I", "FORWARD", direction, "fm0", "-j", "ACCEPT"]);
        }
        dockerd
    }

    fn place(&self) -> Place {
        Place {
            socket: self.directory.path().join("d.sock"),
            prefix: "fm".to_owned(),
            octet: 227,
        }
    }

    /// One that gives up on the containerd of one that was killed is started again, as an init system does.
    fn wait_until_it_answers(&mut self) {
        let until = Instant::now() + ANSWERS;
        while !self.place().docker(&["version"]).status.success() {
            if self.process.try_wait().unwrap().is_some() {
                self.process = spawn(self.directory.path().to_owned());
            }
            if Instant::now() > until {
                let log = std::fs::read_to_string(self.directory.path().join("log"));
                panic!("dockerd does not answer\n{}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = spawn(self.directory.path().to_owned());
        self.wait_until_it_answers();
    }
}

fn spawn(directory: PathBuf) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    let log = File::options()
        .create(true)
        .append(true)
        .open(path("log"))
        .unwrap();
    // One that was killed leaves it behind.
    let _ = std::fs::remove_file(path("pid"));
    Command::new("dockerd")
        .args([
            "--live-restore",
            "--bridge=fmd0",
            "--iptables=false",
            "--ip6tables=false",
        ])
        .args(["--ip-forward=false", "--ip-masq=false"])
        .args(["--host", &format!("unix://{}", path("d.sock"))])
        .args([
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("x"),
            "--pidfile",
            &path("pid"),
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        for direction in ["-i", "-o"] {
            run("iptables", &["-D", "FORWARD", direction, "fm0", "-j", "ACCEPT"]);
        }
        // Also what a killed one left behind: the next stops its containerd.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
        run("ip", &["link", "del", "fm0"]);
        run("ip", &["link", "del", "fmd0"]);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.directory.path().display().to_string();
        for line in mounts.lines().rev() {
            if let Some(mount) = line.split(' ').nth(1).filter(|mount| mount.starts_with(&ours)) {
                run("umount", &["-l", mount]);
            }
        }
    }
}

fn load(
    rig: &Rig,
    target: SocketAddrV4,
    end: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<(u32, Vec<String>)> {
    let end = Arc::clone(end);
    rig.inside("client", move || {
        let (mut good, mut failures) = (0, Vec::new());
        while !end.load(Ordering::Relaxed) {
            match get(target).as_deref() {
                Ok("web") => good += 1,
                other => failures.push(format!("{other:?}")),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (good, failures)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_engine_hurts_nothing() {
    let mut dockerd = Dockerd::start();
    let place = dockerd.place();
    let (client, web, other) = (place.member(11), place.member(12), place.member(13));
    let address = place.service(11);
    let rows: Vec<NodeRow> = vec![
        member(client, 1),
        member(web, 1),
        member(other, 2),
        service("web", address, 1, &[web]),
    ];
    let Bench {
        rig,
        node,
        control: _control,
        ..
    } = bench_at(place.clone(), &rows).await;
    let member = replica(web, 1);
    rig.create_replica("web", &member, SERVE, "unless-stopped");
    rig.start("web");
    rig.run("client", client, &[], "sleep 6000");
    rig.serve("other", other);
    let target = SocketAddrV4::new(address, 8080);
    wait_for("it answers", SOON, async || {
        rig.get("client", &target.to_string())
    })
    .await;
    let mut before = node
        .see("healthy", member.replica_id, |seen| seen.health.is_healthy())
        .await;
    let process = rig.inspect("client", "{{.State.Pid}}");
    for signal in [Signal::TERM, Signal::KILL] {
        let end = Arc::new(AtomicBool::new(false));
        let load = load(&rig, target, &end);
        let inside = |script: &str| run("nsenter", &["-t", &process, "-n", "sh", "-c", script]);
        let went = Instant::now();
        dockerd.end(signal);
        // Names and the firewall, with the engine away.
        let name = format!("busybox nslookup -type=a web {}", place.gateway());
        let told = String::from_utf8(inside(&name).stdout).unwrap();
        assert!(told.contains(&address.to_string()), "{told}");
        must("nft", &["flush", "set", "ip", &place.table(), "members"]);
        wait_for("the rules are back", SOON, async || {
            let listed = must("nft", &["list", "set", "ip", &place.table(), "members"]);
            listed.contains(&web.to_string()).then_some(())
        })
        .await;
        assert!(
            !inside(&format!("timeout 2 busybox nc {other} 8080 </dev/null"))
                .status
                .success()
        );
        dockerd.restart();
        println!("the engine was away for {:?} after {signal:?}", went.elapsed());
        end.store(true, Ordering::Relaxed);
        let (good, failures) = load.join().unwrap();
        // One new connection is tried for 2 s: those of the moment without rules are sent again.
        assert!(failures.is_empty() && good > 20, "{good} good, {failures:?}");
        // Restarts go on, and are seen.
        rig.exec("web", "kill -9 -1");
        before = node
            .see("it runs again", member.replica_id, |seen| {
                seen.started_at_ms > before.started_at_ms && seen.health.is_healthy()
            })
            .await;
    }
    // What ends while the engine is away is started when it is back.
    let pid = rig.inspect("web", "{{.State.Pid}}");
    dockerd.end(Signal::TERM);
    must("kill", &["-9", &pid]);
    dockerd.restart();
    node.see("it runs again", member.replica_id, |seen| {
        seen.started_at_ms > before.started_at_ms && seen.health.is_healthy()
    })
    .await;
    rig.docker("stop", "web", &["-t", "1"]);
    node.see("its log is read", member.replica_id, |seen| seen.log_drained)
        .await;
    let lines = node
        .log(member.instance_id)
        .read(&Query {
            limit: usize::MAX,
            ..Query::default()
        })
        .unwrap();
    let numbers: Vec<u64> = lines.iter().map(|line| line.text.parse().unwrap()).collect();
    let runs: Vec<&[u64]> = numbers.chunk_by(|a, b| a < b).collect();
    println!(
        "{} lines in {} runs: {:?}",
        numbers.len(),
        runs.len(),
        runs.iter().map(|run| run.len()).collect::<Vec<_>>()
    );
    assert_eq!(runs.len(), 4, "no line twice");
    for run in runs {
        assert!(
            run.iter().copied().eq(1..=run.len() as u64),
            "none is missing: {run:?}"
        );
    }
}
