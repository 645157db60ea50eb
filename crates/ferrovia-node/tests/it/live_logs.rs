//! Lines of real containers: each once, over rotations by Docker and over ends of the node.

use std::net::Ipv4Addr;
use std::time::Duration;

use ferrovia_core::table::{NodeRow, Probe};
use ferrovia_log::{Line, Query};
use ferrovia_testkit::wait_for;

use crate::bench::{Bench, bench};
use crate::node::{Node, replica, starting};

const A: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 31);
const LINES_A_SECOND: u64 = 5_000;
/// How much the node's memory may grow from the first third of the lines to the last, in KiB.
const GROWTH_KIB: u64 = 2_048;

/// Writes numbered lines at the rate: a thousand, then a pause.
fn writer(seconds: u64) -> String {
    let rounds = seconds * LINES_A_SECOND / 1_000;
    format!(
        "n=0; while [ $n -lt {rounds} ]; do seq $((n*1000+1)) $((n*1000+1000)) | sed 's/$/ some text that makes the line as long as lines usually are/'; n=$((n+1)); usleep 160000; done; printf last"
    )
}

async fn start(bench: &Bench, seconds: u64) -> ferrovia_core::table::Member {
    let replica = member();
    bench
        .rig
        .create_replica("writer", &replica, &writer(seconds), "no");
    bench.rig.start("writer");
    replica
}

fn member() -> ferrovia_core::table::Member {
    ferrovia_core::table::Member {
        probe: Probe::Alive { after_ms: 10_000 },
        ..starting(A)
    }
}

fn check(node: &Node, followed: &[Line], seconds: u64) {
    let last = seconds * LINES_A_SECOND;
    let numbers: Vec<u64> = followed
        .iter()
        .filter_map(|line| line.text.split(' ').next()?.parse().ok())
        .collect();
    assert!(numbers.iter().copied().eq(1..=last), "{} lines", numbers.len());
    assert_eq!(followed.last().unwrap().text, "last");
    assert_eq!(followed.len() as u64, last + 1);
    let read = node
        .log(replica(A, 1).instance_id)
        .read(&Query {
            limit: usize::MAX,
            ..Query::default()
        })
        .unwrap();
    assert_eq!(read, followed);
}

/// 1 MiB files rotate every two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn each_line_once_over_rotations_and_ends_of_the_node() {
    const SECONDS: u64 = 10;
    let mut bench = bench(&[NodeRow::Member(member())]).await;
    let replica = start(&bench, SECONDS).await;
    let node = &mut bench.node;
    let mut follower = node.log(replica.instance_id).follow(0);
    let mut followed = Vec::new();
    // Killed in the middle of whatever it does; every third time it may end.
    const ENDS: u64 = 9;
    for end in 1..=ENDS {
        wait_for("some of the lines", Duration::from_secs(30), async || {
            followed.extend(follower.poll().unwrap());
            (followed.len() as u64 >= end * SECONDS * LINES_A_SECOND / (ENDS + 2)).then_some(())
        })
        .await;
        if end % 3 == 0 {
            node.stop();
        } else {
            node.kill();
        }
        node.restart();
    }
    node.see("its log is read", replica.replica_id, |seen| seen.log_drained)
        .await;
    loop {
        let more = follower.poll().unwrap();
        if more.is_empty() {
            break;
        }
        followed.extend(more);
    }
    check(node, &followed, SECONDS);
    assert_eq!(followed[0].source, replica.replica_id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_lines_a_second_without_growing() {
    const SECONDS: u64 = 45;
    let bench = bench(&[NodeRow::Member(member())]).await;
    let replica = start(&bench, SECONDS).await;
    let node = &bench.node;
    let mut follower = node.log(replica.instance_id).follow(0);
    let mut followed = Vec::new();
    let mut measured: Vec<u64> = Vec::new();
    let began = std::time::Instant::now();
    let cpu = node.cpu_time();
    for step in 1..=SECONDS {
        wait_for("a second's lines", Duration::from_secs(30), async || {
            followed.extend(follower.poll().unwrap());
            (followed.len() as u64 >= step * LINES_A_SECOND).then_some(())
        })
        .await;
        measured.push(node.memory_kib().1);
    }
    let took = began.elapsed();
    let cpu = node.cpu_time() - cpu;
    node.see("its log is read", replica.replica_id, |seen| seen.log_drained)
        .await;
    followed.extend(follower.poll().unwrap());
    check(node, &followed, SECONDS);
    let most = |part: &[u64]| part.iter().copied().max().unwrap();
    let third = measured.len() / 3;
    let (first, last) = (most(&measured[..third]), most(&measured[2 * third..]));
    println!(
        "{} lines in {took:?} ({:.0} a second): memory {first} KiB in the first third, {last} KiB in the last; {:.1} % of a core",
        followed.len(),
        followed.len() as f64 / took.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
    );
    println!(
        "not of files, every fifth second: {:?}",
        measured.iter().step_by(5).collect::<Vec<_>>()
    );
    assert!(last < first + GROWTH_KIB, "{measured:?}");
}
