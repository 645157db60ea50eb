//! `up`, `deploy` and `redeploy`: what is said, what is printed, and the exit code.

use ferrovia_core::error::Report;
use serde_json::{Value, json};

use crate::server::{Server, directory};

const FILES: [(&str, &str); 3] = [
    ("package.json", "{}"),
    ("server.js", "console.log('hello')"),
    ("node_modules/x/index.js", "ignored"),
];

fn hello() -> (tempfile::TempDir, std::path::PathBuf) {
    let mut files = FILES.to_vec();
    files.push((".gitignore", "node_modules\n"));
    directory("hello", &files)
}

#[tokio::test]
async fn up_from_nothing_to_a_url() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let (ran, ()) = tokio::join!(
        server.run(&directory, &["up", "--json", "--create"]),
        server.move_next(None)
    );
    let ran = ran.code(0);
    let lines = ran.lines();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events[0], "target");
    assert_eq!(lines[0]["created"], json!(["project", "environment", "service"]));
    assert_eq!(events[1], "uploaded");
    assert_eq!(lines[1]["files"], 3);
    assert!(
        events.contains(&"log") && events.contains(&"progress"),
        "{events:?}"
    );
    let result = lines.last().unwrap();
    let keys: Vec<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [
        "event",
        "deployment_id",
        "number",
        "project",
        "service",
        "environment",
        "outcome",
        "state",
        "url",
        "image",
        "durations_ms",
        "warnings",
        "error",
    ];
    wanted.sort_unstable();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted);
    assert_eq!(result["event"], "result");
    assert_eq!(result["outcome"], "succeeded");
    assert_eq!(
        (&result["project"], &result["service"]),
        (&json!("hello"), &json!("hello"))
    );
    assert_eq!(result["url"], "http://hello-production.localhost:8080");
    assert_eq!(result["image"], format!("sha256:{}", "a".repeat(64)));
    for part in ["upload", "queue", "build", "deploy", "total"] {
        assert!(result["durations_ms"][part].is_u64(), "{part}: {result}");
    }
    assert_eq!(
        (&result["warnings"], &result["error"]),
        (&json!([]), &Value::Null)
    );
    assert!(
        ran.stderr.contains("to service hello in hello/production"),
        "{}",
        ran.stderr
    );

    // Again: nothing is sent, and for people only the URL is data.
    let (again, ()) = tokio::join!(server.run(&directory, &["up"]), server.move_next(None));
    let again = again.code(0);
    assert_eq!(again.stdout, "http://hello-production.localhost:8080\n");
    assert!(!again.stderr.contains("sent "), "{}", again.stderr);
    assert!(
        again.stderr.contains("install | added 12 packages"),
        "{}",
        again.stderr
    );
    assert!(again.stderr.contains("v2 runs after"), "{}", again.stderr);
    assert!(!again.stderr.contains('\u{1b}'), "no colour when piped");
}

#[tokio::test]
async fn a_new_name_needs_a_word() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let ran = server.run(&directory, &["up", "--json"]).await.code(1);
    let result = ran.lines().pop().unwrap();
    assert_eq!(
        (&result["event"], &result["outcome"]),
        (&json!("result"), &json!("failed"))
    );
    assert_eq!(result["deployment_id"], Value::Null);
    assert_eq!(result["error"]["code"], "project_not_found");
    assert!(ran.stderr.contains("--create"), "{}", ran.stderr);
}

#[tokio::test]
async fn what_cannot_be_deployed_creates_nothing() {
    let server = Server::start().await;
    let (_empty, empty) = directory("empty", &[]);
    let (_unknown, unknown) = directory("unknown", &[("notes.txt", "nothing")]);
    let (_wrong, wrong) = directory("wrong", &[("package.json", "{")]);
    let up = &["up", "--create", "--json"][..];
    let deploy = &["deploy", "--image", "no such", "--create", "--json"][..];
    for (directory, arguments, exit, code) in [
        (&empty, up, 2, "wrong_use"),
        (&unknown, up, 1, "nothing_detected"),
        (&wrong, up, 1, "manifest_invalid"),
        (&empty, deploy, 2, "image_invalid"),
    ] {
        let ran = server.run(directory, arguments).await.code(exit);
        assert_eq!(ran.lines().pop().unwrap()["error"]["code"], code);
    }
    let projects = server.run(&empty, &["project", "list", "--json"]).await.code(0);
    assert_eq!(projects.json(), json!([]));

    // A service and an environment that are there do not become an instance either.
    let (_root, hello) = hello();
    let image = ["deploy", "--image", "nginx", "--create", "--detach"];
    server.run(&hello, &image).await.code(0);
    let staging = ["environment", "create", "staging"];
    server.run(&hello, &staging).await.code(0);
    let place = [
        "--project",
        "hello",
        "--service",
        "hello",
        "--environment",
        "staging",
    ];
    for (directory, arguments) in [
        (&empty, &["up"][..]),
        (&unknown, &["up"]),
        (&hello, &["deploy", "--image", "no such"]),
        (&hello, &["link"]),
    ] {
        let ran = server.run(directory, &[arguments, &place].concat()).await;
        assert_eq!(ran.code == 0, arguments == ["link"], "{ran:?}");
        let status = ["status", "--json", "--environment", "staging"];
        let status = server.run(&hello, &status).await.code(0);
        assert_eq!(status.json()["items"], json!([]), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_failed_deployment_says_why() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let report = Report::new("build_failed", "`npm ci` exited with 1")
        .with_hint("look at the log")
        .with_log(vec!["npm error missing script".into()]);
    let (ran, ()) = tokio::join!(
        server.run(&directory, &["up", "--json", "--create"]),
        server.move_next(Some(report))
    );
    let ran = ran.code(1);
    let result = ran.lines().pop().unwrap();
    assert_eq!(result["outcome"], "failed");
    assert_eq!(result["error"]["code"], "build_failed");
    assert_eq!(result["error"]["hint"], "look at the log");
    assert!(ran.stderr.contains("npm error missing script"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("error: `npm ci` exited with 1"),
        "{}",
        ran.stderr
    );

    // For people: what the step wrote, once, and where the rest is.
    let report =
        Report::new("build_failed", "`npm ci` exited with 1").with_log(vec!["added 12 packages".into()]);
    let (ran, ()) = tokio::join!(server.run(&directory, &["up"]), server.move_next(Some(report)));
    let ran = ran.code(1);
    assert_eq!(
        ran.stderr.matches("added 12 packages").count(),
        1,
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("`ferrovia logs --build`"), "{}", ran.stderr);
}

#[tokio::test]
async fn what_is_scaled_to_zero_does_not_run() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let (ran, ()) = tokio::join!(
        server.run(&directory, &["up", "--create"]),
        server.move_next(None)
    );
    ran.code(0);
    server.run(&directory, &["scale", "0"]).await.code(0);
    let nothing = server.run(&directory, &["restart"]).await.code(0);
    assert!(nothing.stdout.contains("scaled to 0"), "{}", nothing.stdout);
    let (again, ()) = tokio::join!(server.run(&directory, &["up"]), server.move_next(None));
    let again = again.code(0);
    assert!(
        again.stderr.contains("v2 is deployed and no replica runs"),
        "{}",
        again.stderr
    );
    assert!(
        again
            .stderr
            .contains("`ferrovia scale 1 --service hello` starts one"),
        "{}",
        again.stderr
    );
    let (json, ()) = tokio::join!(
        server.run(&directory, &["redeploy", "--json"]),
        server.move_next(None)
    );
    let result = json.code(0).lines().pop().unwrap();
    assert_eq!(result["warnings"][0]["code"], "scaled_to_zero");
    let one = server.run(&directory, &["scale", "1"]).await.code(0);
    assert!(one.stdout.ends_with("goes to 1 replica\n"), "{}", one.stdout);
}

#[tokio::test]
async fn what_is_held_waits_and_says_so() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let (ran, ()) = tokio::join!(
        server.run(&directory, &["up", "--create"]),
        server.move_next(None)
    );
    ran.code(0);
    server.run(&directory, &["hold"]).await.code(0);
    for arguments in [&["restart"][..], &["scale", "2"]] {
        let ran = server.run(&directory, arguments).await.code(0);
        assert!(
            ran.stdout
                .contains("not yet: it is held until `ferrovia release`"),
            "{}",
            ran.stdout
        );
    }
    let restarted = server.run(&directory, &["restart", "--json"]).await.code(0);
    assert_eq!(restarted.json()["notes"][0]["code"], "instance_held");
    let (waited, ()) = tokio::join!(server.run(&directory, &["up", "--json"]), server.move_next(None));
    let waited = waited.code(0);
    let progress = waited
        .lines()
        .into_iter()
        .find(|line| line["event"] == "progress");
    assert_eq!(progress.unwrap()["reason"]["code"], "instance_held");
    assert_eq!(
        waited.stderr.matches("v2 waits: `hello` is held").count(),
        1,
        "{}",
        waited.stderr
    );
    let away = server.run(&directory, &["up", "--detach"]).await.code(0);
    assert!(
        away.stderr.contains("waits until `ferrovia release`"),
        "{}",
        away.stderr
    );
}

#[tokio::test]
async fn detaching_leaves_it_to_the_server() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let arguments = [
        "deploy",
        "--image",
        "nginx:1.27",
        "--port",
        "80",
        "--create",
        "--detach",
        "--json",
    ];
    let ran = server.run(&directory, &arguments).await.code(0);
    let result = ran.lines().pop().unwrap();
    assert_eq!(
        (&result["outcome"], &result["number"]),
        (&json!("queued"), &json!(1))
    );
    assert!(ran.stderr.contains("ferrovia cancel"), "{}", ran.stderr);
    let cancelled = server.run(&directory, &["cancel", "--json"]).await.code(0);
    assert_eq!(cancelled.json()["cancel_requested"], true);
    server.move_next(None).await;
    let (ran, ()) = tokio::join!(
        server.run(&directory, &["redeploy", "--json"]),
        // The same build, which has ended: what is due is the deployment.
        server.move_next(None)
    );
    let result = ran.code(0).lines().pop().unwrap();
    assert_eq!(
        (&result["outcome"], &result["number"]),
        (&json!("succeeded"), &json!(2))
    );
}

#[tokio::test]
async fn flags_over_environment_over_names() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    let arguments = [
        "deploy",
        "--image",
        "a",
        "--create",
        "--detach",
        "--json",
        "--service",
        "flag",
    ];
    let environment = [
        ("FERROVIA_URL", server.url()),
        ("FERROVIA_TOKEN", server.token.clone()),
        ("FERROVIA_SERVICE", "environment".to_owned()),
        ("FERROVIA_PROJECT", "shop".to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let ran = server
        .run_with(&directory, &arguments, &environment, "")
        .await
        .code(0);
    let result = ran.lines().pop().unwrap();
    assert_eq!(
        (&result["project"], &result["environment"], &result["service"]),
        (&json!("shop"), &json!("production"), &json!("flag"))
    );
}

#[tokio::test]
async fn wrong_use_is_exit_code_two() {
    let server = Server::start().await;
    let (_root, directory) = hello();
    for arguments in [
        &["up", "--port", "0"][..],
        &["up", "does-not-exist"],
        &["frobnicate"],
        &["up", "--project", "Not A Name", "--create"],
        &["variables", "set", "NOVALUE"],
        &["open", "--service", ".."],
        &["project", "delete", ".", "--yes"],
        &["variables", "--environment", ".."],
    ] {
        server.run(&directory, arguments).await.code(2);
    }
}
