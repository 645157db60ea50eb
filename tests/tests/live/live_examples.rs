//! Every example: up, the right answer, a second `up` that builds nothing, a changed line that installs nothing.

use std::time::Duration;

use ferrovia_tests::app::{App, repository};
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::wait::wait_for;
use serde::Deserialize;

/// Longest `upload`, `queue` and `build` together of an unchanged tree, in milliseconds; a test fails at three times it.
const UNCHANGED_MS: u64 = 1000;
/// How a step begins that installs dependencies, in a build's log, and how one ends for which nothing was done.
const INSTALL: &str = "[install ";
const CACHED: &str = "| cached";
/// How long an application may take to write a line, in seconds.
const LINE_S: u64 = 30;

#[derive(Debug, Deserialize)]
struct Expected {
    example: Vec<Example>,
}

/// What `examples/expected.toml` says of one; its head explains the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    directory: String,
    builder: String,
    provider: Option<String>,
    port: Option<String>,
    health_path: Option<String>,
    log: Option<String>,
    #[serde(default)]
    installs: bool,
    get: Vec<Get>,
    edit: Edit,
    offline: Option<Offline>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offline {
    path: String,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    path: String,
    status: u16,
    contains: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
    path: Option<String>,
    contains: Option<String>,
    log: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_comes_up_and_is_cached() {
    let expected = std::fs::read_to_string(repository().join("examples/expected.toml")).unwrap();
    let expected: Expected = toml::from_str(&expected).unwrap();
    let platform = Platform::start(Engine::Docker).await.unwrap();
    for example in &expected.example {
        one(&platform, example).await;
    }
}

async fn one(platform: &Platform, example: &Example) {
    let name = &example.directory;
    let app = App::example(name).unwrap();
    let first = platform.up(&app, &[]).unwrap();
    assert_eq!(
        first["outcome"],
        "succeeded",
        "{name}: {first}\n{}",
        build_log(platform, &app)
    );
    println!("{name}: {}", first["durations_ms"]);
    let log = build_log(platform, &app);
    let told = log.to_lowercase().replace('`', "");
    assert!(
        told.contains(&format!("builder: {}", example.builder)),
        "{name}: {log}"
    );
    if let Some(provider) = &example.provider {
        assert!(log.contains(provider), "{name}: {log}");
    }
    let (_, installed) = install_steps(&log);
    assert_eq!(example.installs, installed > 0, "{name}: {log}");
    for get in &example.get {
        let host = Platform::host(&first).unwrap();
        let answer = http::get(platform.http, &host, &get.path).await.unwrap();
        assert_eq!(answer.status, get.status, "{name}: {answer:?}");
        assert!(answer.body.contains(&get.contains), "{name}: {answer:?}");
    }
    if let Some(line) = &example.log {
        logged(platform, &app, line).await;
    }

    if example.port.as_deref() == Some("none") {
        assert!(first["url"].is_null(), "{name}: {first}");
    }
    if let Some(path) = &example.health_path {
        let change = serde_json::json!({ "health_path": path });
        platform.settings(name, name, &change).await.unwrap();
    }

    let second = platform.up(&app, &[]).unwrap();
    assert_eq!(second["outcome"], "succeeded", "{name}: {second}");
    assert_eq!(
        second["image"], first["image"],
        "{name}: an unchanged tree gave another image"
    );
    let took: u64 = ["upload", "queue", "build"]
        .iter()
        .map(|part| second["durations_ms"][part].as_u64().unwrap())
        .sum();
    println!("{name}: unchanged upload + queue + build {took} ms");
    assert!(
        took < 3 * UNCHANGED_MS,
        "{name}: {took} ms for an unchanged tree: {second}"
    );

    let edit = &example.edit;
    app.replace(&edit.file, &edit.find, &edit.replace).unwrap();
    if let Some(Offline { path, content }) = &example.offline {
        app.write(path, content).unwrap();
    }
    let third = platform.up(&app, &[]).unwrap();
    assert_eq!(
        third["outcome"],
        "succeeded",
        "{name}: {third}\n{}",
        build_log(platform, &app)
    );
    assert_ne!(
        third["image"], first["image"],
        "{name}: a changed tree gave the same image"
    );
    let log = build_log(platform, &app);
    let (cached, installed) = install_steps(&log);
    assert_eq!(
        installed, 0,
        "{name}: a changed line installed dependencies again:\n{log}"
    );
    assert_eq!(example.installs, cached > 0, "{name}: {log}");
    if let (Some(path), Some(contains)) = (&edit.path, &edit.contains) {
        let host = Platform::host(&third).unwrap();
        let answer = http::get(platform.http, &host, path).await.unwrap();
        assert!(answer.body.contains(contains), "{name}: {answer:?}");
    }
    if let Some(line) = &edit.log {
        logged(platform, &app, line).await;
    }
    println!("{name}: one line changed {}", third["durations_ms"]);
    let down = platform.run(app.path(), &["down"]).unwrap();
    assert!(
        down.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&down.stderr)
    );
}

fn build_log(platform: &Platform, app: &App) -> String {
    let output = platform
        .run(app.path(), &["logs", "--build", "-n", "10000"])
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Steps of a build that install dependencies: how many were cached, and how many were done.
fn install_steps(log: &str) -> (usize, usize) {
    // To look up the base image is no step of its own.
    let ends = log
        .lines()
        .filter(|line| line.contains(INSTALL) && !line.contains("] FROM "))
        .filter(|line| line.contains(CACHED) || line.contains("| done in"));
    ends.fold((0, 0), |(cached, done), line| {
        if line.contains(CACHED) {
            (cached + 1, done)
        } else {
            (cached, done + 1)
        }
    })
}

async fn logged(platform: &Platform, app: &App, line: &str) {
    wait_for("a line in the log", Duration::from_secs(LINE_S), || async {
        let output = platform
            .run(app.path(), &["logs"])
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(line) { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
}
