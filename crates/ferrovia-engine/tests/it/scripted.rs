//! The Docker engine against a Docker that misbehaves: what a caller may conclude from each failure.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::workload::ImageReference;
use ferrovia_engine::docker::{DockerEngine, Options};
use ferrovia_engine::{Engine, Error};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::workload::{self, login};

/// What the scripted Docker does with a request.
enum Act {
    /// Answers.
    Answer(u16, String),
    /// Says nothing more.
    Hang,
    /// Begins an answer in chunks, and says nothing more.
    Begin(&'static str),
    /// Closes the connection.
    Close,
}

type Script = Arc<dyn Fn(&str) -> Act + Send + Sync>;

/// Serves a script at a socket; the answer counts connections.
fn serve(path: &Path, script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Arc<AtomicU32> {
    let listener = UnixListener::bind(path).unwrap();
    let script: Script = Arc::new(script);
    let connections = Arc::new(AtomicU32::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(connection(stream, script.clone()));
        }
    });
    connections
}

async fn connection(mut stream: UnixStream, script: Script) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        while buffer.len() < end + length.unwrap_or(0) {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        buffer.drain(..end + length.unwrap_or(0));
        let line = head
            .lines()
            .next()
            .unwrap_or_default()
            .trim_end_matches(" http/1.1")
            .to_owned();
        match script(&line) {
            Act::Answer(status, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Act::Begin(line) => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let chunk = format!("{head}{:x}\r\n{line}\r\n", line.len());
                stream.write_all(chunk.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Act::Hang => return std::future::pending().await,
            Act::Close => return,
        }
    }
}

fn version(api: &str, lowest: &str) -> Act {
    Act::Answer(
        200,
        format!(r#"{{"ApiVersion":"{api}","MinAPIVersion":"{lowest}"}}"#),
    )
}

fn engine(directory: &TempDir) -> DockerEngine {
    DockerEngine::new(Options {
        socket: directory.path().join("docker.sock"),
        installation: "scripted".into(),
        addresses: AddressPlan::default(),
        files: directory.path().join("files"),
    })
}

fn image() -> ImageReference {
    ImageReference {
        repository: "127.0.0.1:7071/a".into(),
        digest: format!("sha256:{}", "a".repeat(64)),
    }
}

/// A handle that looks like one.
fn handle() -> String {
    "0123456789abcdef".repeat(4)
}

/// A look at the scripted installation's own container.
fn inspected() -> Act {
    let body = serde_json::json!({
        "Id": handle(), "Name": "/n", "Created": "2026-01-01T00:00:00Z", "Path": "/p", "HostConfig": {},
        "State": { "Status": "running" }, "NetworkSettings": {},
        "Config": { "Labels": { "ferrovia.installation": "scripted" } },
    });
    Act::Answer(200, body.to_string())
}

#[tokio::test]
async fn nobody_there_means_that_nothing_happened() {
    let directory = TempDir::new().unwrap();
    let error = engine(&directory).find_image(&image()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(why) if why.contains("docker.sock")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_and_a_lost_connection_mean_unknown() {
    for hang in [true, false] {
        let directory = TempDir::new().unwrap();
        serve(&directory.path().join("docker.sock"), move |line| match line {
            "get /version" => version("1.41", "1.12"),
            line if line.starts_with("get ") => inspected(),
            _ if hang => Act::Hang,
            _ => Act::Close,
        });
        let engine = engine(&directory);
        assert!(matches!(
            engine.remove_image(&image()).await,
            Err(Error::Unknown { .. })
        ));
        for result in [
            engine.stop(&handle(), 10_000).await,
            engine.remove(&handle()).await,
        ] {
            assert!(matches!(result, Err(Error::Unknown { .. })), "{result:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_stands_still_ends() {
    let directory = TempDir::new().unwrap();
    serve(&directory.path().join("docker.sock"), |line| match line {
        "get /version" => version("1.41", "1.12"),
        line if line.starts_with("get ") => Act::Answer(404, r#"{"message":"No such image"}"#.into()),
        _ => Act::Begin("{\"status\":\"Downloading\"}\r\n"),
    });
    let error = engine(&directory)
        .ensure_image(&image(), &login())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unknown {
                call: "pull image",
                timeout_ms: 120_000
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn events_end_when_the_engine_does_not_answer_any_more() {
    let directory = TempDir::new().unwrap();
    let pings = Arc::new(AtomicU32::new(0));
    let count = pings.clone();
    serve(&directory.path().join("docker.sock"), move |line| match line {
        "get /version" => version("1.41", "1.12"),
        "get /v1.41/_ping" if count.fetch_add(1, Ordering::Relaxed) < 3 => Act::Answer(200, "OK".into()),
        "get /v1.41/_ping" => Act::Hang,
        _ => Act::Begin("{}\n"),
    });
    let mut events = engine(&directory).events().await.unwrap();
    assert!(matches!(events.next().await, Some(Err(Error::Unavailable(_)))));
    assert!(events.next().await.is_none());
    assert_eq!(pings.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn connections_are_used_again_and_an_upgrade_is_noticed() {
    let directory = TempDir::new().unwrap();
    let upgraded = Arc::new(AtomicU32::new(0));
    let state = upgraded.clone();
    let connections = serve(&directory.path().join("docker.sock"), move |line| {
        let new = state.load(Ordering::Relaxed) == 1;
        match line {
            "get /version" if new => version("1.53", "1.44"),
            "get /version" => version("1.41", "1.12"),
            line if line.starts_with("get /v1.41/images/json") && new => Act::Answer(
                400,
                r#"{"message":"client version 1.41 is too old. Minimum supported API version is 1.44"}"#
                    .into(),
            ),
            line if line.starts_with("get /v1.44/images/json") && new => Act::Answer(200, "[]".into()),
            line if line.starts_with("get /v1.41/images/json") => Act::Answer(200, "[]".into()),
            other => Act::Answer(500, format!("{{\"message\":\"{other}\"}}")),
        }
    });
    let engine = engine(&directory);
    for at in 0..20 {
        assert!(engine.images("x").await.unwrap().is_empty());
        upgraded.store(u32::from(at >= 10), Ordering::Relaxed);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_refused_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    serve(&directory.path().join("docker.sock"), |_| version("1.40", "1.12"));
    let error = engine(&directory).images("x").await.unwrap_err();
    assert!(error.to_string().contains("upgrade Docker"), "{error}");
}

#[tokio::test]
async fn secrets_are_not_in_errors() {
    let directory = TempDir::new().unwrap();
    serve(&directory.path().join("docker.sock"), |line| match line {
        "get /version" => version("1.41", "1.12"),
        "get /v1.41/networks" => Act::Answer(200, "[]".into()),
        _ => Act::Answer(500, "not json".into()),
    });
    let mut workload = workload::workload(workload::owner("web", 1), image());
    workload.variables = workload::variables(&[("KEY", "hunter2")]);
    workload.replicas = vec![workload::slot(1, [10, 210, 0, 9].into())];
    let error = tokio::time::timeout(Duration::from_secs(10), engine(&directory).apply(&workload))
        .await
        .unwrap();
    assert!(!format!("{error:?}").contains("hunter2"));
}
