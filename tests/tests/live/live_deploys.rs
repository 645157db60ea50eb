//! Deploys under constant load lose nothing, and a broken version never takes the place of one that works.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::load::Load;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::private::{self, Callers};
use ferrovia_tests::wait::wait_for;

/// Deploys in a row.
const DEPLOYS: u32 = 20;
/// Every n-th version is broken, in turn one that does not start and one that answers 500 to its health check.
const BROKEN_EVERY: u32 = 5;
/// Private calls below which nothing is proven.
const LEAST_CALLS: u32 = 200;
/// Start deadline of the target, in milliseconds, so that an unhealthy version ends soon.
const START_DEADLINE_MS: u32 = 8_000;
/// Drain of the target, in milliseconds, so that WebSockets end within the test.
const DRAIN_MS: u32 = 4_000;

/// Requests through the edge, and private connections from another service: new ones always find a version that works,
/// open ones keep their replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_deploys_under_load_lose_nothing() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let (app, caller) = (App::target("target").unwrap(), App::target("caller").unwrap());
    app.version("v1", "works").unwrap();
    let first = platform.up(&app, &["--project", "pair"]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");
    let up = platform.up(&caller, &["--project", "pair"]).unwrap();
    assert_eq!(up["outcome"], "succeeded", "{up}");
    platform
        .settings(
            "pair",
            "target",
            &serde_json::json!({
                "health_path": "/health", "start_deadline_ms": START_DEADLINE_MS, "drain_ms": DRAIN_MS,
            }),
        )
        .await
        .unwrap();
    let (host, caller_host) = (Platform::host(&first).unwrap(), Platform::host(&up).unwrap());

    let load = Load::start(platform.http, &host);
    let callers = Callers::start(platform.http, &caller_host, "target");
    let mut works = BTreeSet::from(["v1".to_owned()]);
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
        let result = platform.up(&app, &["--project", "pair"]).unwrap();
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
            works.insert(version.clone());
            serving = version;
        }
        let answer = http::get(platform.http, &host, "/").await.unwrap();
        assert_eq!(answer.body, serving, "after {result}");
        wait_for(
            "the version that serves on new private connections",
            Duration::from_secs(10),
            || async {
                let url = "http://target.ferrovia.internal:8080/";
                match private::once(platform.http, &caller_host, url).await {
                    Ok(version) if version == serving => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        )
        .await
        .unwrap();
    }
    let called = callers.stop().await;
    let seen = load.stop().await.unwrap();
    let (lost, failures) = seen.failures();
    let answered = seen.answered.load(std::sync::atomic::Ordering::Relaxed);
    println!("{DEPLOYS} deploys: {answered} answered, {lost} lost, {seen:?}");
    println!("{} private calls, {} lost", called.made, called.lost.len());
    assert_eq!(lost, 0, "{}\n{}", failures.join("\n"), platform.logs());
    assert!(called.made > LEAST_CALLS, "{called:?}");
    assert!(called.lost.is_empty(), "{called:?}\n{}", platform.logs());
    let broken: Vec<_> = called.versions.difference(&works).collect();
    assert!(
        broken.is_empty(),
        "broken versions answered private calls: {broken:?}"
    );
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
