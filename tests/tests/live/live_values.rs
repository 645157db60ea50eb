//! Values arrive byte for byte and stand nowhere in clear.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::wait::wait_for;
use serde_json::Value;

/// Part of every value, so that it can be looked for.
const MARK: &str = "fv-secret-8c1f0e7a";
/// Stands in the clear in database, images and logs: a search that does not find this one finds nothing.
const KNOWN: &str = "fv-known-1b9d";

/// Longest time from a line's writing until it can be read.
const LOGGED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_arrive_as_given_and_stand_nowhere_in_clear() {
    let mut platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("values").unwrap();
    let first = platform.up(&app, &["--project", KNOWN]).unwrap();
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
            &[&arguments[..], &["--project", KNOWN, "--service", "values"]].concat(),
        )
        .unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let redeployed = platform
        .json(
            app.path(),
            &["redeploy", "--project", KNOWN, "--service", "values"],
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
    app.version(KNOWN, "works").unwrap();
    let rebuilt = platform.up(&app, &["--project", KNOWN]).unwrap();
    assert_eq!(rebuilt["outcome"], "succeeded", "{rebuilt}");
    let path = format!("/log?lines=1&tag={KNOWN}");
    let logged = http::get(platform.http, &host, &path).await.unwrap();
    assert_eq!(logged.body, "1");
    let log = |more: &[&str]| {
        let target = ["logs", "-n", "10000", "--project", KNOWN, "--service", "values"];
        let output = platform.run(app.path(), &[&target, more].concat()).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("the line of the log", LOGGED, || async {
        let log = log(&[]);
        log.contains(KNOWN).then_some(()).ok_or(log)
    })
    .await
    .unwrap();
    assert!(!log(&[]).contains(MARK));
    let build = log(&["--build"]);
    assert!(!build.trim().is_empty() && !build.contains(MARK), "{build}");

    // PostgreSQL writes what it still holds in memory, so that the search sees it.
    platform.stop().unwrap();
    let data = platform.data_dir();
    for (part, layers) in [("postgres", false), ("registry", true)] {
        let found = if layers {
            in_layers(KNOWN, &data.join(part))
        } else {
            in_files(KNOWN, &data.join(part))
        };
        assert!(!found.is_empty(), "the search finds nothing in {part}");
    }
    let mut found = in_files(MARK, &data);
    found.extend(in_layers(MARK, &data.join("registry")));
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

/// Files under a directory that hold a text as it is: database, its log of changes, logs, configurations of images.
fn in_files(text: &str, dir: &Path) -> Vec<String> {
    lines(Command::new("grep").args(["-rlaF", text]).arg(dir))
}

/// Compressed layers of images under a directory that hold a text.
fn in_layers(text: &str, dir: &Path) -> Vec<String> {
    let search =
        "for file; do zcat \"$file\" 2>/dev/null | grep -qaF \"$TEXT\" && echo \"$file\"; done; true";
    lines(
        Command::new("find")
            .arg(dir)
            .args(["-type", "f", "-exec", "sh", "-c", search, "_", "{}", "+"])
            .env("TEXT", text),
    )
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
