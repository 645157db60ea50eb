//! The other commands: data on stdout, talk on stderr, JSON when asked for.

use serde_json::{Value, json};

use crate::server::{Server, directory};

async fn deployed(server: &Server, directory: &std::path::Path) {
    let arguments = ["deploy", "--image", "nginx", "--create", "--json"];
    let (ran, ()) = tokio::join!(server.run(directory, &arguments), server.move_next(None));
    ran.code(0);
}

#[tokio::test]
async fn login_keeps_a_token_and_link_a_place() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let url = server.url();
    let wrong = server
        .run_with(&directory, &["login", &url], &[], "fvt_wrong\n")
        .await
        .code(1);
    assert!(wrong.stderr.contains("unknown or revoked"), "{}", wrong.stderr);
    let login = server
        .run_with(&directory, &["login", &url], &[], &server.token)
        .await
        .code(0);
    assert!(!login.stdout.contains(&server.token) && !login.stderr.contains(&server.token));
    let who = server
        .run_with(&directory, &["whoami", "--json"], &[], "")
        .await
        .code(0);
    assert_eq!(who.json()["actor"], "token `test`");
    deployed(&server, &directory).await;
    let arguments = ["link", "--project", "web", "--service", "web"];
    // What a pipeline leaves empty says nothing.
    let empty = [
        ("FERROVIA_URL", ""),
        ("FERROVIA_TOKEN", ""),
        ("FERROVIA_PROJECT", ""),
    ];
    server.run_with(&directory, &arguments, &empty, "").await.code(0);
    let below = directory.join("src");
    std::fs::create_dir(&below).unwrap();
    let url = server.run_with(&below, &["open"], &[], "").await.code(0);
    assert_eq!(url.stdout, "http://web-production.localhost:8080\n");
    let nowhere = ["link", "--project", "nope"];
    let refused = server.run_with(&directory, &nowhere, &[], "").await.code(1);
    assert!(refused.stderr.contains("`--create`"), "{}", refused.stderr);
    // A server that does not know the question says nothing of names.
    let elsewhere = format!("{}/elsewhere", server.url());
    let environment = [
        ("FERROVIA_URL", elsewhere.as_str()),
        ("FERROVIA_TOKEN", &server.token),
    ];
    let other = server
        .run_with(&directory, &arguments, &environment, "")
        .await
        .code(1);
    assert!(
        other.stderr.contains("different versions") && !other.stderr.contains("`--create`"),
        "{}",
        other.stderr
    );
}

#[tokio::test]
async fn variables_byte_for_byte() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[(".env.example", "A=1\nB=\"two\\nlines\" # comment\n")]);
    deployed(&server, &directory).await;
    let value = "$HOME 'q' \"d\"\n\u{1f682} \u{1b}[31mred\u{1b}[0m";
    let pair = format!("TEXT={value}");
    let large = format!("LARGE={}", "x".repeat(100_000));
    server
        .run(&directory, &["variables", "set", &pair, &large])
        .await
        .code(0);
    server
        .run(&directory, &["variables", "set", "KEY=hunter2", "--sealed"])
        .await
        .code(0);
    server
        .run(&directory, &["variables", "import", ".env.example"])
        .await
        .code(0);
    let listed = server.run(&directory, &["variables", "--json"]).await.code(0);
    let value_of = |name: &str| -> Value {
        let items = listed.json()["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["key"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value_of("TEXT"), value);
    assert_eq!(value_of("LARGE"), "x".repeat(100_000));
    assert_eq!((value_of("A"), value_of("B")), (json!("1"), json!("two\nlines")));
    assert_eq!(value_of("KEY"), Value::Null);
    // What is listed can be imported again.
    let text = server.run(&directory, &["variables"]).await.code(0).stdout;
    assert!(text.contains("# KEY is sealed") && !text.contains("hunter2"));
    let again = ["variables", "import", "-", "--shared"];
    let environment = [
        ("FERROVIA_URL", server.url()),
        ("FERROVIA_TOKEN", server.token.clone()),
    ];
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    server
        .run_with(&directory, &again, &environment, &text)
        .await
        .code(0);
    let shared = server
        .run(&directory, &["variables", "--shared"])
        .await
        .code(0)
        .stdout;
    assert_eq!(shared, text.replace("# KEY is sealed\n", ""));
    server
        .run(&directory, &["variables", "unset", "TEXT", "LARGE"])
        .await
        .code(0);
    let absent = server
        .run(&directory, &["variables", "unset", "A", "NOPE", "--json"])
        .await
        .code(1);
    assert_eq!(absent.json()["error"]["code"], "variable_not_found");
    assert!(absent.stderr.contains("`NOPE` of `web`"), "{}", absent.stderr);
    assert_eq!(value_of("A"), json!("1"));
    let wrong = server
        .run(&directory, &["variables", "set", "A-B=1"])
        .await
        .code(2);
    assert!(
        wrong.stderr.contains("`A-B` is not a variable's name"),
        "{}",
        wrong.stderr
    );
}

#[tokio::test]
async fn status_settings_scale_and_down() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    deployed(&server, &directory).await;
    let status = server.run(&directory, &["status"]).await.code(0);
    assert!(status.stdout.contains("v1 succeeded"), "{}", status.stdout);
    let set = [
        "service",
        "settings",
        "health_path=/healthz",
        "resources.pids=99",
        "--json",
    ];
    let settings = server.run(&directory, &set).await.code(0);
    assert_eq!(settings.json()["resources"]["pids"], 99);
    let wrong = server
        .run(&directory, &["service", "settings", "health_path=x"])
        .await
        .code(2);
    assert!(wrong.stderr.contains("must begin with `/`"), "{}", wrong.stderr);
    let scaled = server.run(&directory, &["scale", "3", "--json"]).await.code(0);
    assert_eq!(scaled.json()["intent"]["replicas"], 3);
    server.run(&directory, &["scale", "1000"]).await.code(2);
    server.run(&directory, &["hold"]).await.code(0);
    let held = server.run(&directory, &["status"]).await.code(0);
    assert!(held.stderr.contains("is held"), "{}", held.stderr);
    server.run(&directory, &["release"]).await.code(0);
    server.run(&directory, &["restart"]).await.code(0);
    let down = server.run(&directory, &["down", "--json"]).await.code(0);
    assert_eq!(down.json()["intent"]["target_deployment_id"], Value::Null);
}

#[tokio::test]
async fn a_service_is_linked_before_it_is_deployed() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let refused = server.run(&directory, &["link"]).await.code(1);
    assert!(refused.stderr.contains("`--create`"), "{}", refused.stderr);
    let made = server.run(&directory, &["link", "--create"]).await.code(0);
    assert!(made.stderr.contains("new: project `web`"), "{}", made.stderr);
    server.run(&directory, &["variables", "set", "A=1"]).await.code(0);
    let settings = ["service", "settings", "start_command=node a.js"];
    server.run(&directory, &settings).await.code(0);
    let status = server.run(&directory, &["status", "--json"]).await.code(0);
    assert_eq!(status.json()["items"][0]["latest"], Value::Null);
}

#[tokio::test]
async fn logs_of_a_build() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    deployed(&server, &directory).await;
    let log = server
        .run(&directory, &["logs", "--build", "--follow"])
        .await
        .code(0);
    assert_eq!(
        log.stdout,
        "2026-01-01T00:00:00.000Z install | added 12 packages\n"
    );
    let json = server
        .run(&directory, &["logs", "--build", "--json", "--since", "100000d"])
        .await
        .code(0);
    assert_eq!(json.lines()[0]["text"], "added 12 packages");
    let none = server
        .run(&directory, &["logs", "--build", "nothing like it"])
        .await
        .code(0);
    assert_eq!(none.stdout, "");
    let empty = server.run(&directory, &["logs"]).await.code(0);
    assert_eq!(empty.stdout, "");
}

#[tokio::test]
async fn logs_of_a_build_that_took_an_image() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    deployed(&server, &directory).await;
    let arguments = ["deploy", "--image", "nginx", "--json"];
    let (ran, ()) = tokio::join!(server.run(&directory, &arguments), server.move_next_reused());
    ran.code(0);
    let log = server.run(&directory, &["logs", "--build"]).await.code(0);
    assert!(
        log.stdout.ends_with("install | added 12 packages\n"),
        "{}",
        log.stdout
    );
    assert_eq!(
        log.stderr,
        "v2 took the image of an earlier build; this is the log of that one\n"
    );
}

#[tokio::test]
async fn logs_since_a_time_and_the_newest() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    deployed(&server, &directory).await;
    let status = server.run(&directory, &["status", "--json"]).await.code(0).json();
    server.write_lines(&status["items"][0], 2_345);
    for (arguments, first, count) in [
        (&["logs"][..], 2_245, 100),
        (&["logs", "--since", "1h"], 0, 2_345),
        (&["logs", "--since", "1h", "--lines", "5"], 2_340, 5),
        (&["logs", "--lines", "1500"], 845, 1_500),
        (&["logs", "--limit", "3"], 2_342, 3),
        (&["logs", "--since", "1h", "line 23"], 23, 56),
    ] {
        let log = server.run(&directory, arguments).await.code(0);
        let lines: Vec<&str> = log.stdout.lines().collect();
        assert_eq!(lines.len(), count, "{arguments:?}");
        let wanted = format!("| line {first}");
        assert!(lines[0].ends_with(&wanted), "{arguments:?}: {}", lines[0]);
    }
    let none = server.run(&directory, &["logs", "--since", "2100-01-01T00:00:00Z"]);
    assert_eq!(none.await.code(0).stdout, "");
}

#[tokio::test]
async fn projects_environments_services_and_tokens() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    deployed(&server, &directory).await;
    server
        .run(&directory, &["environment", "create", "staging"])
        .await
        .code(0);
    let environments = server
        .run(&directory, &["environment", "list", "--json"])
        .await
        .code(0)
        .json();
    let names: Vec<&str> = environments
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["production", "staging"]);
    let unsaid = server
        .run(&directory, &["environment", "delete", "staging"])
        .await
        .code(2);
    assert!(unsaid.stderr.contains("--yes"), "{}", unsaid.stderr);
    server
        .run(&directory, &["environment", "delete", "staging", "--yes"])
        .await
        .code(0);
    assert!(
        server
            .run(&directory, &["service", "list"])
            .await
            .code(0)
            .stdout
            .contains("web")
    );
    server
        .run(&directory, &["project", "create", "other"])
        .await
        .code(0);
    let taken = server
        .run(&directory, &["project", "create", "other", "--json"])
        .await
        .code(1);
    assert_eq!(taken.json()["error"]["code"], "name_taken");
    let created = [
        "token",
        "create",
        "--name",
        "ci",
        "--scope",
        "deploy:web",
        "--json",
    ];
    let created = server.run(&directory, &created).await.code(0).json();
    assert!(created["secret"].as_str().unwrap().starts_with("fvt_"));
    let listed = server.run(&directory, &["token", "list"]).await.code(0);
    assert!(listed.stdout.contains("deploy:web"));
    let id = created["token"]["id"].as_str().unwrap();
    server.run(&directory, &["token", "revoke", id]).await.code(0);
}

#[tokio::test]
async fn doctor_speaks_in_sentences() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let sick = server.run(&directory, &["doctor"]).await.code(1);
    assert!(
        sick.stdout
            .contains("error    disk: the disk is full\n         buy another"),
        "{}",
        sick.stdout
    );
    let nowhere = [("FERROVIA_URL", "http://127.0.0.1:1"), ("FERROVIA_TOKEN", "x")];
    let away = server
        .run_with(&directory, &["doctor", "--json"], &nowhere, "")
        .await
        .code(1);
    assert_eq!(away.json()["findings"][0]["code"], "server_unreachable");
    let status = server
        .run_with(&directory, &["status", "--json"], &nowhere, "")
        .await
        .code(1);
    assert_eq!(status.json()["error"]["code"], "server_unreachable");
}

#[tokio::test]
async fn detect_needs_no_server() {
    let server = Server::start().await;
    let files = [
        ("package.json", r#"{"scripts":{"start":"node server.js"}}"#),
        ("server.js", ""),
    ];
    let (_root, directory) = directory("web", &files);
    let found = server
        .run_with(&directory, &["detect", "--json"], &[], "")
        .await
        .code(0);
    assert_eq!(found.json()["method"]["builder"], "auto");
    assert_eq!(found.json()["matches"][0]["provider"], "node");
    let words = server.run_with(&directory, &["detect"], &[], "").await.code(0);
    assert!(
        words.stdout.contains("start      node server.js"),
        "{}",
        words.stdout
    );
}
