//! Whether the host has memory for a build: one that begins when memory is short hurts what runs.

/// Where the kernel tells.
const MEMINFO: &str = "/proc/meminfo";

/// Why a build should wait; `None` when enough is available, or when the kernel does not say.
pub(super) fn too_short(wanted_bytes: u64) -> Option<String> {
    let text = std::fs::read_to_string(MEMINFO).ok()?;
    let available_bytes = available(&text)?;
    (available_bytes < wanted_bytes).then(|| {
        format!(
            "waits for memory: {} MiB are available, a build begins at {} MiB",
            available_bytes >> 20,
            wanted_bytes >> 20
        )
    })
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "MemTotal:       24600000 kB\nMemFree:          100000 kB\nMemAvailable:   2097152 kB\n";
        assert_eq!(available(text), Some(2 << 30));
        assert_eq!(available(""), None);
        assert!(too_short(u64::MAX).is_some_and(|why| why.contains("MiB")));
        assert_eq!(too_short(0), None);
    }
}
