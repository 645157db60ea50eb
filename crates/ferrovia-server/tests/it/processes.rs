//! The processes of the platform as they are started from a shell, without an engine and without a database.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferrovia_edge::command;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// Longest time for anything here to come about, in milliseconds.
const DEADLINE_MS: u64 = 30_000;
/// Longer than any test, in milliseconds.
const LONG_MS: u64 = 600_000;

fn ferroviad(directory: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferroviad"));
    command
        .arg(subcommand)
        .arg(format!("--data-dir={}", directory.join("data").display()))
        .arg(format!("--run-dir={}", directory.join("run").display()))
        .arg("--engine=fake")
        .stdin(Stdio::null());
    command
}

/// Every process with the directory among its arguments.
fn processes_of(directory: &Path) -> Vec<Vec<String>> {
    let wanted = directory.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| {
            let words = line.split(|byte| *byte == 0);
            words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect()
        })
        .filter(|words: &Vec<String>| words.iter().any(|word| word.contains(wanted)))
        .collect()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            began.elapsed() < Duration::from_millis(DEADLINE_MS),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn end(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    until("the end of `serve`", || child.try_wait().unwrap());
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_given() {
    let directory = tempfile::tempdir().unwrap();
    let mut stop = ferroviad(directory.path(), "stop");
    for name in [
        "DATA_DIR",
        "RUN_DIR",
        "CONFIG",
        "DATABASE_URL",
        "DATABASE_URL_FILE",
        "ENGINE",
        "DOCKER_HOST",
        "API_LISTEN",
        "REGISTRY_LISTEN",
        "HTTP_LISTEN",
        "APPS_DOMAIN",
        "BUILD_EXTRA_CA_FILE",
        "BUILDKIT_DIR",
        "BUILD_SEED_DIR",
    ] {
        stop.env(format!("FERROVIA_{name}"), "");
    }
    let output = stop.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn what_is_just_being_started_ends_with_serve() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // `serve` is told its configuration; the others wait for theirs, before they have taken their locks.
    let file = directory.join("f.toml");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let address = free_address();
    let mut serve = ferroviad(directory, "serve")
        .arg(format!("--config={}", file.display()))
        .arg(format!("--http-listen={address}"))
        .env("FERROVIA_DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opened by both ends at once: nothing is left in it for whoever comes next.
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all(b"\n")
        .unwrap();
    let runs = |unit: &str| {
        let of = processes_of(directory);
        of.iter()
            .any(|words| words.get(1).is_some_and(|word| word == unit))
    };
    until("everything is being started", || {
        ["control", "node", "fake-engine"]
            .iter()
            .all(|unit| runs(unit))
            .then_some(())
    });
    end(&mut serve);
    for unit in ["control", "node", "fake-engine"] {
        assert!(!runs(unit), "`{unit}` lives on: {:?}", processes_of(directory));
    }
    // The edge reads no file, and may have come up.
    let stopped = ferroviad(directory, "stop").output().unwrap();
    assert!(
        stopped.status.success(),
        "{}",
        String::from_utf8_lossy(&stopped.stderr)
    );
    until("nothing lives", || {
        processes_of(directory).is_empty().then_some(())
    });
}

#[test]
fn an_edge_that_was_replaced_ends_with_stop() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for made in ["run/edge", "data/edge"] {
        std::fs::create_dir_all(directory.join(made)).unwrap();
    }
    let address = free_address();
    let mut edge = ferroviad(directory, "edge")
        .arg(format!("--http-listen={address}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = directory.join("run/edge/edge.sock");
    until("the edge answers", || command::status(&socket).ok());
    // A request that is never whole: the edge has something in hand.
    let mut request = TcpStream::connect(address).unwrap();
    request.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    until("the edge has the connection", || {
        (command::status(&socket).unwrap().connections > 0).then_some(())
    });
    command::drain(&socket, LONG_MS, LONG_MS).unwrap();
    assert!(edge.try_wait().unwrap().is_none(), "it has a request in hand");
    let stopped = ferroviad(directory, "stop").output().unwrap();
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert!(stopped.status.success(), "{said}");
    assert!(said.contains("1 replaced edge"), "{said}");
    edge.wait().unwrap();
}

#[test]
fn a_process_raises_its_limit_of_open_files() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let own = ferroviad(directory.path(), "fake-engine");
    let mut low = Command::new("sh");
    low.args(["-c", "ulimit -Sn 512 && exec \"$0\" \"$@\""])
        .arg(own.get_program())
        .args(own.get_args())
        .stdin(Stdio::null());
    let mut process = low.spawn().unwrap();
    let limits = format!("/proc/{}/limits", process.id());
    let raised = until("a higher limit", || {
        let limits = std::fs::read_to_string(&limits).unwrap_or_default();
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        let mut values = line
            .split_whitespace()
            .skip(3)
            .map(|value| value.parse().unwrap_or(u64::MAX));
        let (soft, hard) = (values.next()?, values.next()?);
        (soft > 512).then_some((soft, hard))
    });
    end(&mut process);
    assert_eq!(raised.0, raised.1.min(131_072));
}
