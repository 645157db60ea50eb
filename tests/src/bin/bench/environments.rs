//! What a deploy, a change of the tables and a restart of the Docker Engine cost at 10, 100 and 1,000 environments.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrovia_tests::Failure;
use ferrovia_tests::app::{App, repository};
use ferrovia_tests::http::{self, Connection};
use ferrovia_tests::platform::{Engine, Platform};
use hyper::Method;
use serde_json::{Value, json};

use crate::report::{Report, median};

/// How many environments there are when it is measured.
const COUNTS: [usize; 3] = [10, 100, 1_000];
/// Deploys that are measured at each count.
const DEPLOYS: usize = 5;
/// Deploys that are under way at the same time while environments are made.
const AT_ONCE: usize = 4;
/// After how many environments more it says how far it is.
const PROGRESS_EVERY: usize = 50;
/// Longest wait for one step, in seconds.
const LONGEST_S: u64 = 120;

/// Makes environments with one small replica each and measures at every count.
pub async fn run() -> Result<Report, Failure> {
    let platform = Platform::start(Engine::Docker).await?;
    let app = App::example("dockerfile")?;
    let up = platform.up(&app, &["--project", "many", "--service", "web"])?;
    if up["outcome"] != "succeeded" {
        return Err(format!("the application did not come up: {up}").into());
    }
    let host = Platform::host(&up)?;
    let mut report = Report::default();
    let mut made = 1;
    for count in COUNTS {
        let began = Instant::now();
        while made < count {
            let batch: Vec<_> = (made..count.min(made + AT_ONCE)).collect();
            for number in &batch {
                let name = format!("e{number}");
                let output =
                    platform.run(app.path(), &["environment", "create", &name, "--project", "many"])?;
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
                }
                platform.up(
                    &app,
                    &[
                        "--project",
                        "many",
                        "--service",
                        "web",
                        "--environment",
                        &name,
                        "--detach",
                    ],
                )?;
            }
            for number in &batch {
                let host = format!("web-e{number}.localhost");
                let longest = Duration::from_secs(LONGEST_S);
                http::wait_for_answer(platform.http, &host, longest, |answer| answer.status == 200).await?;
            }
            made += batch.len();
            if made % PROGRESS_EVERY < batch.len() {
                println!("{made} environments after {} s", began.elapsed().as_secs());
            }
        }
        println!(
            "{count} environments: made {} s after the count before",
            began.elapsed().as_secs()
        );

        let mut deploys = Vec::new();
        for _ in 0..DEPLOYS {
            let result = platform.json(app.path(), &["redeploy", "--project", "many", "--service", "web"])?;
            deploys.push(
                result["durations_ms"]["deploy"]
                    .as_f64()
                    .ok_or_else(|| format!("no duration: {result}"))?,
            );
        }
        report.add(
            format!("{count} environments: deploy, median"),
            median(deploys),
            "ms",
            None,
        );
        report.add(
            format!("{count} environments: table update"),
            table_update(&platform, &host).await?,
            "ms",
            None,
        );
        report.add(
            format!("{count} environments: restart of dockerd"),
            restart_engine(&platform, &host).await?,
            "s",
            None,
        );
    }
    Ok(report)
}

/// From an accepted `down` to the edge's refusal, and back: the second half needs a container, the first only tables.
async fn table_update(platform: &Platform, host: &str) -> Result<f64, Failure> {
    let mut api = Connection::open(platform.api, "localhost").await?;
    let base = "/v1/projects/many/environments/production/services/web";
    let accepted = api
        .send_json(Method::POST, &format!("{base}/down"), &platform.token, &json!({}))
        .await?;
    let began = Instant::now();
    if accepted.status >= 300 {
        return Err(format!("down: {} {}", accepted.status, accepted.body).into());
    }
    let mut edge = Connection::open(platform.http, host).await?;
    let took = loop {
        if edge.send(Method::GET, "/", Bytes::new()).await?.status == 503 {
            break began.elapsed().as_secs_f64() * 1_000.0;
        }
        if began.elapsed() > Duration::from_secs(LONGEST_S) {
            return Err("the edge still answers".into());
        }
    };
    let again: Value = platform.json(
        &repository(),
        &["redeploy", "--project", "many", "--service", "web"],
    )?;
    if again["outcome"] != "succeeded" {
        return Err(format!("it did not come back: {again}").into());
    }
    Ok(took)
}

/// Restarts the engine that `script/docker-engine` started; containers must go on meanwhile.
async fn restart_engine(platform: &Platform, host: &str) -> Result<f64, Failure> {
    let script = repository().join("script/docker-engine");
    let began = Instant::now();
    for step in ["stop", "start"] {
        let status = Command::new(&script).arg(step).status()?;
        if !status.success() {
            return Err(format!("script/docker-engine {step} failed").into());
        }
        let answer = http::get(platform.http, host, "/").await?;
        if answer.status != 200 {
            return Err(format!(
                "after `{step}` of the engine the application answers {}",
                answer.status
            )
            .into());
        }
    }
    Ok(began.elapsed().as_secs_f64())
}
