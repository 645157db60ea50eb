//! Generated requests against the API behind a listener, after its own document: no answer with a status of 500 or
//! above, and none that the document does not have. Live since the tool comes from a package index the first time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::api::Api;

/// Longest time for both runs together, in seconds.
const TIME_LIMIT_S: u64 = 240;
/// Of them for generating requests over and over, in seconds.
const FUZZING_S: u64 = 80;
/// Sets another seed than the one of every run.
const SEED: &str = "FERROVIA_TEST_SEED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation() {
    let api = Api::new().await;
    let seed = std::env::var(SEED).unwrap_or_else(|_| "20260101".to_owned());
    println!("seed {seed}; another one with `{SEED}`");
    let seed = format!("--seed={seed}");
    let runs = async {
        on_whatever_there_is(&api, &seed).await;
        on_one_service(&api, &seed).await;
        on_tokens(&api, &seed).await;
    };
    tokio::time::timeout(Duration::from_secs(TIME_LIMIT_S), runs)
        .await
        .unwrap_or_else(|_| panic!("the runs took more than {TIME_LIMIT_S} s"));
}

/// Everything, on objects that the requests themselves make or that are not there.
async fn on_whatever_there_is(api: &Api, seed: &str) {
    let time = format!("--max-time={FUZZING_S}");
    // Revoking tokens would end the run's own.
    let options = [seed, &time, "--exclude-operation-id=revoke_token"];
    run(api, "", &options).await;
}

/// What is below one service that was deployed; nothing that deletes it.
async fn on_one_service(api: &Api, seed: &str) {
    api.target().await;
    let deployment = api.deploy().await;
    api.succeed(&deployment).await;
    let part = |name: &str| deployment[name].as_str().unwrap();
    let path = format!(
        "project=shop environment=production service=web deployment={} build={}",
        part("id"),
        part("build_id")
    );
    let options = [
        seed,
        "--max-examples=8",
        "--phases=examples,coverage,fuzzing",
        "--include-path-regex=[{](project|deployment|build)[}]",
        "--exclude-method=DELETE",
    ];
    run(api, &path, &options).await;
}

/// Revoking, with ids that no token has.
async fn on_tokens(api: &Api, seed: &str) {
    let options = [
        seed,
        "--include-operation-id=revoke_token",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=50",
    ];
    run(api, "", &options).await;
}

async fn run(api: &Api, path: &str, options: &[&str]) {
    let checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "allow_header_conformance",
    ];
    let (address, _guard) = api.listen().await;
    let output = tokio::process::Command::new("script/schemathesis")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("FERROVIA_SCHEMATHESIS_PATH", path)
        .env("FERROVIA_TOKEN", &api.owner)
        .arg(format!("http://{address}"))
        .arg(format!("--checks={}", checks.join(",")))
        .args(["--max-failures=20", "--no-shrink", "--continue-on-failure"])
        // Threads that parse Python at the same time make CPython 3.11 fail (python/cpython#106905).
        .arg("--workers=1")
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    let summary = told
        .split_once("= SUMMARY =")
        .map_or(told.as_str(), |(_, rest)| rest);
    println!("{summary}");
}
