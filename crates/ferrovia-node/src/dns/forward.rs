//! Asks the host's resolvers what is not ours. Questions and answers pass as they are, but for the id: what this
//! process does not understand of them (new record types, DNSSEC) still works.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message;

/// How long one resolver is waited for, in milliseconds: less than what replicas wait for us.
const ASK_TIMEOUT_MS: u64 = 1_500;
/// Questions to resolvers before the answer is "it failed".
const TRIES: usize = 3;
/// How often the host's list of resolvers is looked at, in milliseconds.
const LOOK_MS: u64 = 5_000;
/// Resolvers that count, as glibc counts them.
const MAX_RESOLVERS: usize = 3;
/// Largest answer over UDP, in bytes.
const MAX_UDP_BYTES: usize = 4096;
const DNS_PORT: u16 = 53;

/// How a question came; it is asked on in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// With its length before it.
    Tcp,
}

/// Asks the host's resolvers.
#[derive(Debug)]
pub struct Forwarder {
    file: PathBuf,
    /// Our own addresses: asking ourselves would go round.
    own: Vec<Ipv4Addr>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    resolvers: Vec<SocketAddr>,
}

impl Forwarder {
    /// Resolvers from a file in the format of `/etc/resolv.conf`, read again when it changes.
    pub const fn new(file: PathBuf, own: Vec<Ipv4Addr>) -> Self {
        Self {
            file,
            own,
            known: Mutex::new(Known {
                looked: None,
                modified: None,
                resolvers: Vec::new(),
            }),
        }
    }

    /// The answer to a question; a failure as DNS tells it when no resolver answers. `None` when it is no question.
    pub async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let resolvers = self.resolvers();
        let asked_id = *question.first_chunk::<2>()?;
        let mut question = question.to_vec();
        for resolver in resolvers
            .iter()
            .cycle()
            .take(if resolvers.is_empty() { 0 } else { TRIES })
        {
            question[..2].copy_from_slice(&rand::random::<[u8; 2]>());
            let asking = async {
                match transport {
                    Transport::Udp => ask_udp(*resolver, &question).await,
                    Transport::Tcp => ask_tcp(*resolver, &question).await,
                }
            };
            match timeout(Duration::from_millis(ASK_TIMEOUT_MS), asking).await {
                Ok(Ok(mut answer)) if message::belongs(&question, &answer) => {
                    answer[..2].copy_from_slice(&asked_id);
                    return Some(answer);
                }
                Ok(Ok(_)) => tracing::debug!(%resolver, "a resolver answered something else"),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver cannot be asked"),
                Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
            }
        }
        question[..2].copy_from_slice(&asked_id);
        message::failure(&question, ResponseCode::ServFail)
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let due = known
            .looked
            .is_none_or(|at| at.elapsed() >= Duration::from_millis(LOOK_MS));
        if due {
            known.looked = Some(Instant::now());
            let modified = std::fs::metadata(&self.file)
                .and_then(|file| file.modified())
                .ok();
            if modified.is_none() || modified != known.modified {
                match std::fs::read_to_string(&self.file) {
                    Ok(text) => {
                        known.resolvers = resolvers(&text, &self.own);
                        known.modified = modified;
                    }
                    // What was known before goes on.
                    Err(error) => {
                        tracing::warn!(file = %self.file.display(), %error, "the host's resolvers cannot be read")
                    }
                }
            }
        }
        known.resolvers.clone()
    }
}

/// The resolvers of a `resolv.conf`.
fn resolvers(text: &str, own: &[Ipv4Addr]) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse::<IpAddr>().ok()
    });
    addresses
        .filter(|address| !own.iter().any(|own| IpAddr::V4(*own) == *address))
        .take(MAX_RESOLVERS)
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .collect()
}

async fn ask_udp(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A socket of its own for each question: a random port, and answers of this resolver only.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        if message::belongs(question, &answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    stream.write_all(&framed(question)).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A message with its length before it (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&message[..usize::from(length)]);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolvers_are_read_and_we_are_not_among_them() {
        let text = "# c\nsearch x\nnameserver 10.210.0.1\nnameserver  9.9.9.9 \nnameserver ::1\noptions a\nnameserver bad\n";
        let found = resolvers(text, &[Ipv4Addr::new(10, 210, 0, 1)]);
        assert_eq!(
            found,
            [
                "9.9.9.9:53".parse().unwrap(),
                "[::1]:53".parse::<SocketAddr>().unwrap()
            ]
        );
    }

    #[tokio::test]
    async fn without_a_resolver_the_answer_is_a_failure() {
        let forwarder = Forwarder::new("/nonexistent".into(), vec![]);
        let question = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let answer = forwarder.ask(&question, Transport::Udp).await.unwrap();
        assert_eq!((&answer[..2], answer[3] & 15), (&[7, 8][..], 2));
        assert!(message::belongs(&question, &answer));
    }
}
