//! Every process of the platform is killed in the middle of deployments: they end right, nothing is left over, and
//! what is served goes on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ferrovia_tests::Failure;
use ferrovia_tests::app::App;
use ferrovia_tests::dockerd::Dockerd;
use ferrovia_tests::http;
use ferrovia_tests::installation::{Kind, lives};
use ferrovia_tests::load::Load;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::rules;
use ferrovia_tests::wait::wait_for;
use rustix::process::Signal;
use serde_json::Value;

/// Moments after the start of a deployment at which a process is killed, in milliseconds: upload, build, start,
/// tables, drain.
const KILL_AFTER_MS: [u64; 5] = [150, 600, 1_200, 2_000, 3_000];
/// Drain of the target, in milliseconds.
const DRAIN_MS: u32 = 2_000;
/// Longest time until a second start is ready; a test fails at three times it.
const SECOND_START: Duration = Duration::from_secs(5);
/// Longest time until everything of a fault is mended, in seconds.
const MENDED_S: u64 = 90;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_deployment() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("target").unwrap();
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &[]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");
    platform
        .settings("target", "target", &serde_json::json!({ "drain_ms": DRAIN_MS }))
        .await
        .unwrap();
    let host = Platform::host(&first).unwrap();

    let mut number = 1;
    for victim in ["control", "node", "postgres", "serve", "edge"] {
        let load = Load::start(platform.http, &host);
        let mut kills = Vec::new();
        for after in KILL_AFTER_MS {
            number += 1;
            let version = format!("v{number}");
            app.version(&version, "works").unwrap();
            let started = platform.json(app.path(), &["up", "--detach"]).unwrap();
            println!(
                "{victim} is killed {after} ms after {version} was accepted ({})",
                started["deployment_id"]
            );
            // The moment of the kill is the case under test, not a wait for something.
            tokio::time::sleep(Duration::from_millis(after)).await;
            kills.push(Instant::now());
            kill(&mut platform, victim).await;
            serves(&platform, &host, &version).await;
            let id = started["deployment_id"].as_str().unwrap();
            wait_for("the deployment's end", Duration::from_secs(MENDED_S), || async {
                let deployment = deployment(&platform, id)
                    .await
                    .map_err(|error| error.to_string())?;
                if deployment["finished_at"].is_null() {
                    return Err(deployment.to_string());
                }
                assert_eq!(deployment["outcome"], "succeeded", "{victim}: {deployment}");
                Ok(())
            })
            .await
            .unwrap_or_else(|error| panic!("{victim}: {error}\n{}", platform.logs()));
            wait_for(
                "one replica, and nothing left over",
                Duration::from_secs(MENDED_S),
                || async {
                    let containers = containers("target");
                    if containers.len() == 1 {
                        Ok(())
                    } else {
                        Err(format!("{containers:?}"))
                    }
                },
            )
            .await
            .unwrap_or_else(|error| panic!("{victim}: {error}\n{}", platform.logs()));
        }
        let seen = load.stop().await.unwrap();
        // What a killed edge had in hand went with it: nothing else of it, and nothing of any other process.
        let excused = if victim == "edge" { kills } else { Vec::new() };
        let lost = seen.failures_beside(&excused);
        let (all, _) = seen.failures();
        println!(
            "{victim}: {} lost, {all} with those in the edge's hand",
            lost.len()
        );
        assert!(
            lost.is_empty(),
            "{victim}: {}\n{}",
            lost.join("\n"),
            platform.logs()
        );
        let most = u64::try_from(excused.len() * Load::CLIENTS).unwrap();
        assert!(all <= most, "{victim}: {all} lost, of at most {most} in hand");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_do_not_need_the_control_plane() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let (app, peer) = (App::target("web").unwrap(), App::target("peer").unwrap());
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &["--project", "home"]).unwrap();
    platform.up(&peer, &["--project", "home"]).unwrap();
    let stranger = App::target("stranger").unwrap();
    let elsewhere = platform.up(&stranger, &["--project", "elsewhere"]).unwrap();
    let host = Platform::host(&first).unwrap();
    let stranger_host = Platform::host(&elsewhere).unwrap();
    let http = platform.http;
    let ask_of = |host: &str, path: String| {
        let host = host.to_owned();
        async move {
            http::get(http, &host, &path)
                .await
                .map(|answer| answer.body)
                .map_err(|error| error.to_string())
        }
    };
    let ask = |path: String| ask_of(&host, path);
    let name = "/resolve?name=stranger.ferrovia.internal";
    let stranger = ask_of(&stranger_host, name.into()).await.unwrap();
    // A port of the host that really is open.
    let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let open_port = everywhere.local_addr().unwrap().port();

    kill_pid(platform.serve_pid().unwrap());
    kill_pid(platform.pid_of("control").unwrap());
    kill_pid(platform.postgres_pid().unwrap());

    assert_eq!(ask("/".into()).await.unwrap(), "v1");
    assert_eq!(ask("/log?lines=500&tag=outage".into()).await.unwrap(), "500");
    let gateway = ask("/gateway".into()).await.unwrap();
    // The firewall: open where it should be, closed elsewhere, and back when somebody takes it away.
    let to_stranger = format!("/connect?host={stranger}&port=8080");
    for flushed in [false, true] {
        if flushed {
            rules::delete().unwrap();
            rules::are_back().await.unwrap();
        }
        let itself = ask_of(&stranger_host, to_stranger.clone()).await;
        assert_eq!(itself.unwrap(), "connected", "flushed: {flushed}");
        let peer = ask("/connect?host=peer&port=8080".into()).await;
        assert_eq!(peer.unwrap(), "connected", "flushed: {flushed}");
        let names = ask(format!("/connect?host={gateway}&port=53")).await;
        assert_eq!(names.unwrap(), "connected", "flushed: {flushed}");
        for closed in [
            to_stranger.clone(),
            format!("/connect?host={gateway}&port={open_port}"),
        ] {
            let met = ask(closed.clone()).await.unwrap();
            assert_ne!(met, "connected", "{closed}, flushed: {flushed}");
        }
    }

    // A crash is answered by the engine, and the edge finds the new run.
    let _ = ask("/exit?code=1".into()).await;
    wait_for(
        "the restart of a crashed replica",
        Duration::from_secs(30),
        || async {
            match ask("/".into()).await {
                Ok(body) if body == "v1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
    .unwrap();

    platform.serve().await.unwrap();
    let output = platform
        .run(
            app.path(),
            &["logs", "-n", "10000", "--project", "home", "--service", "web"],
        )
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("line outage ")).collect();
    let distinct: BTreeSet<_> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(
        (lines.len(), distinct.len()),
        (500, 500),
        "lines of the outage, and distinct ones"
    );
    app.version("v2", "works").unwrap();
    let second = platform.up(&app, &["--project", "home"]).unwrap();
    assert_eq!(second["outcome"], "succeeded", "{second}");
}

/// `ferroviad stop` ends everything; the next start is quick and brings everything back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stopped_comes_back() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("target").unwrap();
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &[]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");
    let host = Platform::host(&first).unwrap();

    let processes = platform.processes().unwrap();
    assert_eq!(platform.objects(Kind::RunningContainers).unwrap().len(), 1);
    platform.stop().unwrap();
    let running = platform.objects(Kind::RunningContainers).unwrap();
    assert!(running.is_empty(), "a replica outlived the stop: {running:?}");
    for (name, pid) in processes {
        assert!(!lives(pid), "{name} outlived the stop");
    }

    let began = Instant::now();
    platform.serve().await.unwrap();
    let took = began.elapsed();
    println!("a second start is ready after {} ms", took.as_millis());
    assert!(took < 3 * SECOND_START, "{took:?}");
    serves(&platform, &host, "v1").await;
    app.version("v2", "works").unwrap();
    let second = platform.up(&app, &[]).unwrap();
    assert_eq!(
        (&second["outcome"], &second["number"]),
        (&"succeeded".into(), &2.into()),
        "{second}"
    );
}

/// `ferroviad stop` takes away what a build held of the host although nobody of control lives to say what that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_after_a_killed_control_leaves_nothing_of_builds() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("target").unwrap();
    // The quotes tell the output from the command, which stands in the log too.
    app.write(
        "Dockerfile",
        "FROM debian:trixie\nRUN echo the step be''gan; sleep 1000\nCMD [\"true\"]\n",
    )
    .unwrap();
    platform
        .json(app.path(), &["up", "--create", "--detach"])
        .unwrap();
    wait_for("a build step", Duration::from_secs(3 * MENDED_S), || async {
        let output = platform
            .run(
                app.path(),
                &[
                    "logs",
                    "--build",
                    "-n",
                    "10000",
                    "--project",
                    "target",
                    "--service",
                    "target",
                ],
            )
            .map_err(|error| error.to_string())?;
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        log.contains("the step began").then_some(()).ok_or(log)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", platform.logs()));

    kill_pid(platform.serve_pid().unwrap());
    kill_pid(platform.pid_of("control").unwrap());
    platform.stop().unwrap();
    let left = left_of_builds(&platform.run_dir());
    assert!(left.is_empty(), "{left:?}");
    platform.stop().unwrap();

    std::fs::remove_file(app.path().join("Dockerfile")).unwrap();
    platform.serve().await.unwrap();
    let up = platform.up(&app, &[]).unwrap();
    assert_eq!(up["outcome"], "succeeded", "{up}");
}

/// The engine is ended, killed and started again: requests, names, logs and deploys do not notice for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_engine_stops_nothing() {
    let mut dockerd = Dockerd::start().await.unwrap();
    let mut platform = Platform::start_on(Engine::Docker, &dockerd.socket())
        .await
        .unwrap();
    let (app, peer) = (App::target("web").unwrap(), App::target("peer").unwrap());
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &["--project", "home"]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");
    platform.up(&peer, &["--project", "home"]).unwrap();
    let host = Platform::host(&first).unwrap();

    let load = Load::start(platform.http, &host);
    for (number, signal) in [(2, Signal::TERM), (3, Signal::KILL)] {
        dockerd.end(signal).unwrap();
        let path = format!("/log?lines=200&tag=away{number}");
        let lines = http::get(platform.http, &host, &path);
        assert_eq!(lines.await.unwrap().body, "200");
        let connected = http::get(platform.http, &host, "/connect?host=peer&port=8080");
        assert_eq!(connected.await.unwrap().body, "connected");
        // A deployment that begins without an engine waits for it.
        let version = format!("v{number}");
        app.version(&version, "works").unwrap();
        platform
            .json(
                app.path(),
                &["up", "--detach", "--project", "home", "--service", "web"],
            )
            .unwrap();
        dockerd.start_again().await.unwrap();
        serves(&platform, &host, &version).await;
        let output = platform
            .run(
                app.path(),
                &["logs", "-n", "10000", "--project", "home", "--service", "web"],
            )
            .unwrap();
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = log
            .lines()
            .filter(|line| line.contains(&format!("line away{number} ")))
            .count();
        assert_eq!(count, 200, "lines that were written without an engine");
    }
    let seen = load.stop().await.unwrap();
    let (lost, failures) = seen.failures();
    assert_eq!(lost, 0, "{}\n{}", failures.join("\n"), platform.logs());

    // A stop that cannot reach the applications says so, and ends everything else.
    let processes = platform.processes().unwrap();
    dockerd.end(Signal::KILL).unwrap();
    let refused = platform.stop().unwrap_err().to_string();
    assert!(
        refused.contains("the applications could not be ended"),
        "{refused}"
    );
    for (name, pid) in processes {
        assert!(!lives(pid), "{name} outlived the stop");
    }
    dockerd.start_again().await.unwrap();
    platform.stop().unwrap();
    let running = platform.objects(Kind::RunningContainers).unwrap();
    assert!(running.is_empty(), "{running:?}");
}

/// Waits until this version of the target answers.
async fn serves(platform: &Platform, host: &str, version: &str) {
    let mended = Duration::from_secs(MENDED_S);
    http::wait_for_answer(platform.http, host, mended, |answer| answer.body == version)
        .await
        .unwrap_or_else(|error| panic!("{version}: {error}\n{}", platform.logs()));
}

/// What a build may hold of the host: processes, addresses, rules, files.
fn left_of_builds(run_dir: &Path) -> Vec<String> {
    let mut left: Vec<String> = [
        run_dir.join("build"),
        "/sys/class/net/ftbuild".into(),
        "/run/netns/ftbuild".into(),
    ]
    .iter()
    .filter(|path| path.exists())
    .map(|path| path.display().to_string())
    .collect();
    for (program, arguments, sign) in [
        ("find", "/sys/fs/cgroup -type d -name ft-builds", "ft-builds"),
        ("nft", "list tables", "ferrovia_out_ftbuild"),
    ] {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        left.extend(
            found
                .lines()
                .filter(|line| line.contains(sign))
                .map(str::to_owned),
        );
    }
    left
}

/// A deployment as the API tells it.
async fn deployment(platform: &Platform, id: &str) -> Result<Value, Failure> {
    let mut connection = http::Connection::open(platform.api, "localhost").await?;
    let path = format!("/v1/deployments/{id}");
    let answer = connection
        .send_json(hyper::Method::GET, &path, &platform.token, &Value::Null)
        .await?;
    Ok(serde_json::from_str(&answer.body)?)
}

/// Kills a process and, when nothing else does, starts it again.
async fn kill(platform: &mut Platform, victim: &str) {
    match victim {
        "serve" => {
            kill_pid(platform.serve_pid().unwrap());
            platform.serve().await.unwrap();
        }
        "postgres" => kill_pid(platform.postgres_pid().unwrap()),
        unit => {
            let pid = wait_for("the process to kill", Duration::from_secs(MENDED_S), || async {
                platform.pid_of(unit).map_err(|error| error.to_string())
            });
            kill_pid(pid.await.unwrap());
        }
    }
}

fn kill_pid(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that is gone already was killed by the fault before.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Names of the containers of a project, running or not.
fn containers(project: &str) -> Vec<String> {
    let output = Command::new("docker")
        .args([
            "ps",
            "--all",
            "--format",
            "{{.Names}}",
            "--filter",
            &format!("name=ft-{project}-"),
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
