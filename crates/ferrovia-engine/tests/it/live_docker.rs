//! The Docker engine on a real Docker: the contract, whose things are touched, and what goes wrong.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ferrovia_core::table::hardware_address;
use ferrovia_core::workload::{EngineRestart, Mount, ReplicaStatus};
use ferrovia_engine::docker::{DockerEngine, Options};
use ferrovia_engine::{Engine, Error, RegistryLogin, Scope};
use ferrovia_testkit::wait_for;
use serde_json::json;

use crate::contract::{clear, holds};
use crate::docker_lab::{Lab, docker};
use crate::registry::Image;
use crate::workload::{self, login};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn keeps_the_contract() {
    holds(&Lab::new().await).await;
}

#[tokio::test]
async fn says_who_it_is() {
    let info = Lab::new().await.engine.info().await.unwrap();
    assert!(info.name.starts_with("Docker "), "{info:?}");
    assert_eq!(info.problems, Vec::<String>::new());
    assert_eq!(
        info.live_restore.to_string(),
        docker(&["info", "--format", "{{.LiveRestoreEnabled}}"])
    );
    let architecture = docker(&["version", "--format", "{{.Server.Arch}}"]);
    assert_eq!(info.architecture, architecture);
}

#[tokio::test]
async fn touches_nothing_of_others() {
    let lab = Lab::new().await;
    let other = Lab::new().await;
    let mut workload = other.workload("theirs");
    workload.command = Some(vec!["sleep".into(), "infinity".into()]);
    let theirs = other.engine.apply(&workload).await.unwrap().remove(0).handle;
    let image = lab.image.to_string();
    let label = format!("ferrovia.other={}", lab.options.installation);
    let unlabelled = docker(&[
        "run",
        "-d",
        "--network",
        "none",
        "--label",
        &label,
        &image,
        "sleep",
        "infinity",
    ]);
    for handle in [
        theirs.as_str(),
        unlabelled.as_str(),
        &theirs[..12],
        &workload.owner.deployment_id.to_string(),
    ] {
        assert_eq!(lab.engine.find(handle).await.unwrap(), None);
        assert_eq!(lab.engine.stats(handle).await.unwrap(), None);
        lab.engine.stop(handle, 0).await.unwrap();
        lab.engine.remove(handle).await.unwrap();
        assert!(matches!(lab.engine.start(handle).await, Err(Error::Gone(_))));
        assert!(matches!(
            lab.engine.set_restart(handle, EngineRestart::No).await,
            Err(Error::Gone(_))
        ));
    }
    let running = docker(&["inspect", "--format", "{{.State.Running}}", &theirs, &unlabelled]);
    docker(&["rm", "-fv", &unlabelled]);
    assert_eq!(running, "true\ntrue");
    assert!(lab.engine.observe(Scope::All).await.unwrap().is_empty());
    assert_eq!(other.engine.observe(Scope::All).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_refused() {
    let lab = Lab::new().await;
    let workload = lab.script("taken", "exec sleep infinity");
    let name = format!(
        "{}-fvtest-production-taken-v1-1",
        lab.options.addresses.interface_prefix
    );
    docker(&["create", "--name", &name, &lab.image.to_string(), "true"]);
    let result = lab.engine.apply(&workload).await;
    docker(&["rm", "-fv", &name]);
    assert_eq!(result, Err(Error::NameTaken(name)));
}

#[tokio::test]
async fn a_network_is_adopted_made_again_or_refused() {
    let lab = Lab::new().await;
    let bridge = lab.options.addresses.bridge(0).unwrap();
    let inspect = |format: &str| docker(&["network", "inspect", "--format", format, &bridge.interface]);
    assert_eq!(
        inspect("{{(index .IPAM.Config 0).Gateway}}"),
        bridge.gateway.to_string()
    );
    assert!(
        std::path::Path::new("/sys/class/net")
            .join(&bridge.interface)
            .exists()
    );
    let again = DockerEngine::new(lab.options.clone());
    again.ensure_bridge(0).await.unwrap();
    let stranger = DockerEngine::new(Options {
        installation: "fvtest-stranger".into(),
        ..lab.options.clone()
    });
    let refused = stranger.ensure_bridge(0).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("belongs to the installation `fvtest-"),
        "{refused}"
    );
    let mut moved = lab.options.clone();
    moved.addresses.interface_prefix.push('c');
    let refused = DockerEngine::new(moved).ensure_bridge(0).await.unwrap_err();
    assert!(refused.to_string().contains("overlap"), "{refused}");
    // Somebody removes it behind the engine's back: before a start, and between two.
    docker(&["network", "rm", &bridge.interface]);
    let replicas = lab
        .engine
        .apply(&lab.script("network", "exec sleep infinity"))
        .await
        .unwrap();
    assert_eq!(replicas[0].status, ReplicaStatus::Running);
    let handle = replicas[0].handle.as_str();
    let mac = docker(&["exec", handle, "cat", "/sys/class/net/eth0/address"]);
    assert_eq!(mac, hardware_address(replicas[0].address.unwrap()));
    lab.engine.stop(handle, 0).await.unwrap();
    docker(&["network", "rm", &bridge.interface]);
    let error = lab.engine.start(handle).await.unwrap_err();
    assert!(
        matches!(&error, Error::CannotStart(why) if why.contains("`ferrovia restart`")),
        "{error}"
    );
    clear(&lab.engine, &replicas).await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let lab = Lab::new().await;
    let mut mounted = lab.script("mount", "true");
    mounted.mounts = vec![Mount {
        source: "/nonexistent/fvtest".into(),
        target: "/data".into(),
    }];
    let error = lab.engine.apply(&mounted).await.unwrap_err();
    assert!(
        matches!(&error, Error::CannotStart(why) if why.contains("`/nonexistent/fvtest`")),
        "{error}"
    );

    let mut missing = lab.workload("command");
    missing.command = Some(vec!["/app/nope".into()]);
    let exit = exit_of(&lab, &missing).await;
    assert_eq!(exit.code, 127);
    assert_eq!(
        exit.error.unwrap(),
        "the command `/app/nope` or its interpreter was not found in the image"
    );

    let mut large = lab.script("large", "true");
    large.variables = workload::variables(&[("LARGE", &"x".repeat(200 * 1024))]);
    let error = lab.engine.apply(&large).await.unwrap_err();
    assert!(
        matches!(&error, Error::CannotStart(why) if why.contains("`LARGE`")),
        "{error}"
    );
}

#[tokio::test]
async fn killed_for_its_memory_is_told_from_other_ends() {
    let lab = Lab::new().await;
    let mut greedy = lab.script("greedy", "exec tail /dev/zero");
    greedy.resources.memory_bytes = 32 << 20;
    let exit = exit_of(&lab, &greedy).await;
    assert!(exit.out_of_memory && exit.code == 137, "{exit:?}");
    let mut child = lab.script("child", "tail /dev/zero; exit 0");
    child.resources.memory_bytes = 32 << 20;
    let exit = exit_of(&lab, &child).await;
    assert!(!exit.out_of_memory && exit.code == 0, "{exit:?}");
    let exit = exit_of(&lab, &lab.script("killed", "kill -9 $$")).await;
    assert!(!exit.out_of_memory && exit.code == 137, "{exit:?}");
}

async fn exit_of(lab: &Lab, workload: &ferrovia_core::workload::Workload) -> ferrovia_core::workload::Exit {
    let handle = lab.engine.apply(workload).await.unwrap().remove(0).handle;
    let look = async || match lab.engine.find(&handle).await.unwrap()?.status {
        ReplicaStatus::Exited(exit) => Some(exit),
        _ => None,
    };
    wait_for("it ends", SOON, look).await
}

#[tokio::test]
async fn images_come_from_the_registry_with_a_login() {
    let lab = Lab::new().await;
    let directory = tempfile::tempdir().unwrap();
    let layer = directory.path().join("layer.tar");
    let text = format!("{} {:?}", lab.options.installation, Instant::now());
    let mut archive = tar::Builder::new(std::fs::File::create(&layer).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "text", text.as_bytes()).unwrap();
    archive.finish().unwrap();
    let config =
        json!({ "User": "app", "ExposedPorts": { "3000/tcp": {} }, "Cmd": ["/run"], "Entrypoint": ["/e"] });
    let image = Image::new("fvtest/pulled", vec![layer], &config);
    let registry = image.serve(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let reference = &registry.reference;

    assert_eq!(lab.engine.find_image(reference).await.unwrap(), None);
    let wrong = RegistryLogin {
        user: "fvtest".into(),
        password: ferrovia_core::secret::Secret::new("wrong"),
    };
    let error = lab.engine.ensure_image(reference, &wrong).await.unwrap_err();
    assert!(
        matches!(&error, Error::Image { image, .. } if *image == reference.to_string()),
        "{error}"
    );
    let info = lab.engine.ensure_image(reference, &login()).await.unwrap();
    assert_eq!(
        (info.exposed_ports.as_slice(), info.user.as_str()),
        (&[3000][..], "app")
    );
    assert_eq!(info.command, ["/e", "/run"]);
    assert_eq!(
        lab.engine.images(&reference.repository).await.unwrap(),
        std::slice::from_ref(reference)
    );
    let mut unknown = reference.clone();
    unknown.digest = format!("sha256:{}", "1".repeat(64));
    let error = lab.engine.ensure_image(&unknown, &login()).await.unwrap_err();
    assert!(matches!(error, Error::Image { .. }), "{error}");
    lab.engine.remove_image(reference).await.unwrap();
    assert_eq!(lab.engine.find_image(reference).await.unwrap(), None);
}

#[tokio::test]
async fn logs_and_processes_are_where_it_says() {
    let lab = Lab::new().await;
    let handle = lab
        .engine
        .apply(&lab.script("log", "echo hello; exec sleep infinity"))
        .await
        .unwrap()
        .remove(0)
        .handle;
    let file = lab.engine.log_file(&handle).await.unwrap().unwrap();
    let written = async || {
        std::fs::read_to_string(&file)
            .ok()
            .filter(|text| text.contains("\"log\":\"hello\\n\""))
    };
    wait_for("the line in the engine's file", SOON, written).await;
    let pid = lab.engine.process_id(&handle).await.unwrap().unwrap();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command.contains("docker-init"), "{command}");
    docker(&["pause", &handle]);
    assert_eq!(
        lab.engine.find(&handle).await.unwrap().unwrap().status,
        ReplicaStatus::Paused
    );
    lab.engine.start(&handle).await.unwrap();
    assert_eq!(
        lab.engine.find(&handle).await.unwrap().unwrap().status,
        ReplicaStatus::Running
    );
    docker(&["pause", &handle]);
    lab.engine.stop(&handle, 1_000).await.unwrap();
    assert!(matches!(
        lab.engine.find(&handle).await.unwrap().unwrap().status,
        ReplicaStatus::Exited(_)
    ));
}

#[tokio::test]
async fn stops_within_its_grace() {
    let lab = Lab::new().await;
    let stubborn = lab.script(
        "stubborn",
        "trap '' TERM; touch /tmp/ready; while :; do sleep 0.1; done",
    );
    let handle = lab.engine.apply(&stubborn).await.unwrap().remove(0).handle;
    let ready = async || (docker(&["exec", &handle, "ls", "/tmp/ready"]) == "/tmp/ready").then_some(());
    wait_for("the trap", SOON, ready).await;
    let begun = Instant::now();
    lab.engine.stop(&handle, 1_000).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let found = lab.engine.find(&handle).await.unwrap().unwrap();
    assert!(matches!(found.status, ReplicaStatus::Exited(exit) if exit.code == 137 && !exit.out_of_memory));
}
