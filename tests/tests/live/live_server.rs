//! `script/server` as a newcomer runs it, with binaries already built: what it prints is true, Ctrl-C ends everything,
//! and a second start finds the data.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ferrovia_tests::app::repository;
use ferrovia_tests::http;
use ferrovia_tests::installation::{DOCKER_SOCKET, Engine, Installation, Kind, binary, lives};
use ferrovia_tests::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process_group};

/// Longest time until the sample runs, base images included.
const FIRST_START: Duration = Duration::from_secs(600);
/// Longest time until a second start is ready; the test fails at three times it.
const SECOND_START: Duration = Duration::from_secs(5);
/// Longest time until everything has stopped, or has come back.
const SETTLED: Duration = Duration::from_secs(60);
/// How long `ferrovia logs --follow` is watched, in seconds.
const FOLLOWED_S: &str = "5";
/// What `timeout` exits with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// What `up` says of a new application.
const DEPLOYING: [&str; 3] = ["new: project", "sent ", " queued"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_prints_works_and_a_second_start_finds_the_data() {
    let installation = Installation::new(Engine::Docker, Path::new(DOCKER_SOCKET)).unwrap();

    let mut first = Script::start(&installation);
    let printed = first.ready(FIRST_START).await;
    let steps: Vec<&str> = printed.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(steps.len(), 7, "{printed}");
    for (index, step) in steps.iter().enumerate() {
        assert!(step.starts_with(&format!("[{}/7] ", index + 1)), "{printed}");
    }
    for word in DEPLOYING {
        assert!(
            printed.contains(word),
            "nothing of the first deployment (`{word}`): {printed}"
        );
    }
    let next = next_commands(&printed);
    let (follow, others) = next.split_last().unwrap();
    assert!(
        others.iter().any(|line| line.starts_with("curl http://")),
        "{next:?}"
    );
    assert!(follow.ends_with("logs --follow"), "{next:?}");
    let (code, output) = first.run(&others.join("\n"));
    assert_eq!(code, 0, "{next:#?}\n{output}\n{printed}");
    // It prints lines until somebody ends it.
    let (code, output) = first.run(&format!(
        "{}\ntimeout {FOLLOWED_S} {follow}",
        others
            .iter()
            .map(|line| line.split(" && ferrovia up").next().unwrap_or_default())
            .filter(|line| line.starts_with("export ") || line.starts_with("cd "))
            .collect::<Vec<_>>()
            .join("\n")
    ));
    assert_eq!(code, TIMED_OUT, "{output}");
    assert_eq!(installation.objects(Kind::RunningContainers).unwrap().len(), 2);
    let processes = installation.processes().unwrap();
    let ended = first.interrupt().await;
    assert!(ended.success(), "{ended}: {}", first.printed());
    let running = installation.objects(Kind::RunningContainers).unwrap();
    assert!(running.is_empty(), "applications outlived Ctrl-C: {running:?}");
    for (name, pid) in processes {
        assert!(!lives(pid), "{name} outlived Ctrl-C");
    }

    // In the middle of its start it stops as well, whichever of its own commands met the signal first.
    let mut early = Script::start(&installation);
    wait_for("a process of the platform", SETTLED, || async {
        let pid = installation.pid_of("node").map_err(|error| error.to_string())?;
        lives(pid).then_some(()).ok_or_else(|| "not started".to_owned())
    })
    .await
    .unwrap();
    early.interrupt().await;
    for unit in ["control", "edge", "node"] {
        let pid = installation.pid_of(unit);
        assert!(
            !pid.is_ok_and(lives),
            "{unit} outlived Ctrl-C in the middle of a start"
        );
    }
    let pid = installation.postgres_pid();
    assert!(
        !pid.is_ok_and(lives),
        "PostgreSQL outlived Ctrl-C in the middle of a start"
    );

    let began = Instant::now();
    let mut second = Script::start(&installation);
    let printed = second.ready(3 * SECOND_START).await;
    println!("a second start is ready after {} ms", began.elapsed().as_millis());
    for word in DEPLOYING {
        assert!(
            !printed.contains(word),
            "the sample is deployed again (`{word}`): {printed}"
        );
    }
    let url = next_commands(&printed)
        .iter()
        .find_map(|line| line.strip_prefix("curl http://").map(str::to_owned))
        .unwrap();
    let host = url.split([':', '/']).next().unwrap().to_owned();
    http::wait_for_answer(installation.http, &host, SETTLED, |answer| answer.status == 200)
        .await
        .unwrap();
    let ended = second.interrupt().await;
    assert!(ended.success(), "{ended}: {}", second.printed());
}

/// The commands under "Next, in another terminal:".
fn next_commands(printed: &str) -> Vec<String> {
    printed
        .lines()
        .skip_while(|line| !line.starts_with("Next, in another terminal"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.trim().to_owned())
        .collect()
}

/// A running `script/server`, in a process group of its own as in a terminal.
struct Script {
    child: Child,
    output: PathBuf,
    config_home: PathBuf,
}

impl Script {
    fn start(installation: &Installation) -> Self {
        let output = installation.dir().join("script.log");
        let config_home = installation.dir().join("config");
        let file = File::create(&output).unwrap();
        let binaries = binary("ferroviad").unwrap().parent().unwrap().to_owned();
        let child = Command::new(repository().join("script/server"))
            .arg("--binaries")
            .arg(binaries)
            .arg("--")
            .args(installation.flags())
            .env("XDG_CONFIG_HOME", &config_home)
            .env_remove("SUDO_USER")
            .env_remove("SSH_CONNECTION")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            child,
            output,
            config_home,
        }
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until it says that everything runs; what it printed so far.
    async fn ready(&mut self, deadline: Duration) -> String {
        let output = self.output.clone();
        let printed = wait_for("the last word of script/server", deadline, || {
            let ended = self.child.try_wait().unwrap();
            let printed = std::fs::read_to_string(&output).unwrap_or_default();
            async move {
                assert!(ended.is_none(), "it ended: {printed}");
                if printed.contains("\nCtrl-C stops everything") {
                    Ok(printed)
                } else {
                    Err(printed)
                }
            }
        });
        printed.await.unwrap()
    }

    /// Runs lines as somebody types them in another terminal; the exit status and what was printed.
    fn run(&self, lines: &str) -> (i32, String) {
        let output = Command::new("bash")
            .args(["-ec", lines])
            .env("XDG_CONFIG_HOME", &self.config_home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code().unwrap_or(-1), printed)
    }

    /// Ctrl-C: the terminal sends it to every process of the group. How the script ended.
    async fn interrupt(&mut self) -> ExitStatus {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
        let child = &mut self.child;
        let ended = wait_for("the end of script/server", SETTLED, || {
            let ended = child.try_wait().unwrap();
            async move { ended.ok_or_else(|| "it runs".to_owned()) }
        });
        ended.await.unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.printed());
        }
        if let Ok(None) = self.child.try_wait()
            && let Some(group) = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default())
        {
            let _ = kill_process_group(group, Signal::INT);
            let _ = self.child.wait();
        }
    }
}
