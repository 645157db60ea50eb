//! Sockets: UDP and TCP on one address, bounded in total and per source, so that one replica that asks without end
//! leaves the others their answers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::forward::{Forwarder, Transport, framed};
use super::message::{self, Reply};
use super::zone::Zone;

/// Questions and connections in hand at once, in total and of one source.
const MAX_OPEN: usize = 1_024;
const MAX_OPEN_PER_SOURCE: usize = 64;
/// How long a TCP connection may say nothing, in milliseconds.
const IDLE_TIMEOUT_MS: u64 = 10_000;
/// Pause after a socket's error, in milliseconds.
const ERROR_PAUSE_MS: u64 = 100;
/// Largest question over UDP, in bytes.
const MAX_UDP_BYTES: usize = 4096;

/// What all sockets share.
#[derive(Debug)]
pub struct Shared {
    /// Names, as the newest table has them.
    pub zone: watch::Receiver<Arc<Zone>>,
    /// The host's resolvers.
    pub forwarder: Forwarder,
    /// What is open, by source.
    open: Mutex<HashMap<Ipv4Addr, usize>>,
}

impl Shared {
    /// Nothing is open yet.
    pub fn new(zone: watch::Receiver<Arc<Zone>>, forwarder: Forwarder) -> Self {
        Self {
            zone,
            forwarder,
            open: Mutex::default(),
        }
    }

    /// Room for one more of a source; `None` when it has too many.
    fn enter(self: &Arc<Self>, source: Ipv4Addr) -> Option<Room> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MAX_OPEN {
            return None;
        }
        let of_source = open.entry(source).or_default();
        if *of_source >= MAX_OPEN_PER_SOURCE {
            return None;
        }
        *of_source += 1;
        Some(Room {
            shared: Arc::clone(self),
            source,
        })
    }

    fn decide(&self, source: Ipv4Addr, question: &[u8]) -> Reply {
        message::answer(&self.zone.borrow(), source, question)
    }
}

/// A place that is given back when it is dropped.
struct Room {
    shared: Arc<Shared>,
    source: Ipv4Addr,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_source) = open.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// Answers datagrams until it is dropped.
pub async fn udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut asking = JoinSet::new();
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        while asking.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "no question was received");
                sleep(Duration::from_millis(ERROR_PAUSE_MS)).await;
                continue;
            }
        };
        let Some(source) = ipv4(from) else { continue };
        let question = &buffer[..length];
        match shared.decide(source, question) {
            Reply::Nothing => {}
            // What does not fit in the socket's buffer is lost, as datagrams are; who asked asks again.
            Reply::Bytes(answer) => drop(socket.try_send_to(&answer, from)),
            Reply::Forward => match shared.enter(source) {
                Some(room) => {
                    let (socket, question) = (Arc::clone(&socket), question.to_vec());
                    asking.spawn(async move {
                        if let Some(answer) = room.shared.forwarder.ask(&question, Transport::Udp).await {
                            let _ = socket.send_to(&answer, from).await;
                        }
                    });
                }
                None => {
                    if let Some(answer) = message::failure(question, ResponseCode::ServFail) {
                        let _ = socket.try_send_to(&answer, from);
                    }
                }
            },
        }
    }
}

/// Answers connections until it is dropped.
pub async fn tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(source) = ipv4(from)
                    && let Some(room) = shared.enter(source)
                {
                    connections.spawn(async move {
                        if let Err(error) = connection(stream, &room).await {
                            tracing::debug!(%error, "a connection for names ended");
                        }
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no connection was accepted");
                sleep(Duration::from_millis(ERROR_PAUSE_MS)).await;
            }
        }
    }
}

/// One question after the other, so that a connection takes one place.
async fn connection(mut stream: TcpStream, room: &Room) -> std::io::Result<()> {
    let idle = Duration::from_millis(IDLE_TIMEOUT_MS);
    loop {
        let question = timeout(idle, async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            std::io::Result::Ok(question)
        })
        .await??;
        let answer = match room.shared.decide(room.source, &question) {
            Reply::Bytes(answer) => Some(answer),
            Reply::Forward => room.shared.forwarder.ask(&question, Transport::Tcp).await,
            Reply::Nothing => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(idle, stream.write_all(&framed(&answer))).await??;
    }
}

fn ipv4(address: SocketAddr) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_core::network::AddressPlan;

    use super::*;

    #[test]
    fn one_source_leaves_room_for_others() {
        let (_sender, zone) = watch::channel(Arc::new(Zone::new(&AddressPlan::default(), [])));
        let shared = Arc::new(Shared::new(zone, Forwarder::new("/nonexistent".into(), vec![])));
        let rooms: Vec<_> = (0..MAX_OPEN_PER_SOURCE)
            .map(|_| shared.enter(Ipv4Addr::LOCALHOST).unwrap())
            .collect();
        assert!(shared.enter(Ipv4Addr::LOCALHOST).is_none());
        assert!(shared.enter(Ipv4Addr::BROADCAST).is_some());
        drop(rooms);
        assert!(shared.enter(Ipv4Addr::LOCALHOST).is_some());
        assert!(shared.open.lock().unwrap().is_empty());
    }
}
