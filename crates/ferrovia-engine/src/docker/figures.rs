//! CPU, memory and network figures of a container, the same from control groups of version 1 and 2.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Stats;

#[derive(Deserialize)]
pub(super) struct Figures {
    cpu_stats: Cpu,
    memory_stats: Memory,
    networks: Option<BTreeMap<String, Network>>,
    pids_stats: Option<Pids>,
}

#[derive(Deserialize)]
struct Cpu {
    cpu_usage: CpuUsage,
}

#[derive(Deserialize)]
struct CpuUsage {
    #[serde(default)]
    total_usage: u64,
}

#[derive(Deserialize)]
struct Memory {
    usage: Option<u64>,
    limit: Option<u64>,
    stats: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Network {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Deserialize)]
struct Pids {
    current: Option<u64>,
}

impl Figures {
    /// The figures; `None` when the container does not run, for which Docker answers with empty ones.
    pub(super) fn stats(&self) -> Option<Stats> {
        let usage = self.memory_stats.usage?;
        let named = self.memory_stats.stats.as_ref();
        // Version 1 has both names and means the whole group by the first; version 2 has the second only.
        let cache = ["total_inactive_file", "inactive_file"]
            .iter()
            .find_map(|name| named?.get(*name));
        let networks = || self.networks.iter().flat_map(BTreeMap::values);
        Some(Stats {
            cpu_nanos: self.cpu_stats.cpu_usage.total_usage,
            memory_bytes: usage.saturating_sub(cache.copied().unwrap_or(0)),
            memory_limit_bytes: self.memory_stats.limit.unwrap_or(0),
            received_bytes: networks().map(|network| network.rx_bytes).sum(),
            sent_bytes: networks().map(|network| network.tx_bytes).sum(),
            pids: self
                .pids_stats
                .as_ref()
                .and_then(|pids| pids.current?.try_into().ok())
                .unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_is_not_counted() {
        let read = |text: &str| serde_json::from_str::<Figures>(text).unwrap().stats();
        let one = r#"{"cpu_stats":{"cpu_usage":{"total_usage":7}},"pids_stats":{"current":3},"networks":{"eth0":
            {"rx_bytes":1,"tx_bytes":2}},"memory_stats":{"usage":100,"limit":512,"stats":{"inactive_file":1,
            "total_inactive_file":40}}}"#;
        let stats = read(one).unwrap();
        assert_eq!(
            (stats.memory_bytes, stats.cpu_nanos, stats.pids, stats.sent_bytes),
            (60, 7, 3, 2)
        );
        let two =
            r#"{"cpu_stats":{"cpu_usage":{}},"memory_stats":{"usage":100,"stats":{"inactive_file":30}}}"#;
        assert_eq!(read(two).unwrap().memory_bytes, 70);
        assert_eq!(
            read(r#"{"cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}"#),
            None
        );
    }
}
