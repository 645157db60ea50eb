//! What the platform costs when nothing happens: proportional set size and processor time of all its processes,
//! PostgreSQL included, the Docker Engine not.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrovia_tests::Failure;
use ferrovia_tests::app::App;
use ferrovia_tests::platform::{Engine, Platform};

use crate::report::Report;

/// How long nothing happens before the measurement, in seconds: start-up work and buildkitd's idle time are over.
const SETTLE_S: u64 = 75;
/// How long processor time is measured, in seconds.
const MEASURE_S: u64 = 60;
/// Memory that was promised, in megabytes.
const BOUND_MB: f64 = 100.0;
/// Processor time that was promised, in percent of a core.
const BOUND_CPU_PERCENT: f64 = 1.0;
/// Clock ticks a second in `/proc` (`USER_HZ`, fixed by the kernel's interface).
const TICKS_PER_S: f64 = 100.0;

/// Measures an installation with one application that runs.
pub async fn run() -> Result<Report, Failure> {
    let platform = Platform::start(Engine::Docker).await?;
    let app = App::target("idle")?;
    let up = platform.up(&app, &[])?;
    if up["outcome"] != "succeeded" {
        return Err(format!("the application did not come up: {up}").into());
    }
    println!("waiting {SETTLE_S} s, then measuring {MEASURE_S} s");
    tokio::time::sleep(Duration::from_secs(SETTLE_S)).await;
    let roots = roots(&platform)?;
    let before = ticks(&roots)?;
    tokio::time::sleep(Duration::from_secs(MEASURE_S)).await;
    let after = ticks(&roots)?;

    let mut report = Report::default();
    let mut total = 0.0;
    for (name, root) in &roots {
        let pss = family(*root)?
            .into_iter()
            .map(pss_mb)
            .sum::<Result<f64, Failure>>()?;
        total += pss;
        report.add(format!("{name}: PSS"), pss, "MB", None);
    }
    report.add("all processes: PSS", total, "MB", Some(BOUND_MB));
    let mut percent = 0.0;
    for (name, ticks) in &after {
        let used = ticks.saturating_sub(before.get(name).copied().unwrap_or_default());
        #[allow(clippy::cast_precision_loss)]
        let of_a_core = used as f64 / TICKS_PER_S / MEASURE_S as f64 * 100.0;
        percent += of_a_core;
        report.add(format!("{name}: processor"), of_a_core, "%", None);
    }
    report.add("all processes: processor", percent, "%", Some(BOUND_CPU_PERCENT));
    Ok(report)
}

fn roots(platform: &Platform) -> Result<BTreeMap<&'static str, u32>, Failure> {
    Ok(BTreeMap::from([
        ("serve", platform.serve_pid().ok_or("serve does not run")?),
        ("control", platform.pid_of("control")?),
        ("edge", platform.pid_of("edge")?),
        ("node", platform.pid_of("node")?),
        ("postgres", platform.postgres_pid()?),
    ]))
}

/// A process and its children; `serve`'s are counted on their own.
fn family(root: u32) -> Result<Vec<u32>, Failure> {
    let name = std::fs::read_to_string(format!("/proc/{root}/cmdline"))?;
    let mut all = vec![root];
    if name.contains("\0serve\0") {
        return Ok(all);
    }
    // Any thread may have started them.
    let children: String = std::fs::read_dir(format!("/proc/{root}/task"))?
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    for child in children.split_ascii_whitespace() {
        all.extend(family(child.parse()?)?);
    }
    Ok(all)
}

fn pss_mb(pid: u32) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .ok_or("no Pss")?;
    let kb: f64 = line.split_ascii_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kb / 1024.0)
}

fn ticks(roots: &BTreeMap<&'static str, u32>) -> Result<BTreeMap<&'static str, u64>, Failure> {
    roots
        .iter()
        .map(|(name, root)| {
            let mut sum = 0;
            for pid in family(*root)? {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
                let fields: Vec<_> = stat
                    .rsplit_once(')')
                    .ok_or("stat")?
                    .1
                    .split_ascii_whitespace()
                    .collect();
                sum += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
            }
            Ok((*name, sum))
        })
        .collect()
}
