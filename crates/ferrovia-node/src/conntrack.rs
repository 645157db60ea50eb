//! The kernel's connection tracking: which private connections a replica on its way out still has, and forgetting
//! what belongs to an address that is given back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long the tool may take, in milliseconds.
const TOOL_TIMEOUT_MS: u64 = 10_000;
/// Most that is read of the kernel's list, in bytes: over a million connections. It is made anew while it is read.
const MAX_LIST_BYTES: u64 = 256 << 20;
/// What is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;
/// States of TCP in which data may still come. One that both sides have ended is no connection any more.
const OPEN_STATES: [&str; 5] = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"];

/// Open TCP connections from replicas to each of these addresses. What the host opened (probes, the edge) is not
/// counted: edges count for themselves. UDP has no end that could be waited for.
///
/// # Errors
/// What the system says; [`io::ErrorKind::FileTooLarge`] when there are too many to be counted.
pub async fn count(
    file: &Path,
    plan: &AddressPlan,
    addresses: &[Ipv4Addr],
) -> io::Result<HashMap<Ipv4Addr, u32>> {
    let open: HashMap<Ipv4Addr, u32> = addresses.iter().map(|address| (*address, 0)).collect();
    let path = file.to_owned();
    match spawn_blocking(move || File::open(path)).await? {
        Ok(file) => count_apart(file, plan, open).await,
        // Kernels without the file have the tool's interface.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let listing = tool(&["-L", "-p", "tcp"]).await?;
            count_apart(io::Cursor::new(listing), plan, open).await
        }
        Err(error) => Err(error),
    }
}

/// Counts in a thread for what blocks: the kernel makes its list while it is read.
async fn count_apart(
    list: impl Read + Send + 'static,
    plan: &AddressPlan,
    open: HashMap<Ipv4Addr, u32>,
) -> io::Result<HashMap<Ipv4Addr, u32>> {
    let plan = plan.clone();
    spawn_blocking(move || count_in(list, MAX_LIST_BYTES, &plan, open)).await?
}

/// Counts in a list of at most so many bytes.
fn count_in(
    list: impl Read,
    max_bytes: u64,
    plan: &AddressPlan,
    mut open: HashMap<Ipv4Addr, u32>,
) -> io::Result<HashMap<Ipv4Addr, u32>> {
    let mut list = BufReader::with_capacity(READ_BYTES, list.take(max_bytes));
    let mut line = String::new();
    while list.read_line(&mut line)? > 0 {
        if let Some((client, server)) = connection(&line)
            && plan
                .bridge_of(client)
                .is_some_and(|bridge| bridge.gateway != client)
            && let Some(count) = open.get_mut(&server)
        {
            *count += 1;
        }
        line.clear();
    }
    if list.get_ref().limit() == 0 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(open)
}

/// Client and answering server of a line that tells an open TCP connection:
/// `ipv4 2 tcp 6 431999 ESTABLISHED src=A dst=VIP sport=1 dport=2 src=B dst=A ...`.
fn connection(line: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "tcp")?;
    let mut open = false;
    let mut sources = Vec::with_capacity(2);
    for word in words {
        if let Some(source) = word.strip_prefix("src=") {
            sources.push(source.parse().ok()?);
        } else if sources.is_empty() {
            open |= OPEN_STATES.contains(&word);
        }
    }
    match sources.as_slice() {
        [client, server] if open => Some((*client, *server)),
        _ => None,
    }
}

/// Forgets connections of addresses that left the table, until the channel ends: a client that goes on sending to a
/// service would otherwise be led to an address that is nobody's, or somebody else's.
pub async fn forget(mut gone: mpsc::Receiver<Ipv4Addr>) {
    while let Some(address) = gone.recv().await {
        let address = address.to_string();
        // As its client, its server, and what a service's address led to.
        for option in ["--orig-src", "--orig-dst", "--reply-src"] {
            if let Err(error) = tool(&["-D", option, &address]).await {
                tracing::debug!(%error, address, "connections were not forgotten");
            }
        }
    }
}

/// Runs `conntrack`; that nothing matched is no failure.
async fn tool(arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new("conntrack");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(Duration::from_millis(TOOL_TIMEOUT_MS), command.output()).await??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.210.0.5 dst=10.211.0.1 sport=4 dport=80 src=10.210.0.9 dst=10.210.0.5 sport=80 dport=4 [ASSURED] mark=0 zone=0 use=2
ipv4     2 tcp      6 50 FIN_WAIT src=10.210.0.6 dst=10.210.0.9 sport=5 dport=80 src=10.210.0.9 dst=10.210.0.6 sport=80 dport=5 [ASSURED] mark=0 use=2
ipv4     2 tcp      6 110 TIME_WAIT src=10.210.0.5 dst=10.211.0.1 sport=6 dport=80 src=10.210.0.9 dst=10.210.0.5 sport=80 dport=6 mark=0 use=2
ipv4     2 tcp      6 431999 ESTABLISHED src=10.210.0.1 dst=10.210.0.9 sport=7 dport=80 src=10.210.0.9 dst=10.210.0.1 sport=80 dport=7 mark=0 use=2
ipv4     2 udp      17 25 src=10.210.0.5 dst=10.210.0.9 sport=8 dport=53 src=10.210.0.9 dst=10.210.0.5 sport=53 dport=8 mark=0 use=2
";

    #[tokio::test]
    async fn open_connections_of_replicas_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), FILE).unwrap();
        let (nine, five) = (Ipv4Addr::new(10, 210, 0, 9), Ipv4Addr::new(10, 210, 0, 5));
        let open = count(file.path(), &AddressPlan::default(), &[nine, five])
            .await
            .unwrap();
        assert_eq!(open, HashMap::from([(nine, 2), (five, 0)]));
    }

    #[test]
    fn a_list_without_end_is_no_count() {
        let endless = io::repeat(b'\n');
        let error = count_in(endless, 1 << 20, &AddressPlan::default(), HashMap::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
