//! Which process listens on a port: for the one error that everybody meets once.

use std::collections::HashSet;
use std::fs;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// The first process that is found to listen on a TCP port of this host.
pub fn find(port: u16) -> Option<PortOwner> {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        inodes.extend(listening(&fs::read_to_string(table).unwrap_or_default(), port));
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let files = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path())
                .ok()
                .and_then(|link| {
                    link.to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .parse()
                        .ok()
                })
                .is_some_and(|inode: u64| inodes.contains(&inode))
        });
        let name = fs::read_to_string(entry.path().join("comm"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        holds.then_some(PortOwner { pid, name })
    })
}

/// Inodes of the sockets that listen on a port, from a table of proc_net_tcp(5): state 0A is LISTEN.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let matches = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A";
            matches.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = find(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(find(1), None);
    }
}
