//! Values arrive byte for byte and stand nowhere in clear.

use std::path::Path;
use std::process::Command;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use serde_json::Value;

/// Part of every value, so that it can be looked for.
const MARK: &str = "fv-secret-8c1f0e7a";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_arrive_as_given_and_stand_nowhere_in_clear() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("values").unwrap();
    let first = platform.up(&app, &[]).unwrap();
    assert_eq!(first["outcome"], "succeeded", "{first}");

    let values = [
        ("DOLLAR", format!("{MARK} $HOME ${{HOME}} $$ $(id) `id`")),
        ("QUOTES", format!("{MARK} \"double\" 'single' \\ back")),
        ("LINES", format!("{MARK}\nsecond\r\nthird\n")),
        ("UNICODE", format!("{MARK} grüße 日本語 🚂")),
        ("LARGE", format!("{MARK}{}", "x".repeat(100 * 1024))),
        ("SPACES", format!("  {MARK}\t ")),
    ];
    let mut arguments = vec!["variables".to_owned(), "set".to_owned()];
    arguments.extend(values.iter().map(|(name, value)| format!("{name}={value}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let set = platform
        .run(
            app.path(),
            &[&arguments[..], &["--project", "values", "--service", "values"]].concat(),
        )
        .unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let redeployed = platform
        .json(
            app.path(),
            &["redeploy", "--project", "values", "--service", "values"],
        )
        .unwrap();
    assert_eq!(redeployed["outcome"], "succeeded", "{redeployed}");

    let host = Platform::host(&first).unwrap();
    for (name, value) in &values {
        let answer = http::get(platform.http, &host, &format!("/variable?name={name}"))
            .await
            .unwrap();
        let seen: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(seen["bytes"], value.len(), "{name}: {}", answer.body);
        assert_eq!(seen["sha256"], sha256(value), "{name}");
    }

    // A build sees them too.
    app.version("v2", "works").unwrap();
    let rebuilt = platform.up(&app, &["--project", "values"]).unwrap();
    assert_eq!(rebuilt["outcome"], "succeeded", "{rebuilt}");

    // PostgreSQL writes what it still holds in memory, so that the search sees it.
    platform.stop().unwrap();
    let found = holds_mark(&platform.data_dir());
    assert!(found.is_empty(), "in clear: {found:#?}");
}

fn sha256(value: &str) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), value.as_bytes()).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Files under a directory that hold the mark: database, its log of changes, logs, images (also compressed layers).
fn holds_mark(dir: &Path) -> Vec<String> {
    let plain = Command::new("grep")
        .args(["-rlaF", MARK])
        .arg(dir)
        .output()
        .unwrap();
    let mut found: Vec<String> = String::from_utf8_lossy(&plain.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let blobs = dir.join("registry");
    let layers = Command::new("sh")
        .arg("-c")
        .arg(format!("find '{}' -type f -exec sh -c 'for f; do zcat \"$f\" 2>/dev/null | grep -qaF {MARK} && echo \"$f\"; done' _ {{}} +", blobs.display()))
        .output()
        .unwrap();
    found.extend(String::from_utf8_lossy(&layers.stdout).lines().map(str::to_owned));
    found
}
