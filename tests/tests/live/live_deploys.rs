//! Deploys under constant load lose nothing, and a broken version never takes the place of one that works.

use std::time::Duration;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::load::Load;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::wait::wait_for;

/// Deploys in a row.
const DEPLOYS: u32 = 20;
/// Every n-th version is broken, in turn one that does not start and one that answers 500 to its health check.
const BROKEN_EVERY: u32 = 5;
/// Callers of private connections at once.
const CALLERS: u32 = 4;
/// Start deadline of the target, in milliseconds, so that an unhealthy version ends soon.
const START_DEADLINE_MS: u32 = 8_000;
/// Drain of the target, in milliseconds, so that WebSockets end within the test.
const DRAIN_MS: u32 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_deploys_under_load_lose_no_request() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("target").unwrap();
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &[]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");
    platform
        .settings(
            "target",
            "target",
            &serde_json::json!({
                "health_path": "/health", "start_deadline_ms": START_DEADLINE_MS, "drain_ms": DRAIN_MS,
            }),
        )
        .await
        .unwrap();
    let host = Platform::host(&first).unwrap();

    let load = Load::start(platform.http, &host);
    let mut serving = "v1".to_owned();
    for number in 2..=DEPLOYS + 1 {
        let broken = number % BROKEN_EVERY == 0;
        let mode = match (broken, number % (2 * BROKEN_EVERY)) {
            (false, _) => "works",
            (true, 0) => "exits",
            (true, _) => "unhealthy",
        };
        let version = format!("v{number}");
        app.version(&version, mode).unwrap();
        let result = platform.up(&app, &[]).unwrap();
        if broken {
            assert_eq!(result["outcome"], "failed", "{version} ({mode}): {result}");
            let code = result["error"]["code"].as_str().unwrap();
            let expected = if mode == "exits" {
                "app_crashed"
            } else {
                "app_unhealthy"
            };
            assert_eq!(code, expected, "{result}");
        } else {
            assert_eq!(result["outcome"], "succeeded", "{version} ({mode}): {result}");
            serving = version;
        }
        let answer = http::get(platform.http, &host, "/").await.unwrap();
        assert_eq!(answer.body, serving, "after {result}");
    }
    let seen = load.stop().await.unwrap();
    let (lost, failures) = seen.failures();
    let answered = seen.answered.load(std::sync::atomic::Ordering::Relaxed);
    println!("{DEPLOYS} deploys: {answered} answered, {lost} lost, {seen:?}");
    assert_eq!(lost, 0, "{}\n{}", failures.join("\n"), platform.logs());
}

/// Private connections between two services: new ones always find a healthy replica, an open one keeps its replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_connections_survive_deploys() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let (backend, caller) = (App::target("backend").unwrap(), App::target("caller").unwrap());
    backend.version("v1", "works").unwrap();
    let up = platform.up(&backend, &["--project", "pair"]).unwrap();
    assert_eq!(up["outcome"], "succeeded", "{up}");
    let up = platform.up(&caller, &["--project", "pair"]).unwrap();
    assert_eq!(up["outcome"], "succeeded", "{up}");
    let host = Platform::host(&up).unwrap();
    platform
        .settings("pair", "backend", &serde_json::json!({ "drain_ms": 10_000 }))
        .await
        .unwrap();

    let http = platform.http;
    let caller_host = host.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    // Each is a new private connection; some take as long as a deploy.
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (caller_host, stopped) = (caller_host.clone(), stopped.clone());
        callers.spawn(async move {
            let (mut made, mut lost) = (0_u32, Vec::new());
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let slow = made % 10 == 9;
                let url = if slow {
                    "http://backend:8080/slow?ms=3000"
                } else {
                    "http://backend:8080/"
                };
                let answer = http::get(http, &caller_host, &format!("/fetch?url={url}")).await;
                made += 1;
                match answer {
                    Ok(answer) if answer.body.contains("\"status\":200") => {}
                    other => lost.push(format!("{other:?}")),
                }
            }
            (made, lost)
        });
    }
    for number in 2..=6 {
        backend.version(&format!("v{number}"), "works").unwrap();
        let up = platform.up(&backend, &["--project", "pair"]).unwrap();
        assert_eq!(up["outcome"], "succeeded", "{up}");
        wait_for(
            "the new version on new private connections",
            Duration::from_secs(10),
            || async {
                let answer = http::get(http, &host, "/fetch?url=http://backend.ferrovia.internal:8080/")
                    .await
                    .map_err(|error| error.to_string())?;
                if answer.body.contains(&format!("\"v{number}\"")) {
                    Ok(())
                } else {
                    Err(answer.body)
                }
            },
        )
        .await
        .unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut made, mut lost) = (0, Vec::new());
    for (calls, failures) in callers.join_all().await {
        made += calls;
        lost.extend(failures);
    }
    println!("{made} private calls, {} lost", lost.len());
    assert!(made > 50, "{made}");
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// What an application does wrong is said with the remedy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_application_is_told_what_to_do() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("wrong").unwrap();
    app.version("v1", "silent").unwrap();
    let first = platform.up(&app, &["--detach"]).unwrap();
    platform
        .settings(
            "wrong",
            "wrong",
            &serde_json::json!({ "start_deadline_ms": START_DEADLINE_MS }),
        )
        .await
        .unwrap();
    drop(first);
    let result = platform.up(&app, &[]).unwrap();
    assert_eq!(result["outcome"], "failed", "{result}");
    assert_eq!(result["error"]["code"], "app_not_listening", "{result}");
    let text = format!("{} {}", result["error"]["message"], result["error"]["hint"]);
    assert!(
        text.contains("127.0.0.1:8080") && text.contains("0.0.0.0"),
        "{text}"
    );

    app.version("v2", "exits").unwrap();
    let result = platform.up(&app, &[]).unwrap();
    assert_eq!(result["error"]["code"], "app_crashed", "{result}");
    let text = result["error"].to_string();
    assert!(
        text.contains("this version does not start") && text.contains("exited with code 3"),
        "{text}"
    );
}
