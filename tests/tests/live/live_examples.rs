//! Every example: up, the right answer, a second `up` that builds nothing, a changed line that installs nothing.

use std::time::Duration;

use ferrovia_tests::app::{App, repository};
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::wait::wait_for;
use serde::Deserialize;

/// Longest `upload`, `queue` and `build` together of an unchanged tree, in milliseconds; a test fails at three times it.
const UNCHANGED_MS: u64 = 1000;

#[derive(Debug, Deserialize)]
struct Expected {
    example: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    directory: String,
    /// Path and a part of its answer; a worker has a part of its log instead.
    path: Option<String>,
    contains: Option<String>,
    log: Option<String>,
    /// A source file, a text in it and what replaces it, for the one-line change.
    file: String,
    from: String,
    to: String,
    /// What stands in the build log only when dependencies are installed.
    installs: Option<String>,
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
    let worker = example.path.is_none();
    let flags: &[&str] = if worker { &["--port", "none"] } else { &[] };
    let first = platform.up(&app, flags).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{name}: {first}");
    if let (Some(path), Some(contains)) = (&example.path, &example.contains) {
        let host = Platform::host(&first).unwrap();
        let answer = http::get(platform.http, &host, path).await.unwrap();
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert!(answer.body.contains(contains), "{name}: {answer:?}");
    }
    if let Some(line) = &example.log {
        wait_for("the worker's log line", Duration::from_secs(30), || async {
            let output = platform
                .run(app.path(), &["logs"])
                .map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains(line) { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap();
    }

    let second = platform.up(&app, flags).unwrap();
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

    app.replace(&example.file, &example.from, &example.to).unwrap();
    let third = platform.up(&app, flags).unwrap();
    assert_eq!(third["outcome"], "succeeded", "{name}: {third}");
    assert_ne!(
        third["image"], first["image"],
        "{name}: a changed tree gave the same image"
    );
    if let Some(installs) = &example.installs {
        let log = platform.run(app.path(), &["logs", "--build"]).unwrap();
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        assert!(
            !log.contains(installs),
            "{name}: a changed line installed dependencies again:\n{log}"
        );
    }
    println!("{name}: {}", third["durations_ms"]);
    platform.run(app.path(), &["down"]).unwrap();
}
