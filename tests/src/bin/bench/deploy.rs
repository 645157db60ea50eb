//! From the accepted API request to the first 200 through the edge, with the image on the engine; beside it, in turn,
//! what the engine alone needs to create, start and answer with the same image and limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrovia_tests::Failure;
use ferrovia_tests::app::App;
use ferrovia_tests::http::{self, Connection};
use ferrovia_tests::platform::{Engine, Platform};
use hyper::Method;
use serde_json::{Value, json};

use crate::report::{Report, median};

/// Pairs that count.
const ROUNDS: u32 = 11;
/// Time against the engine alone that was promised.
const BOUND_RATIO: f64 = 1.3;
/// Time that was promised, in milliseconds.
const BOUND_MS: f64 = 1_000.0;
/// Pause between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 3;
/// Longest deploy that is waited for, in seconds.
const LONGEST_S: u64 = 60;
/// Where the Docker Engine answers.
const SOCKET: &str = "/var/run/docker.sock";

/// Measures pairs of a deploy and a bare container.
pub async fn run() -> Result<Report, Failure> {
    let platform = Platform::start(Engine::Docker).await?;
    let app = App::target("bench")?;
    let up = platform.up(&app, &[])?;
    if up["outcome"] != "succeeded" {
        return Err(format!("the application did not come up: {up}").into());
    }
    let host = Platform::host(&up)?;
    platform
        .settings("bench", "bench", &json!({ "drain_ms": 500 }))
        .await?;
    let image = image_of("ft-bench-").await?;

    let (mut ours, mut engine) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let deployed = deploy(&platform, &host).await?;
        settled("ft-bench-").await?;
        let bare = container(&image).await?;
        println!("round {round}: deploy {deployed:.0} ms, engine alone {bare:.0} ms");
        // The first pair warms both up.
        if round > 0 {
            ours.push(deployed);
            engine.push(bare);
        }
    }
    let ratios = ours
        .iter()
        .zip(&engine)
        .map(|(ours, engine)| ours / engine)
        .collect();
    let mut report = Report::default();
    report.add(
        "deploy: accepted request to first 200, median",
        median(ours),
        "ms",
        Some(BOUND_MS),
    );
    report.add(
        "engine alone: create, start, first 200, median",
        median(engine),
        "ms",
        None,
    );
    report.add("ratio of pairs, median", median(ratios), "x", Some(BOUND_RATIO));
    Ok(report)
}

async fn deploy(platform: &Platform, host: &str) -> Result<f64, Failure> {
    let before = http::get(platform.http, host, "/replica").await?.body;
    let mut api = Connection::open(platform.api, "localhost").await?;
    let mut edge = Connection::open(platform.http, host).await?;
    let path = "/v1/projects/bench/environments/production/services/bench/redeploy";
    let accepted = api
        .send_json(Method::POST, path, &platform.token, &json!({}))
        .await?;
    let began = Instant::now();
    if accepted.status >= 300 {
        return Err(format!("redeploy: {} {}", accepted.status, accepted.body).into());
    }
    while began.elapsed() < Duration::from_secs(LONGEST_S) {
        let answer = edge.send(Method::GET, "/replica", Bytes::new()).await?;
        if answer.status == 200 && answer.body != before {
            return Ok(began.elapsed().as_secs_f64() * 1_000.0);
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
    Err(format!(
        "no answer of the new deployment in {LONGEST_S} s\n{}",
        platform.logs()
    )
    .into())
}

/// Waits until only one container of the platform is left, so that the peer runs undisturbed.
async fn settled(prefix: &str) -> Result<(), Failure> {
    ferrovia_tests::wait::wait_for(
        "the end of the old replica",
        Duration::from_secs(LONGEST_S),
        || async {
            match containers(prefix).await {
                Ok(found) if found.len() == 1 => Ok(()),
                Ok(found) => Err(format!("{} containers", found.len())),
                Err(error) => Err(error.to_string()),
            }
        },
    )
    .await
}

async fn container(image: &str) -> Result<f64, Failure> {
    let mut docker = Connection::open_unix(Path::new(SOCKET)).await?;
    let spec = json!({
        "Image": image,
        "Env": ["PORT=8080"],
        "HostConfig": { "Memory": 512 << 20, "PidsLimit": 1024, "Init": true, "NetworkMode": "bridge" },
    });
    let began = Instant::now();
    let created = call(&mut docker, Method::POST, "/v1.41/containers/create", &spec).await?;
    let id = created["Id"]
        .as_str()
        .ok_or_else(|| format!("not created: {created}"))?
        .to_owned();
    call(
        &mut docker,
        Method::POST,
        &format!("/v1.41/containers/{id}/start"),
        &Value::Null,
    )
    .await?;
    let state = call(
        &mut docker,
        Method::GET,
        &format!("/v1.41/containers/{id}/json"),
        &Value::Null,
    )
    .await?;
    let address: Ipv4Addr = state["NetworkSettings"]["IPAddress"]
        .as_str()
        .ok_or("no address")?
        .parse()?;
    let answered = loop {
        match http::get(SocketAddr::from((address, 8080)), "localhost", "/replica").await {
            Ok(answer) if answer.status == 200 => break Ok(began.elapsed().as_secs_f64() * 1_000.0),
            _ if began.elapsed() > Duration::from_secs(LONGEST_S) => {
                break Err("the bare container did not answer");
            }
            _ => tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await,
        }
    };
    call(
        &mut docker,
        Method::DELETE,
        &format!("/v1.41/containers/{id}?force=true"),
        &Value::Null,
    )
    .await?;
    Ok(answered?)
}

async fn containers(prefix: &str) -> Result<Vec<Value>, Failure> {
    let mut docker = Connection::open_unix(Path::new(SOCKET)).await?;
    let all = call(
        &mut docker,
        Method::GET,
        "/v1.41/containers/json?all=true",
        &Value::Null,
    )
    .await?;
    let ours = |container: &Value| {
        container["Names"][0]
            .as_str()
            .is_some_and(|name| name.trim_start_matches('/').starts_with(prefix))
    };
    Ok(all
        .as_array()
        .ok_or("no list")?
        .iter()
        .filter(|container| ours(container))
        .cloned()
        .collect())
}

async fn image_of(prefix: &str) -> Result<String, Failure> {
    let found = containers(prefix).await?;
    let container = found.first().ok_or("no container of the platform")?;
    Ok(container["ImageID"].as_str().ok_or("no image")?.to_owned())
}

async fn call(docker: &mut Connection, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
    let answer = docker.send_json(method, path, "", body).await?;
    if answer.status >= 300 {
        return Err(format!("{path}: {} {}", answer.status, answer.body).into());
    }
    Ok(serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}
