//! Where a replica listens, read from the kernel's tables of its network namespace: for the sentence that says why it
//! does not answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Docker's own resolver inside every container.
const DOCKER_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// `TCP_LISTEN` in the tables.
const LISTEN: &str = "0A";
/// Most places that are told.
const MAX_TOLD: usize = 8;

/// Where a process listens instead of on the wanted port beyond loopback; nothing when it listens there, or nowhere.
pub fn elsewhere(proc: &Path, process: u32, port: u16) -> Vec<String> {
    let directory = proc.join(process.to_string()).join("net");
    let mut listening = BTreeSet::new();
    for (table, read) in [("tcp", read_v4 as fn(&str) -> Option<IpAddr>), ("tcp6", read_v6)] {
        if let Ok(text) = std::fs::read_to_string(directory.join(table)) {
            listening.extend(text.lines().skip(1).filter_map(|line| listener(line, read)));
        }
    }
    told(listening, port)
}

fn told(listening: BTreeSet<SocketAddr>, port: u16) -> Vec<String> {
    if listening
        .iter()
        .any(|at| at.port() == port && !at.ip().is_loopback())
    {
        return Vec::new();
    }
    let others = listening.into_iter().filter(|at| at.ip() != DOCKER_RESOLVER);
    others.take(MAX_TOLD).map(|at| at.to_string()).collect()
}

/// The address of a line if it is a listener: `0: 0100007F:0BB8 00000000:0000 0A ...`.
fn listener(line: &str, read: fn(&str) -> Option<IpAddr>) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    (words.nth(1)? == LISTEN).then_some(())?;
    Some(SocketAddr::new(
        read(address)?,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

fn read_v4(hex: &str) -> Option<IpAddr> {
    // The kernel prints the address as a number of the machine's own byte order.
    let number = u32::from_str_radix(hex, 16).ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(number.to_ne_bytes())))
}

fn read_v6(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (word, out) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *out = u32::from_str_radix(hex.get(word * 8..word * 8 + 8)?, 16)
            .ok()?
            .to_ne_bytes();
    }
    let address = Ipv6Addr::from(bytes);
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000
   1: 0B00007F:9C41 00000000:0000 0A 00000000:00000000
   2: 0100007F:0BB8 0100007F:D431 01 00000000:00000000
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
";

    #[test]
    fn listeners_on_loopback_and_on_other_ports_are_told() {
        let proc = tempfile::tempdir().unwrap();
        let net = proc.path().join("17/net");
        std::fs::create_dir_all(&net).unwrap();
        std::fs::write(net.join("tcp"), TCP).unwrap();
        assert_eq!(elsewhere(proc.path(), 17, 3000), ["127.0.0.1:3000"]);
        std::fs::write(net.join("tcp6"), TCP6).unwrap();
        assert_eq!(elsewhere(proc.path(), 17, 3000), ["127.0.0.1:3000", "[::]:8080"]);
        assert!(
            elsewhere(proc.path(), 17, 8080).is_empty(),
            "it listens where it should"
        );
        assert!(
            elsewhere(proc.path(), 18, 8080).is_empty(),
            "a process that is gone"
        );
    }
}
