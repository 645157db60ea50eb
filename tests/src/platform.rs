//! A whole platform for a test, from empty directories to the last container.

use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::installation::{DOCKER_SOCKET, Installation};
pub use crate::installation::{Engine, binary};
use crate::wait::wait_for;
use crate::{Failure, app, http};

/// How long a platform may take to become ready, in seconds.
const READY_S: u64 = 60;

/// A running platform; stopped and taken away when dropped.
#[derive(Debug)]
pub struct Platform {
    serve: Option<Child>,
    installation: Installation,
    /// An API token of scope `owner`.
    pub token: String,
}

impl Deref for Platform {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}

impl Platform {
    /// Starts a platform with an empty data directory and waits until it is ready.
    ///
    /// # Errors
    /// When a binary is missing or the platform does not become ready.
    pub async fn start(engine: Engine) -> Result<Self, Failure> {
        Self::start_on(engine, Path::new(DOCKER_SOCKET)).await
    }

    /// As [`Platform::start`], with the Docker Engine behind this socket.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub async fn start_on(engine: Engine, docker: &Path) -> Result<Self, Failure> {
        let mut platform = Self {
            serve: None,
            installation: Installation::new(engine, docker)?,
            token: String::new(),
        };
        platform.serve().await?;
        platform.token = platform
            .daemon(&["token", "create", "--name", "tests"])?
            .trim()
            .to_owned();
        Ok(platform)
    }

    /// Starts `ferroviad serve` (again) and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn serve(&mut self) -> Result<(), Failure> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir().join("serve.log"))?;
        let serve = Command::new(binary("ferroviad")?)
            .arg("serve")
            .args(self.flags())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.serve = Some(serve);
        let api = self.api;
        let ready = wait_for(
            "the platform's readiness",
            Duration::from_secs(READY_S),
            || async move {
                match http::get(api, "localhost", "/readyz").await {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    Ok(answer) => Err(answer.body),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await;
        ready.map_err(|error| format!("{error}\n{}", self.logs()).into())
    }

    /// The process id of `serve`.
    pub fn serve_pid(&self) -> Option<u32> {
        self.serve.as_ref().map(Child::id)
    }

    /// Runs `ferrovia` against this platform.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, dir: &Path, arguments: &[&str]) -> Result<Output, Failure> {
        Ok(Command::new(binary("ferrovia")?)
            .args(arguments)
            .current_dir(dir)
            .env("HOME", self.dir())
            .env_remove("XDG_CONFIG_HOME")
            .env("FERROVIA_URL", format!("http://{}", self.api))
            .env("FERROVIA_TOKEN", &self.token)
            .stdin(Stdio::null())
            .output()?)
    }

    /// Runs `ferrovia … --json` and gives its last line; the exit status must be 0 or 1.
    ///
    /// # Errors
    /// When there is no JSON or the status is another.
    pub fn json(&self, dir: &Path, arguments: &[&str]) -> Result<Value, Failure> {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.run(dir, &all)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let context = || {
            format!(
                "ferrovia {}: {last}\n{}",
                all.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(format!("{} {}", output.status, context()).into());
        }
        serde_json::from_str(last).map_err(|error| format!("{error}: {}", context()).into())
    }

    /// Changes settings of a service in `production`; the next deployment has them.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn settings(&self, project: &str, service: &str, change: &Value) -> Result<(), Failure> {
        let path = format!("/v1/projects/{project}/environments/production/services/{service}/settings");
        let mut connection = http::Connection::open(self.api, "localhost").await?;
        let answer = connection
            .send_json(hyper::Method::PATCH, &path, &self.token, change)
            .await?;
        if answer.status >= 300 {
            return Err(format!("PATCH {path}: {} {}", answer.status, answer.body).into());
        }
        Ok(())
    }

    /// `ferrovia up` of an application.
    ///
    /// # Errors
    /// As [`Platform::json`].
    pub fn up(&self, app: &app::App, more: &[&str]) -> Result<Value, Failure> {
        let mut arguments = vec!["up", "--create"];
        arguments.extend_from_slice(more);
        self.json(app.path(), &arguments)
    }

    /// The host name of a result's URL.
    ///
    /// # Errors
    /// When there is no URL.
    pub fn host(result: &Value) -> Result<String, Failure> {
        let url = result["url"]
            .as_str()
            .ok_or_else(|| format!("no url in {result}"))?;
        let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
        Ok(rest.split(['/', ':']).next().unwrap_or_default().to_owned())
    }

    /// The ends of the platform's own logs, for messages of failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let data = self.data_dir();
        for file in [
            self.dir().join("serve.log"),
            data.join("log/control.log"),
            data.join("log/node.log"),
            data.join("edge/edge.log"),
        ] {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            text.push_str(&format!("--- {}\n", file.display()));
            for line in tail.into_iter().rev() {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Ends everything of this platform, applications too.
    ///
    /// # Errors
    /// When `ferroviad stop` fails.
    pub fn stop(&mut self) -> Result<(), Failure> {
        let stopped = self.daemon(&["stop"]);
        if let Some(mut serve) = self.serve.take() {
            let _ = serve.kill();
            let _ = serve.wait();
        }
        stopped.map(|_| ())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}
