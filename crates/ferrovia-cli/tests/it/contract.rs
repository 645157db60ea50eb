//! Which commands there are, which are not, and what each gives with `--json`.

use serde_json::Value;

use crate::server::{Server, directory};

/// Every command of the contract that exists.
const COMMANDS: [&str; 22] = [
    "login",
    "link",
    "whoami",
    "up",
    "deploy",
    "detect",
    "status",
    "logs",
    "open",
    "redeploy",
    "restart",
    "cancel",
    "scale",
    "hold",
    "release",
    "down",
    "variables",
    "service",
    "project",
    "environment",
    "token",
    "doctor",
];

#[tokio::test]
async fn the_commands_are_those_of_the_contract() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let help = server.run(&directory, &["--help"]).await.code(0);
    let listed = help.stdout.split("Commands:").nth(1).unwrap();
    let listed = listed.split("Options:").next().unwrap();
    let names = |line: &str| {
        line.strip_prefix("  ")
            .and_then(|line| line.split(' ').next().map(str::to_owned))
    };
    let mut listed: Vec<String> = listed
        .lines()
        .filter_map(names)
        .filter(|name| !name.is_empty() && name != "help")
        .collect();
    listed.sort_unstable();
    let mut wanted = COMMANDS.map(str::to_owned);
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    for command in COMMANDS {
        let help = server.run(&directory, &[command, "--help"]).await.code(0);
        assert!(help.stdout.contains("--json"), "{command}: {}", help.stdout);
    }
    for absent in [
        "rollback", "events", "exec", "run", "volume", "plan", "apply", "domain",
    ] {
        let refused = server.run(&directory, &[absent]).await.code(2);
        assert!(
            refused.stderr.contains("unrecognized subcommand"),
            "{}",
            refused.stderr
        );
    }
    server.run(&directory, &["logs", "--http"]).await.code(2);
}

#[tokio::test]
async fn one_json_value_whatever_happens() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[("index.html", "<h1>hello</h1>")]);
    let made = server.run(
        &directory,
        &["deploy", "--image", "nginx", "--create", "--detach"],
    );
    made.await.code(0);
    for arguments in [
        &["whoami"][..],
        &["link"],
        &["status"],
        &["open"],
        &["hold"],
        &["release"],
        &["scale", "2"],
        &["cancel"],
        &["down"],
        &["detect"],
        &["variables"],
        &["variables", "set", "A=1"],
        &["variables", "unset", "A"],
        &["variables", "--shared"],
        &["service", "list"],
        &["service", "settings"],
        &["service", "settings", "health_path=/up"],
        &["project", "list"],
        &["project", "create", "other"],
        &["project", "delete", "other", "--yes"],
        &["environment", "list"],
        &["environment", "create", "staging"],
        &["environment", "delete", "staging", "--yes"],
        &["token", "list"],
        &["token", "create", "--name", "x"],
        &["service", "delete", "web", "--yes"],
    ] {
        let ran = server
            .run(&directory, &[arguments, &["--json"]].concat())
            .await
            .code(0);
        let value = ran.json();
        assert!(value.is_object() || value.is_array(), "{arguments:?}: {value}");
        assert_eq!(ran.stdout.lines().count(), 1, "{arguments:?}");
    }
    // What fails is told as JSON too, with a code that has a page.
    for arguments in [
        &["status", "--project", "nope"][..],
        &["restart", "--project", "nope"],
        &["redeploy", "--project", "nope"],
        &["logs", "--project", "nope"],
        &["open", "--service", "nope"],
        &["variables", "--environment", "nope"],
        &["token", "revoke", "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e"],
    ] {
        let ran = server
            .run(&directory, &[arguments, &["--json"]].concat())
            .await
            .code(1);
        let error: &Value = &ran.lines().pop().unwrap()["error"];
        assert!(
            error["code"].as_str().unwrap().ends_with("_not_found"),
            "{arguments:?}: {error}"
        );
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains('`')),
            "{error}"
        );
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_deploy_token_reaches_its_project_only() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let made = server.run(
        &directory,
        &["deploy", "--image", "nginx", "--create", "--detach"],
    );
    made.await.code(0);
    server
        .run(&directory, &["project", "create", "other"])
        .await
        .code(0);
    let create = ["token", "create", "--name", "ci", "--scope", "deploy:web"];
    let token = server.run(&directory, &create).await.code(0).stdout;
    let url = server.url();
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", token.trim())];
    let with = |arguments: &'static [&'static str]| server.run_with(&directory, arguments, &environment, "");
    let who = with(&["whoami", "--json"]).await.code(0);
    assert_eq!(who.json()["scope"], "deploy:web");
    with(&["deploy", "--image", "redis", "--detach"]).await.code(0);
    with(&["status"]).await.code(0);
    let listed = with(&["project", "list", "--json"]).await.code(0);
    assert!(!listed.stdout.contains("other"), "{}", listed.stdout);
    // What is there and what is not look the same.
    let there = with(&["status", "--project", "other", "--json"]).await.code(1);
    let nowhere = with(&["status", "--project", "nowhere", "--json"]).await.code(1);
    assert_eq!(there.stdout, nowhere.stdout);
    assert_eq!(there.json()["error"]["code"], "scope_denied");
    with(&["token", "list"]).await.code(1);
    with(&["environment", "create", "staging"]).await.code(1);
    with(&["project", "delete", "web", "--yes"]).await.code(1);
}
