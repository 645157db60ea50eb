//! A server of a test, the binary called against it, and a hand that moves deployments.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_api::system::{Component, Finding, Level};
use ferrovia_build::tree::TreeStore;
use ferrovia_control::Live;
use ferrovia_control::usecase::{Parts, PublicSite, UseCases};
use ferrovia_core::error::Report;
use ferrovia_core::id::{BuildId, InstanceId, TokenId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::outcome::Outcome;
use ferrovia_core::permission::Scope;
use ferrovia_core::workload::ImageReference;
use ferrovia_log::{CursorChange, Limits, NewLine, Stream, Writer, place};
use ferrovia_server::http::{Installation, State, router, serve};
use ferrovia_store::seal::Keyring;
use ferrovia_store::token::{self, NewToken};
use ferrovia_store::{Clock, build, deployment, image, intent, queue, team};
use ferrovia_testkit::{TestDb, database};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// A server with an owner's token.
pub struct Server {
    pub test: TestDb,
    pub directory: tempfile::TempDir,
    pub token: String,
    pub address: SocketAddr,
    _ended: DropGuard,
}

struct Sick;

#[async_trait]
impl Installation for Sick {
    async fn components(&self) -> Vec<Component> {
        Vec::new()
    }

    async fn examine(&self) -> Vec<Finding> {
        vec![Finding {
            level: Level::Error,
            subject: "disk".into(),
            code: "disk_full".into(),
            message: "the disk is full".into(),
            hint: Some("buy another".into()),
        }]
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

/// What a call of the binary did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The same, which must have ended with this code.
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// The one JSON value on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The JSON values on stdout, one a line.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Server {
    pub async fn start() -> Self {
        let test = database().await;
        let directory = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(&test.db, directory.path()).await.unwrap();
        let cases = UseCases::new(Parts {
            db: test.db.clone(),
            clock: Clock::system(),
            keyring: Arc::new(keyring),
            addresses: AddressPlan::default(),
            site: PublicSite {
                apps_domain: "localhost".into(),
                scheme: "http",
                port: 8080,
            },
            trees: TreeStore::new(directory.path().join("trees")),
            logs: directory.path().join("logs"),
            live: Arc::new(Live::new(Vec::new(), 1)),
            version: "0.0.0-test".into(),
        });
        cases.ensure_installation(Uuid::now_v7()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = CancellationToken::new();
        let router = router(State::new(cases, Arc::new(Sick)));
        tokio::spawn(serve::serve_tcp(listener, router, ended.clone()));
        let token = owner_token(&test).await;
        Self {
            test,
            directory,
            token,
            address,
            _ended: ended.drop_guard(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls the binary in a directory, with nothing of the caller's environment but a place for its file.
    pub async fn run(&self, directory: &Path, arguments: &[&str]) -> Ran {
        self.run_with(
            directory,
            arguments,
            &[("FERROVIA_URL", &self.url()), ("FERROVIA_TOKEN", &self.token)],
            "",
        )
        .await
    }

    pub async fn run_with(
        &self,
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: &str,
    ) -> Ran {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_ferrovia"))
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FERROVIA_CONFIG_DIR", self.directory.path().join("config"))
            .env("FERROVIA_RUN_DIR", self.directory.path().join("nowhere"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        let output = output.await.expect("the command ends").unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Waits for the next build that is due, writes a line to its log and ends it and its deployment.
    pub async fn move_next(&self, error: Option<Report>) {
        let build_id = self.next_build().await;
        self.write_build_line(build_id);
        self.end_build(build_id, error, false).await;
    }

    /// The same with a build that takes over the image of an earlier one, and writes nothing.
    pub async fn move_next_reused(&self) {
        let build_id = self.next_build().await;
        self.end_build(build_id, None, true).await;
    }

    /// Writes lines of the application, each with a number, one a millisecond up to now.
    pub fn write_lines(&self, instance: &Value, count: u32) {
        let id = InstanceId::from_uuid(instance["id"].as_str().unwrap().parse().unwrap());
        let log = place::of_instance(&self.directory.path().join("logs"), id);
        let mut writer = Writer::open(&log, Limits::default()).unwrap();
        let begin_ms = Clock::system().now_ms() - i64::from(count);
        for n in 0..count {
            let text = format!("line {n}");
            let line = NewLine {
                at_ms: begin_ms + i64::from(n),
                stream: Stream::Stdout,
                source: "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e",
                deployment: None,
                text: &text,
                continues: false,
            };
            writer.append(&[line], &[] as &[CursorChange<'_>]).unwrap();
        }
    }

    fn write_build_line(&self, build_id: BuildId) {
        let log = place::of_build(&self.directory.path().join("logs"), build_id);
        let mut writer = Writer::open(&log, Limits::default()).unwrap();
        let line = NewLine {
            at_ms: 1_767_225_600_000,
            stream: Stream::Stdout,
            source: "install",
            deployment: None,
            text: "added 12 packages",
            continues: false,
        };
        writer.append(&[line], &[] as &[CursorChange<'_>]).unwrap();
    }

    async fn end_build(&self, build_id: BuildId, error: Option<Report>, reused: bool) {
        let image = ImageReference {
            repository: "127.0.0.1:7071/apps/x".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
        };
        self.test
            .db
            .tx::<_, ferrovia_store::Error>(move |tx| {
                Box::pin(async move {
                    let row = image::Image {
                        reference: image.clone(),
                        size_bytes: 1,
                        config: serde_json::json!({}),
                        created_ms: 1,
                        condemned_ms: None,
                    };
                    image::ensure(tx, &row).await?;
                    let (id, instance) = build::waiting(tx, build_id).await?[0];
                    let now_ms = Clock::system().now_ms();
                    if let Some(report) = &error {
                        let outcome = build::Outcome::Failed;
                        build::end(tx, build_id, outcome, Some(report), now_ms).await?;
                        return deployment::end(tx, id, Outcome::Failed, Some(report), &[], now_ms).await;
                    }
                    build::succeed(tx, build_id, &image, reused, now_ms).await?;
                    deployment::begin(tx, id, 3, 41, now_ms).await?;
                    deployment::end(tx, id, Outcome::Succeeded, None, &[], now_ms + 6).await?;
                    intent::set_target(tx, instance, Some(id)).await
                })
            })
            .await
            .unwrap();
    }

    async fn next_build(&self) -> BuildId {
        let lease = Duration::from_secs(60);
        loop {
            let due = queue::claim(&self.test.db, "test", "build", 10, 1, lease)
                .await
                .unwrap();
            if let Some(lease) = due.into_iter().next() {
                let id = lease.key.parse().unwrap();
                self.test
                    .db
                    .tx(move |tx| Box::pin(async move { lease.finish(tx, &queue::Outcome::Done).await }))
                    .await
                    .unwrap();
                return id;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn owner_token(test: &TestDb) -> String {
    let text = token::generate().unwrap();
    let team = team::find_first(&mut test.db.conn().await.unwrap())
        .await
        .unwrap()
        .unwrap();
    let new = NewToken {
        id: TokenId::from_uuid(Uuid::now_v7()),
        team_id: team.id,
        name: "test".into(),
        scope: Scope::Owner,
        created_ms: 1,
    };
    let secret = text.clone();
    test.db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move { token::insert(tx, &new, &secret).await })
        })
        .await
        .unwrap();
    text.expose().to_owned()
}

/// A directory with files.
pub fn directory(name: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(name);
    std::fs::create_dir(&directory).unwrap();
    for (path, text) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (root, directory)
}
