//! Replicas on a real Docker: seen, probed, restarted, stopped.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ferrovia_core::observation::Health;
use ferrovia_core::settings::RestartPolicy;
use ferrovia_core::table::{Member, MemberPhase, NodeRow, Probe};
use ferrovia_log::Query;
use ferrovia_testkit::wait_for;

use crate::bench::{Bench, bench};
use crate::node::{replica, starting};
use crate::rig::{SERVE, SOON};

const A: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 21);
const B: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 22);

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_seen_from_its_start_to_its_removal() {
    let replica = Member {
        probe: Probe::Http {
            port: 8080,
            path: "/index.html".to_owned(),
        },
        ..starting(A)
    };
    let Bench {
        rig,
        control,
        mut node,
        ..
    } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica("a", &replica, SERVE, "no");
    let created = node
        .see("created", replica.replica_id, |seen| seen.started_at_ms.is_none())
        .await;
    assert_eq!(created.health, Health::Down);
    let before = Instant::now();
    rig.start("a");
    let started = before.elapsed();
    let healthy = node
        .see("healthy", replica.replica_id, |seen| seen.health.is_healthy())
        .await;
    let took = before.elapsed();
    println!("docker start {started:?}, told healthy after {took:?}");
    assert!(took < started + Duration::from_secs(2));

    // Served now: the engine starts it again, and the new run is told and probed at once.
    rig.docker("update", "a", &["--restart=unless-stopped"]);
    control
        .publish(&[NodeRow::Member(Member {
            phase: MemberPhase::Serving,
            ..replica.clone()
        })])
        .await;
    rig.exec("a", "kill -9 -1");
    let again = node
        .see("healthy again", replica.replica_id, |seen| {
            seen.started_at_ms > healthy.started_at_ms && seen.health.is_healthy()
        })
        .await;
    assert_eq!(again.crashes, 1);

    rig.docker("stop", "a", &["-t", "1"]);
    let down = node
        .see("down and read", replica.replica_id, |seen| seen.log_drained)
        .await;
    assert_eq!(down.health, Health::Down);
    assert!(down.last_exit.is_some());
    rig.docker("rm", "a", &[]);
    wait_for("gone", SOON, async || {
        node.seen
            .observations()
            .borrow()
            .replicas
            .is_empty()
            .then_some(())
    })
    .await;
    assert!(control.troubles().is_empty());
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_listens_instead_is_told() {
    let replica = starting(A);
    let Bench { rig, node, .. } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica(
        "a",
        &replica,
        "httpd -p 127.0.0.1:3000 -h /; sleep 6; httpd -p 8080 -h /; sleep 600",
        "no",
    );
    rig.start("a");
    let seen = node
        .see("where", replica.replica_id, |seen| !seen.listens_on.is_empty())
        .await;
    assert_eq!(seen.listens_on, ["127.0.0.1:3000"]);
    assert_eq!(
        seen.health,
        Health::Starting {
            last: Some("port 8080 refuses connections".to_owned())
        }
    );
    // httpd has no index there.
    let seen = node
        .see("healthy", replica.replica_id, |seen| seen.root_status.is_some())
        .await;
    assert!(seen.health.is_healthy() && seen.listens_on.is_empty());
    assert_eq!(seen.root_status, Some(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crashes_too_often_or_has_ended_stays_down() {
    let policy = RestartPolicy::OnFailure { max_tries: 2 };
    let failing = Member {
        restart: policy,
        probe: Probe::Alive { after_ms: 10_000 },
        ..replica(A, 1)
    };
    let ending = Member {
        restart: policy,
        probe: Probe::Alive { after_ms: 10_000 },
        ..replica(B, 1)
    };
    let rows = [NodeRow::Member(failing.clone()), NodeRow::Member(ending.clone())];
    let Bench {
        rig, control, node, ..
    } = bench(&rows).await;
    // Works with control dead.
    drop(control);
    rig.create_replica(
        "failing",
        &failing,
        "sleep 0.3; echo oh; exit 7",
        "unless-stopped",
    );
    rig.create_replica("ending", &ending, "sleep 0.3; exit 0", "unless-stopped");
    rig.start("failing");
    rig.start("ending");
    for name in ["failing", "ending"] {
        let what = "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}";
        wait_for(name, SOON, async || {
            (rig.inspect(name, what) == "exited unless-stopped").then_some(())
        })
        .await;
    }
    let seen = node
        .see("failed", failing.replica_id, |seen| {
            seen.health == Health::Down && seen.crashes >= 3
        })
        .await;
    assert_eq!(seen.last_exit.unwrap().code, 7);
    assert!(
        rig.inspect("failing", "{{.RestartCount}}")
            .parse::<u32>()
            .unwrap()
            <= 4
    );
    let seen = node
        .see("ended", ending.replica_id, |seen| seen.log_drained)
        .await;
    assert_eq!(seen.last_exit.unwrap().code, 0);
    wait_for("its lines", SOON, async || {
        node.log(failing.instance_id)
            .last_seq()
            .ok()
            .filter(|seq| *seq >= 3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_by_memory_is_told() {
    let replica = starting(A);
    let Bench { rig, node, .. } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica("a", &replica, "tail /dev/zero", "no");
    rig.docker("update", "a", &["--memory=16m", "--memory-swap=16m"]);
    rig.start("a");
    let seen = node
        .see("its exit", replica.replica_id, |seen| seen.last_exit.is_some())
        .await;
    let exit = seen.last_exit.unwrap();
    assert!(exit.out_of_memory, "{exit:?}");
}

/// A run may begin and end between two looks at it: its lines are there all the same, and are told to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_leaves_every_line_and_exit_code() {
    let replica = Member {
        probe: Probe::Alive { after_ms: 10_000 },
        ..starting(A)
    };
    let Bench { rig, node, .. } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica(
        "a",
        &replica,
        "n=$(cat /tmp/n 2>/dev/null || echo 1); echo $((n+1)) > /tmp/n; seq $((n*100-99)) $((n*100)); exit $n",
        "no",
    );
    const RUNS: i32 = 8;
    for run in 1..=RUNS {
        rig.start("a");
        let seen = node
            .see("its end", replica.replica_id, |seen| {
                seen.log_drained && seen.last_exit.as_ref().is_some_and(|exit| exit.code == run)
            })
            .await;
        let lines = node
            .log(replica.instance_id)
            .read(&Query {
                limit: usize::MAX,
                ..Query::default()
            })
            .unwrap();
        let numbers = lines.iter().map(|line| line.text.parse::<i32>().unwrap());
        assert!(numbers.eq(1..=run * 100), "run {run}: {} lines", lines.len());
        assert_eq!(seen.crashes, run.unsigned_abs());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_is_told_by_a_path_and_beside_a_connection() {
    let path = Member {
        probe: Probe::Http {
            port: 8080,
            path: "/health".to_owned(),
        },
        ..starting(A)
    };
    let port = starting(B);
    let rows = [NodeRow::Member(path.clone()), NodeRow::Member(port.clone())];
    let Bench { rig, node, .. } = bench(&rows).await;
    let script = r#"printf '#!/bin/sh\nread line; printf "HTTP/1.0 503 No\r\n\r\n"' > /tmp/answer; chmod +x /tmp/answer; exec nc -ll -p 8080 -e /tmp/answer"#;
    rig.create_replica("path", &path, script, "no");
    rig.start("path");
    let seen = node
        .see("the answer", path.replica_id, |seen| {
            matches!(&seen.health, Health::Starting { last: Some(last) } if last.contains("answered 503"))
        })
        .await;
    assert_eq!(seen.root_status, None, "nobody asked");
    rig.create_replica("port", &port, script, "no");
    rig.start("port");
    let seen = node
        .see("the answer", port.replica_id, |seen| seen.root_status.is_some())
        .await;
    assert!(seen.health.is_healthy());
    assert_eq!(seen.root_status, Some(503));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_no_more_is_unhealthy_and_healthy_again() {
    let replica = replica(A, 1);
    let Bench { rig, node, .. } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica("a", &replica, "httpd -p 8080; sleep 600", "no");
    rig.start("a");
    node.see("healthy", replica.replica_id, |seen| seen.health.is_healthy())
        .await;
    rig.exec("a", "killall httpd");
    let seen = node
        .see("unhealthy", replica.replica_id, |seen| {
            matches!(seen.health, Health::Unhealthy { .. })
        })
        .await;
    assert_eq!(
        seen.health,
        Health::Unhealthy {
            why: "port 8080 refuses connections".to_owned()
        }
    );
    rig.exec("a", "httpd -p 8080");
    node.see("healthy", replica.replica_id, |seen| seen.health.is_healthy())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_told_to_who_asks() {
    let replica = replica(A, 1);
    let Bench { rig, node, .. } = bench(&[NodeRow::Member(replica.clone())]).await;
    rig.create_replica("a", &replica, SERVE, "no");
    rig.start("a");
    let healthy = node
        .see("healthy", replica.replica_id, |seen| seen.health.is_healthy())
        .await;
    let figures = node.figures();
    let seen = wait_for("figures", SOON, async || {
        figures.borrow().get(&replica.replica_id).copied()
    })
    .await;
    assert_eq!(seen.started_at_ms, healthy.started_at_ms);
    assert!(
        seen.memory_bytes > 0 && seen.cpu_nanos > 0 && seen.pids >= 1,
        "{seen:?}"
    );
    rig.docker("stop", "a", &["-t", "1"]);
    wait_for("none of what is down", SOON, async || {
        figures.borrow().is_empty().then_some(())
    })
    .await;
}
