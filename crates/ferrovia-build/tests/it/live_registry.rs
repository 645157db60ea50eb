//! The registry with the real Docker Engine, and with a disk that is really full.

use std::process::Command;

use ferrovia_build::registry::{Limits, Scope, Store};

use crate::images::{Image, put_blob};
use crate::served::Served;

/// Runs a command off the runtime's threads, since the registry serves on them.
async fn run(program: &str, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args);
    tokio::task::spawn_blocking(move || {
        let output = command.output().expect("the program is installed");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_by_digest_and_pushes() {
    let served = Served::start().await;
    let pusher = served.pusher();
    let puller = served.access.grant("engine", Scope::PullAll);
    let random: u64 = rand::random();
    let image = Image::with_file("hello", random.to_string().as_bytes());
    let digest = image.store(&served.store, "apps/p/web", "v1").await;
    let name = format!("{}/apps/p/web@{digest}", served.host);

    let config = tempfile::tempdir().unwrap();
    let sign_in = |auth: &str| {
        let auths = serde_json::json!({"auths": {served.host.clone(): {"auth": auth}}});
        std::fs::write(config.path().join("config.json"), auths.to_string()).unwrap();
    };
    let directory = config.path().to_str().unwrap().to_owned();
    let docker =
        async |args: &[&str]| run("/usr/bin/docker", &[&["--config", &directory], args].concat()).await;

    sign_in("eDp5");
    let (done, text) = docker(&["pull", "-q", &name]).await;
    assert!(!done && text.to_lowercase().contains("unauthorized"), "{text}");
    sign_in(puller.login().basic().expose());
    let (done, text) = docker(&["pull", "-q", &name]).await;
    assert!(done, "{text}");
    let pushed = format!("{}/apps/p/again:v2", served.host);
    let (done, text) = docker(&["tag", &name, &pushed]).await;
    assert!(done, "{text}");
    let (refused, text) = docker(&["push", "-q", &pushed]).await;
    assert!(!refused && text.contains("does not open"), "{text}");
    sign_in(pusher.login().basic().expose());
    let (done, text) = docker(&["push", "-q", &pushed]).await;
    assert!(done, "{text}");
    let stored = served
        .store
        .find_manifest(&"apps/p/again".parse().unwrap(), &"v2".parse().unwrap())
        .await
        .unwrap();
    assert!(stored.is_some());
    for image in [&name, &pushed] {
        let (done, text) = docker(&["rmi", image]).await;
        assert!(done, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = directory.path().to_str().unwrap().to_owned();
    let (done, text) = run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &mounted]).await;
    assert!(done, "{text}");
    let limits = Limits {
        min_free_bytes: 0,
        ..Limits::default()
    };
    let store = Store::open(directory.path().join("registry"), limits)
        .await
        .unwrap();
    let repository = "apps/p/a".parse().unwrap();
    let kept = put_blob(&store, &repository, &[1; 1000]).await;
    let mut upload = store.begin_upload(&repository, None).await.unwrap();
    let mut refused = Ok(());
    for _ in 0..64 {
        refused = upload.write(&[2; 64 * 1024]).await;
        if refused.is_err() {
            break;
        }
    }
    let store_is_whole = store.find_blob(&repository, kept).await.unwrap() == Some(1000);
    drop(upload);
    let after = put_blob(&store, &repository, &[3; 1000]).await;
    let after = store.find_blob(&repository, after).await.unwrap();
    drop(store);
    let (unmounted, text) = run("umount", &[&mounted]).await;
    assert!(unmounted, "{text}");
    assert!(
        matches!(refused, Err(ferrovia_build::registry::Error::NoSpace)),
        "{refused:?}"
    );
    assert!(store_is_whole);
    assert_eq!(after, Some(1000));
}
