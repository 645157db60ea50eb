//! What a replica's process finds around it on Docker: its privileges, limits, network, files and variables.

use std::collections::HashMap;
use std::time::Duration;

use ferrovia_core::table::hardware_address;
use ferrovia_core::workload::{Mount, ReplicaStatus};
use ferrovia_engine::Engine;
use ferrovia_testkit::wait_for;

use crate::docker_lab::Lab;
use crate::workload::variables;

/// The capabilities of the default profile, as bits of `/proc/PID/status`.
const CAPABILITIES: u64 = 1 << 0 // CHOWN
    | 1 << 1 // DAC_OVERRIDE
    | 1 << 3 // FOWNER
    | 1 << 5 // KILL
    | 1 << 6 // SETGID
    | 1 << 7 // SETUID
    | 1 << 10; // NET_BIND_SERVICE

#[tokio::test]
async fn the_profile_is_as_designed() {
    let lab = Lab::new().await;
    let script = "cd /out; cp /proc/self/status status; hostname > hostname; cat /etc/resolv.conf > resolv
        cat /proc/1/comm > init; cat /proc/self/oom_score_adj > oom; cat /sys/class/net/eth0/address > mac
        ( echo x >> /etc/resolv.conf ) 2> readonly; id -u > user; ls /sys/class/net > interfaces
        ( mknod /tmp/d b 1 1 ) 2> mknod; ( mount -t tmpfs none /mnt ) 2> mount
        touch done; exec sleep infinity";
    let mut workload = lab.script("profile", script);
    workload.mounts = vec![Mount {
        source: lab.shared_directory().display().to_string(),
        target: "/out".into(),
    }];
    workload.resources.memory_bytes = 64 << 20;
    workload.resources.pids = 50;
    workload.resources.cpu_weight = 200;
    workload.resources.cpu_quota_millis = Some(500);
    let replica = lab.engine.apply(&workload).await.unwrap().remove(0);
    lab.written("done").await;
    let read = |name: &str| {
        std::fs::read_to_string(lab.shared_directory().join(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let status: HashMap<String, String> = read("status")
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(
            u64::from_str_radix(&status[set], 16).unwrap(),
            CAPABILITIES,
            "{set}"
        );
    }
    assert_eq!(
        (status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()),
        ("1", "2")
    );
    let bridge = lab.options.addresses.bridge(0).unwrap();
    let resolver = format!(
        "nameserver {}\nsearch ferrovia.internal\noptions ndots:1 timeout:2 attempts:2",
        bridge.gateway
    );
    assert_eq!(read("resolv"), resolver);
    assert_eq!(read("hostname"), "profile");
    assert_eq!(read("init"), "docker-init");
    assert_eq!(read("oom"), "500");
    assert_eq!(read("user"), "0");
    assert_eq!(read("interfaces"), "eth0\nlo");
    assert_eq!(read("mac"), hardware_address(replica.address.unwrap()));
    for refused in ["readonly", "mknod", "mount"] {
        assert!(!read(refused).is_empty(), "{refused} was possible");
    }
    let pid = lab.engine.process_id(&replica.handle).await.unwrap().unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let limit = |controller: &str, file_v1: &str, file_v2: &str| {
        let v1 = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields
                .next()?
                .split(',')
                .any(|name| name == controller)
                .then_some(fields.next()?)
        });
        let path = match v1 {
            Some(group) => format!("/sys/fs/cgroup/{controller}{group}/{file_v1}"),
            None => format!(
                "/sys/fs/cgroup{}/{file_v2}",
                groups.lines().last().unwrap().trim_start_matches("0::")
            ),
        };
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .trim()
            .to_owned()
    };
    assert_eq!(
        limit("memory", "memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(limit("pids", "pids.max", "pids.max"), "50");
    let quota = limit("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    let stats = lab.engine.stats(&replica.handle).await.unwrap().unwrap();
    assert!(
        stats.memory_bytes > 0 && stats.memory_bytes < 32 << 20,
        "{stats:?}"
    );
    assert!(stats.cpu_nanos > 0 && stats.pids >= 2, "{stats:?}");
}

#[tokio::test]
async fn values_arrive_as_they_were_given() {
    let lab = Lab::new().await;
    let large = "0123456789abcde\n".repeat(100 * 1024 / 16);
    let values = [
        ("DOLLAR", "$HOME ${HOME} $$ `id` $(id)"),
        ("QUOTES", "it's \"quoted\" \\ and \\\" back"),
        ("LINES", "one\ntwo\r\n\tthree\n"),
        ("UNICODE", "Grüße, 世界 \u{1F980} \u{200B}end"),
        ("EQUALS", "=a==b="),
        ("EMPTY", ""),
        ("SPACE", "  \u{a0} "),
        ("LARGE", &large),
        ("lower.dotted-name", "yes"),
    ];
    let mut workload = lab.workload("values");
    // No shell: a shell drops names that are none of its own.
    workload.command = Some(
        ["cp", "/proc/self/environ", "/out/env"]
            .map(str::to_owned)
            .to_vec(),
    );
    workload.variables = variables(&values);
    workload.mounts = vec![Mount {
        source: lab.shared_directory().display().to_string(),
        target: "/out".into(),
    }];
    let replica = lab.engine.apply(&workload).await.unwrap().remove(0);
    let ended = async || {
        let found = lab.engine.find(&replica.handle).await.unwrap()?;
        matches!(found.status, ReplicaStatus::Exited(_)).then_some(())
    };
    wait_for("the copy", Duration::from_secs(30), ended).await;
    let environment = std::fs::read_to_string(lab.shared_directory().join("env")).unwrap();
    let found: HashMap<&str, &str> = environment
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    for (name, value) in values {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
    assert_eq!(found["FERROVIA_REPLICA_ID"], replica.name);
}
