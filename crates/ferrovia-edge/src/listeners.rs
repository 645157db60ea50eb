//! Listening sockets that outlive the process that serves them.
//!
//! `serve` binds them, one per worker, and keeps duplicates; an edge is given them over a Unix socket (SCM_RIGHTS) and
//! gives duplicates to whoever asks at `edge.sock`. While any process holds one, connections wait in its backlog.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, bind, listen, recvmsg, sendmsg, socket_with,
    sockopt,
};

/// Connections that may wait in the backlog of each listener.
const BACKLOG: i32 = 4_096;
/// Sockets in one message; the kernel's limit is 253.
const BATCH: usize = 64;
/// Most sockets that are ever taken.
const MAX_LISTENERS: usize = 1_024;

/// Binds `count` listeners to one address, so that the kernel spreads connections over them (SO_REUSEPORT).
///
/// # Errors
/// What the system says: the port is in use, or is not for this user.
pub fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let listener = bind_one(address)?;
        // Port 0: the others share what the first was given.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Duplicates of listeners, for another thread or another process.
///
/// # Errors
/// When open files have run out.
pub fn duplicates(listeners: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    listeners.iter().map(TcpListener::try_clone).collect()
}

/// Sends listeners to whoever is at the other end; ours stay open.
///
/// # Errors
/// When the other end does not take them.
pub fn send(stream: &UnixStream, listeners: &[TcpListener]) -> io::Result<()> {
    let count = u32::try_from(listeners.len()).map_err(io::Error::other)?;
    let mut out = stream;
    out.write_all(&count.to_le_bytes())?;
    for batch in listeners.chunks(BATCH) {
        let descriptors: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("the listeners do not fit in one message"));
        }
        let mark = u8::try_from(batch.len()).map_err(io::Error::other)?;
        sendmsg(
            stream,
            &[IoSlice::new(&[mark])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
    Ok(())
}

/// Takes the listeners that [`send`] sends.
///
/// # Errors
/// When the other end sends something else, or the stream's read timeout is over.
pub fn receive(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut count = [0; 4];
    let mut from = stream;
    from.read_exact(&mut count)?;
    let count = usize::try_from(u32::from_le_bytes(count)).map_err(io::Error::other)?;
    if count > MAX_LISTENERS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many listeners"));
    }
    let mut listeners = Vec::with_capacity(count);
    while listeners.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut mark = [0];
        let got = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut mark)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = listeners.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                listeners.extend(descriptors.map(|descriptor: OwnedFd| TcpListener::from(descriptor)));
            }
        }
        if listeners.len() - before != usize::from(mark[0]) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "listeners were lost on the way",
            ));
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn listeners_pass_through_a_socket_and_go_on_listening() {
        let listeners = bind_all("127.0.0.1:0".parse().unwrap(), 100).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || {
            send(&ours, &listeners).unwrap();
        });
        let received = receive(&theirs).unwrap();
        sender.join().unwrap();
        assert_eq!(received.len(), 100);
        assert!(
            received
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
        TcpStream::connect(address).unwrap();
    }
}
