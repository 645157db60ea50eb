//! The embedded PostgreSQL, against the real thing: made, found, killed, refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferrovia_core::error::Class;
use ferrovia_store::embedded::{self, Config, Error, Server};
use ferrovia_store::{Db, Options};
use ferrovia_testkit::wait_for;
use rustix::process::{Pid, Signal, getsid, kill_process};

const SOON: Duration = Duration::from_secs(30);

/// A data and a run directory of one test. However the test ends, the server ends with it.
pub struct Place {
    pub root: PathBuf,
    pub config: Config,
    watchdog: Child,
}

const WATCHDOG: &str = r#"read -r _
kill -QUIT "$(head -n 1 "$1/data/postgres/data/postmaster.pid" 2>/dev/null)" 2>/dev/null
# A mounted file system is busy until the server is gone.
while mountpoint -q "$1/data" && ! umount "$1/data" 2>/dev/null; do sleep 0.05; done
rm -rf "$1""#;

impl Place {
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("fve-")
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        let (data, run) = (root.join("data"), root.join("run"));
        for dir in [&root, &data, &run] {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, Permissions::from_mode(0o711)).unwrap();
        }
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&root)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            config: Config {
                dir: data.join("postgres"),
                run_dir: run,
            },
            root,
            watchdog,
        }
    }

    fn data(&self) -> PathBuf {
        self.config.dir.join("data")
    }

    async fn ensure(&self) -> Server {
        match embedded::ensure(&self.config).await {
            Ok(server) => server,
            Err(error) => panic!(
                "{error:?}\n{}",
                fs::read_to_string(self.config.log()).unwrap_or_default()
            ),
        }
    }

    async fn refusal(&self) -> Error {
        embedded::ensure(&self.config).await.unwrap_err()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).unwrap()
}

/// A program that is no PostgreSQL and runs as the server's user.
fn bystander(place: &Place) -> Child {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(&place.config.dir).unwrap();
    Command::new("/bin/sleep")
        .arg("600")
        .uid(owner.uid())
        .gid(owner.gid())
        .spawn()
        .unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn hint(error: &Error) -> String {
    error.report().hint.unwrap()
}

async fn connect(server: &Server) -> Db {
    Db::connect(&Options::new(&server.url).max_connections(4))
        .await
        .unwrap()
}

async fn names(db: &Db) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM team ORDER BY name")
        .fetch_all(&mut *db.conn().await.unwrap())
        .await
        .unwrap()
}

async fn add(db: &Db, name: &str) {
    sqlx::query("INSERT INTO team VALUES (gen_random_uuid(), $1, 0)")
        .bind(name)
        .execute(&mut *db.conn().await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn is_made_once_found_again_and_keeps_its_data() {
    let place = Place::new();
    assert!(!embedded::stop(&place.config).await.unwrap());
    let begun = Instant::now();
    let (first, second) = tokio::join!(place.ensure(), place.ensure());
    println!("made and started in {} ms", begun.elapsed().as_millis());
    assert_eq!(first.pid, second.pid, "of two who start together, one starts it");
    assert!(first.adopted != second.adopted);
    assert_eq!(
        getsid(Some(pid(first.pid))).unwrap(),
        pid(first.pid),
        "it has a session of its own"
    );
    assert_eq!(embedded::find(&place.config).unwrap(), Some(first.pid));
    assert!(embedded::socket_path(&place.config.run_dir).exists());

    let db = connect(&first).await;
    db.migrate(&Options::new(&first.url)).await.unwrap();
    add(&db, "kept").await;
    let settings: Vec<String> = sqlx::query_scalar(
        "SELECT name || '=' || setting FROM pg_settings
         WHERE name IN ('listen_addresses', 'data_checksums', 'fsync', 'wal_level') ORDER BY name",
    )
    .fetch_all(&mut *db.conn().await.unwrap())
    .await
    .unwrap();
    assert_eq!(
        settings,
        [
            "data_checksums=on",
            "fsync=on",
            "listen_addresses=",
            "wal_level=minimal"
        ]
    );
    let adopted = place.ensure().await;
    assert_eq!((adopted.pid, adopted.adopted), (first.pid, true));

    db.close().await;
    assert!(embedded::stop(&place.config).await.unwrap());
    assert_eq!(embedded::find(&place.config).unwrap(), None);
    let begun = Instant::now();
    let again = place.ensure().await;
    println!("started again in {} ms", begun.elapsed().as_millis());
    assert!(!again.adopted && again.pid != first.pid);
    assert_eq!(names(&connect(&again).await).await, ["kept"]);
}

#[tokio::test]
async fn idles_in_little_memory() {
    let place = Place::new();
    let server = place.ensure().await;
    let options = Options::new(&server.url);
    let db = connect(&server).await;
    db.migrate(&options).await.unwrap();
    let mut conns = Vec::new();
    for n in 0..4 {
        conns.push(db.conn().await.unwrap());
        add(&db_of(&server).await, &format!("team {n}")).await;
    }
    let with_connections = pss_kb(server.pid);
    drop(conns);
    db.close().await;
    wait_for("its connections end", SOON, async || {
        (pss_kb(server.pid).len() <= 6).then_some(())
    })
    .await;
    let idle = pss_kb(server.pid);
    let sum = |list: &[(String, u64)]| list.iter().map(|(_, kb)| kb).sum::<u64>();
    println!("PSS idle: {} kB {idle:?}", sum(&idle));
    println!(
        "PSS with 4 connections: {} kB {with_connections:?}",
        sum(&with_connections)
    );
    assert!(sum(&idle) < 30_000, "{idle:?}");
    assert!(sum(&with_connections) < 60_000, "{with_connections:?}");
}

async fn db_of(server: &Server) -> Db {
    Db::connect(&Options::new(&server.url).max_connections(1))
        .await
        .unwrap()
}

/// Name and PSS of the postmaster and its children.
fn pss_kb(postmaster: u32) -> Vec<(String, u64)> {
    let read = |pid: &str| -> Option<(String, u64)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        if parent != postmaster && pid != postmaster.to_string() {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .ok()?
            .replace('\0', " ")
            .trim()
            .to_owned();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let pss = rollup.lines().find(|line| line.starts_with("Pss:"))?;
        Some((name, pss.split_whitespace().nth(1)?.parse().ok()?))
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| read(entry.file_name().to_str()?))
        .collect()
}

#[tokio::test]
async fn comes_back_after_a_kill_with_everything_that_was_committed() {
    let place = Place::new();
    let mut server = place.ensure().await;
    let options = Options::new(&server.url);
    connect(&server).await.migrate(&options).await.unwrap();
    for round in 0..3 {
        let db = connect(&server).await;
        add(&db, &format!("round {round}")).await;
        // A child in the midst of a statement outlives the postmaster and holds its memory.
        let busy = tokio::spawn(async move {
            let mut conn = db.conn().await.unwrap();
            let _ = sqlx::query("SET statement_timeout = 0").execute(&mut *conn).await;
            let _ = sqlx::query("SELECT count(*) FROM generate_series(1, 20000000000)")
                .execute(&mut *conn)
                .await;
        });
        let watch = connect(&server).await;
        wait_for("it is busy", SOON, async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%'";
            let n: i64 = sqlx::query_scalar(sql).fetch_one(&mut *watch.conn().await.unwrap()).await.unwrap();
            (n > 1).then_some(())
        })
        .await;
        kill_process(pid(server.pid), Signal::KILL).unwrap();
        let begun = Instant::now();
        let next = place.ensure().await;
        println!("back after {} ms", begun.elapsed().as_millis());
        assert!(!next.adopted && next.pid != server.pid);
        assert_eq!(names(&connect(&next).await).await.len(), round + 1);
        busy.await.unwrap();
        server = next;
    }
}

#[tokio::test]
async fn a_pid_that_another_program_has_by_now_is_not_the_server() {
    let place = Place::new();
    let server = place.ensure().await;
    let pid_file = place.data().join("postmaster.pid");
    let true_text = fs::read_to_string(&pid_file).unwrap();
    embedded::stop(&place.config).await.unwrap();
    let mut bystander = bystander(&place);
    for other in [bystander.id(), std::process::id(), 1, 4_000_000] {
        let text = true_text.replacen(&server.pid.to_string(), &other.to_string(), 1);
        fs::write(&pid_file, text).unwrap();
        assert_eq!(embedded::find(&place.config).unwrap(), None, "{other}");
        let started = place.ensure().await;
        assert!(!started.adopted, "{other}");
        assert!(embedded::stop(&place.config).await.unwrap());
        assert!(
            bystander.try_wait().unwrap().is_none(),
            "the other program is left alone"
        );
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_living_server_of_another_cluster_is_not_taken_for_ours() {
    let (one, two) = (Place::new(), Place::new());
    let living = one.ensure().await;
    two.ensure().await;
    embedded::stop(&two.config).await.unwrap();
    let text = fs::read_to_string(one.data().join("postmaster.pid")).unwrap();
    fs::write(two.data().join("postmaster.pid"), text).unwrap();
    assert_eq!(embedded::find(&two.config).unwrap(), None);
    assert!(!embedded::stop(&two.config).await.unwrap());
    let own = two.ensure().await;
    assert!(!own.adopted && own.pid != living.pid);
    assert_eq!(embedded::find(&one.config).unwrap(), Some(living.pid));
}

#[tokio::test]
async fn a_server_without_its_socket_is_started_again() {
    let place = Place::new();
    let first = place.ensure().await;
    fs::remove_dir_all(place.config.run_dir.join("pg")).unwrap();
    let second = place.ensure().await;
    assert!(!second.adopted && second.pid != first.pid);
    connect(&second).await.ping().await.unwrap();
}

#[tokio::test]
async fn what_was_half_made_is_made_anew_and_what_is_foreign_stays() {
    let place = Place::new();
    fs::create_dir_all(place.config.dir.join("data.new/base")).unwrap();
    fs::write(place.config.dir.join("data.new/PG_VERSION"), "15\n").unwrap();
    // An empty directory, as an administrator may have made it.
    fs::create_dir(place.data()).unwrap();
    place.ensure().await;
    assert!(!place.config.dir.join("data.new").exists());
    embedded::stop(&place.config).await.unwrap();

    fs::rename(place.data(), place.config.dir.join("away")).unwrap();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("precious"), "x").unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    assert_eq!(
        fs::read_dir(place.data()).unwrap().count(),
        1,
        "nothing was changed"
    );
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_with_the_way_to_upgrade() {
    let place = Place::new();
    place.ensure().await;
    embedded::stop(&place.config).await.unwrap();
    fs::write(place.data().join("PG_VERSION"), "9\n").unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, Error::OtherMajor { data: 9, .. }), "{error:?}");
    assert!(
        hint(&error).contains("postgresql-9") && hint(&error).contains("pg_upgrade"),
        "{}",
        hint(&error)
    );
    assert_eq!(error.class(), Class::Invalid);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let place = Place::new();
    place.ensure().await;
    embedded::stop(&place.config).await.unwrap();
    fs::write(place.data().join("local.conf"), "shared_buffers = 'much'\n").unwrap();
    fs::set_permissions(place.data().join("local.conf"), Permissions::from_mode(0o644)).unwrap();
    let error = place.refusal().await;
    assert!(
        matches!(&error, Error::Died { said } if said.contains("shared_buffers")),
        "{error:?}"
    );
    fs::write(place.data().join("local.conf"), "work_mem = 3MB\n").unwrap();
    let server = place.ensure().await;
    let work_mem: String = sqlx::query_scalar("SHOW work_mem")
        .fetch_one(&mut *connect(&server).await.conn().await.unwrap())
        .await
        .unwrap();
    assert_eq!(work_mem, "3MB");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_before_anything_is_made() {
    let place = Place::new();
    let run_dir = place.root.join("r".repeat(100));
    let config = Config {
        run_dir,
        ..place.config.clone()
    };
    let error = embedded::ensure(&config).await.unwrap_err();
    assert!(matches!(error, Error::LongPath { .. }), "{error:?}");
    assert!(hint(&error).contains("--run-dir"));
    assert!(!place.config.dir.exists());
}

/// What only root can get wrong: without root the server is our own user's, and these cannot happen.
#[tokio::test]
async fn what_its_user_cannot_reach_or_does_not_own_is_refused_with_the_remedy() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let data_dir = place.config.dir.parent().unwrap().to_owned();
    fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    let error = place.refusal().await;
    assert!(
        matches!(&error, Error::Unreachable { barrier, .. } if *barrier == data_dir),
        "{error:?}"
    );
    assert!(hint(&error).contains(&format!("chmod o+x {}", data_dir.display())));
    fs::set_permissions(&data_dir, Permissions::from_mode(0o711)).unwrap();
    place.ensure().await;
    embedded::stop(&place.config).await.unwrap();

    chown(place.data(), Some(0), Some(0)).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, Error::WrongOwner { owner: 0, .. }), "{error:?}");
    assert!(hint(&error).contains("chown -R"));
}

/// The socket is for root and the server's user; no other user of the host gets as far as a refusal.
#[tokio::test]
async fn other_users_of_the_host_cannot_connect() {
    let place = Place::new();
    let server = place.ensure().await;
    let psql = fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path()
        .join("bin/psql");
    let ask = |url: &str, uid: Option<u32>| {
        let mut command = Command::new(&psql);
        command
            .args(["-XAtc", "SELECT current_user", url])
            .env_clear()
            .current_dir("/");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        command.output().unwrap()
    };
    assert_eq!(
        String::from_utf8_lossy(&ask(&server.url, None).stdout).trim(),
        "ferrovia"
    );
    if is_root() {
        let nobody = ask(&server.url, Some(65534));
        assert!(
            String::from_utf8_lossy(&nobody.stderr).contains("Permission denied"),
            "{nobody:?}"
        );
        // Even when somebody opens the directory, the kernel's answer about the peer decides.
        let pg = place.config.run_dir.join("pg");
        fs::set_permissions(&pg, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(pg.join(".s.PGSQL.5432"), Permissions::from_mode(0o777)).unwrap();
        let nobody = ask(&server.url, Some(65534));
        assert!(
            String::from_utf8_lossy(&nobody.stderr).contains("Peer authentication failed"),
            "{nobody:?}"
        );
    }
    assert!(Path::new(&place.config.log()).exists());
}
