//! What the kernel tells unasked: that interfaces changed, that somebody changed nftables. Hints only; whoever gets
//! one looks for itself, and looks now and then without one.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink, socket_with};
use tokio::io::unix::AsyncFd;

/// `RTNLGRP_LINK` as a bit of the address.
const LINK_GROUP: u32 = 1;
/// `NFNLGRP_NFTABLES` (7) as a bit of the address.
const NFTABLES_GROUP: u32 = 1 << 6;
/// Receive buffer, in bytes: a large transaction of somebody else's must fit.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Longest datagram that is read, in bytes.
const DATAGRAM_BYTES: usize = 64 * 1024;

const MESSAGE_HEAD_BYTES: usize = 16;
const GENERATION_HEAD_BYTES: usize = 4;
const ATTRIBUTE_HEAD_BYTES: usize = 4;
/// `NFNL_SUBSYS_NFTABLES` in the upper byte of a message's type.
const SUBSYSTEM_NFTABLES: u16 = 10;
/// `NFT_MSG_NEWGEN`: the end of a transaction, with who made it.
const NEW_GENERATION: u16 = 15;
/// `NFTA_GEN_PROC_PID`.
const GENERATION_PROCESS: u16 = 2;
/// `NFTA_TABLE_NAME`, and the table's name in every other kind of message.
const TABLE_NAME: u16 = 1;

/// A subscription to one group of messages.
#[derive(Debug)]
pub struct Subscription {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// A datagram of messages.
    Messages(&'a [u8]),
    /// Some were lost: anything may have changed.
    Lost,
}

impl Subscription {
    /// Changes of interfaces, of ports of bridges too.
    ///
    /// # Errors
    /// What the system says.
    pub fn links() -> std::io::Result<Self> {
        Self::open(None, LINK_GROUP)
    }

    /// Changes of nftables.
    ///
    /// # Errors
    /// What the system says.
    pub fn nftables() -> std::io::Result<Self> {
        Self::open(Some(netlink::NETFILTER), NFTABLES_GROUP)
    }

    #[expect(
        deprecated,
        reason = "what took its place is unsafe; an OwnedFd that is never replaced keeps what the function asks for"
    )]
    fn open(protocol: Option<rustix::net::Protocol>, groups: u32) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Self {
            socket: AsyncFd::new(socket)?,
            buffer: vec![0; DATAGRAM_BYTES],
        })
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    /// What the system says; the subscription is then opened again.
    pub async fn next(&mut self) -> std::io::Result<Received<'_>> {
        let length = loop {
            let mut ready = self.socket.readable().await?;
            match rustix::net::recv(self.socket.get_ref(), &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => break length,
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => return Ok(Received::Lost),
                Err(error) => return Err(error.into()),
            }
        };
        if length > self.buffer.len() {
            return Ok(Received::Lost);
        }
        Ok(Received::Messages(&self.buffer[..length]))
    }
}

/// What a message about nftables says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NftablesEvent {
    /// Something in a table of this name changed.
    Table(String),
    /// The changes before this one were one transaction, made by this process.
    Done {
        /// Process id in the initial namespace.
        process: u32,
    },
}

/// The events in a datagram; what is not understood is left out.
pub fn nftables_events(datagram: &[u8]) -> Vec<NftablesEvent> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while let Some((head, _)) = rest.split_first_chunk::<MESSAGE_HEAD_BYTES>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        if length < MESSAGE_HEAD_BYTES || length > rest.len() {
            break;
        }
        if kind >> 8 == SUBSYSTEM_NFTABLES {
            let body = &rest[MESSAGE_HEAD_BYTES..length];
            let attributes = body.get(GENERATION_HEAD_BYTES..).unwrap_or_default();
            let generation = kind & 0xff == NEW_GENERATION;
            let wanted = if generation {
                GENERATION_PROCESS
            } else {
                TABLE_NAME
            };
            match find_attribute(attributes, wanted) {
                Some([a, b, c, d]) if generation => events.push(NftablesEvent::Done {
                    process: u32::from_be_bytes([*a, *b, *c, *d]),
                }),
                Some(name) if !generation => {
                    let name = name.strip_suffix(&[0]).unwrap_or(name);
                    events.push(NftablesEvent::Table(String::from_utf8_lossy(name).into_owned()));
                }
                _ => {}
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

fn find_attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((head, _)) = attributes.split_first_chunk::<ATTRIBUTE_HEAD_BYTES>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        // The two upper bits tell nesting and byte order.
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = attributes.get(ATTRIBUTE_HEAD_BYTES..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![1, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(((value.len() + 4) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut out = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
        out.extend(((SUBSYSTEM_NFTABLES << 8) | kind).to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out
    }

    #[test]
    fn tables_and_processes_are_read() {
        let mut datagram = message(0, &[(TABLE_NAME, b"ferrovia\0")]);
        datagram.extend(message(
            NEW_GENERATION,
            &[(1, &[0, 0, 0, 9]), (2, &[0, 0, 1, 2]), (3, b"nft\0")],
        ));
        let events = nftables_events(&datagram);
        assert_eq!(
            events,
            [
                NftablesEvent::Table("ferrovia".to_owned()),
                NftablesEvent::Done { process: 258 }
            ]
        );
        for cut in 0..datagram.len() {
            nftables_events(&datagram[..cut]);
        }
    }
}
