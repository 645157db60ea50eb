//! What the engine adds to what Docker needs itself, side by side.

use std::time::{Duration, Instant};

use ferrovia_engine::{Engine, Scope};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::contract::clear;
use crate::docker_lab::{Lab, socket};

/// Rounds that are compared.
const ROUNDS: u32 = 7;

/// One request over a connection of its own, as plain as can be; the answer's body.
async fn raw(path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket()).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn apply_costs_little_more_than_create_and_start() {
    let lab = Lab::new().await;
    let bridge = lab.options.addresses.bridge(0).unwrap().interface;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let workload = lab.script("speed", "exec sleep infinity");
        let begun = Instant::now();
        let made = lab.engine.apply(&workload).await.unwrap();
        ours.push(begun.elapsed());
        clear(&lab.engine, &made).await;

        let begun = Instant::now();
        let body = json!({
            "Image": lab.image.to_string(), "Cmd": ["sleep", "infinity"],
            "Labels": { "ferrovia.installation": lab.options.installation },
            "HostConfig": { "NetworkMode": bridge, "Init": true },
        });
        let name = format!("{}-{round}", lab.options.installation);
        let created = raw(
            &format!("/v1.41/containers/create?name={name}"),
            &body.to_string(),
        )
        .await;
        let id = created.split('"').nth(3).unwrap().to_owned();
        raw(&format!("/v1.41/containers/{id}/start"), "").await;
        plain.push(begun.elapsed());
        raw(&format!("/v1.41/containers/{id}/kill"), "").await;
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (ours, plain) = (median(&mut ours), median(&mut plain));
    let begun = Instant::now();
    for _ in 0..20 {
        lab.engine.observe(Scope::All).await.unwrap();
    }
    let observe = begun.elapsed() / 20;
    eprintln!("apply {ours:?}, create and start {plain:?}, observe of nothing {observe:?}");
    assert!(
        ours < plain * 13 / 10 + Duration::from_millis(30),
        "apply {ours:?}, create and start {plain:?}"
    );
}
