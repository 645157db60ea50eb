//! What a node costs while nothing happens.

use std::time::{Duration, Instant};

use ferrovia_core::table::NodeRow;
use ferrovia_testkit::wait_for;

use crate::bench::{Bench, bench};
use crate::node::{member, replica, service};
use crate::place::Place;
use crate::rig::SERVE;

const REPLICAS: u8 = 20;
/// How long is measured: several rounds of every probe.
const MEASURED: Duration = Duration::from_secs(30);
/// A build without optimisation takes more than what is shipped, which is at most 12 MiB.
const MAX_MEMORY_KIB: u64 = if cfg!(debug_assertions) { 24_576 } else { 12_288 };
/// In thousandths of a core.
const MAX_CPU_MILLIS: u128 = if cfg!(debug_assertions) { 20 } else { 5 };

#[tokio::test(flavor = "multi_thread")]
async fn twenty_idle_replicas() {
    let place = Place::shared();
    let mut rows: Vec<NodeRow> = Vec::new();
    for n in 1..=REPLICAS {
        let (address, mark) = (place.member(100 + n), u32::from(n));
        rows.push(member(address, mark));
        rows.push(service("web", place.service(100 + n), mark, &[address]));
    }
    let Bench {
        rig,
        node,
        control: _control,
        ..
    } = bench(&rows).await;
    for n in 1..=REPLICAS {
        let name = format!("idle-{n}");
        rig.create_replica(&name, &replica(place.member(100 + n), u32::from(n)), SERVE, "no");
        rig.start(&name);
    }
    wait_for("all are healthy", Duration::from_secs(60), async || {
        let seen = node.seen.observations().borrow().clone();
        let healthy = seen.replicas.values().filter(|seen| seen.health.is_healthy());
        (healthy.count() == usize::from(REPLICAS)).then_some(())
    })
    .await;
    let (began, cpu) = (Instant::now(), node.cpu_time());
    tokio::time::sleep(MEASURED).await;
    let (took, cpu) = (began.elapsed(), node.cpu_time() - cpu);
    let (memory, anonymous) = node.memory_kib();
    let millis = cpu.as_micros() / took.as_millis();
    println!(
        "{REPLICAS} idle replicas: {memory} KiB ({anonymous} not of files), {cpu:?} of CPU in {took:?} ({millis} thousandths of a core)"
    );
    assert!(memory <= MAX_MEMORY_KIB && millis <= MAX_CPU_MILLIS);
}
