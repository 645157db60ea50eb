//! Unix sockets of the platform's own processes: bound without a gap, and only for the users that belong there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::error::Error;

/// Longest wait for a connection to a socket of this host, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 2_000;

/// Who may be at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    /// The user that the platform's unprivileged processes run as; root is always taken.
    pub uid: u32,
}

impl Peers {
    /// The user that this process runs as, and root.
    pub fn same_user() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Checks the other end of a connection (SO_PEERCRED).
    ///
    /// # Errors
    /// [`Error::Peer`] when it is somebody else.
    pub fn check(self, stream: &UnixStream) -> Result<(), Error> {
        let found = stream.peer_cred().map_err(Error::Connection)?.uid();
        if found == 0 || found == self.uid {
            Ok(())
        } else {
            Err(Error::Peer {
                found,
                wanted: self.uid,
            })
        }
    }
}

/// Binds a listening socket at `path` in place of whatever is there: under another name first, then renamed, so that
/// there is never a moment without a socket. Everybody may connect; who may speak is checked by user id.
///
/// # Errors
/// What the system says; a path of 108 bytes or more is refused by it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(temporary)?;
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o666))?;
    fs::rename(temporary, path)?;
    Ok(listener)
}

/// Connects to the socket at `path` and checks who listens there.
///
/// # Errors
/// [`Error::Connection`] when nobody answers, [`Error::Peer`] when it is somebody else.
pub async fn connect(path: &Path, peers: Peers) -> Result<UnixStream, Error> {
    let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
    let stream = tokio::time::timeout(limit, UnixStream::connect(path))
        .await
        .map_err(|_| Error::Silent(CONNECT_TIMEOUT_MS))?
        .map_err(Error::Connection)?;
    peers.check(&stream)?;
    Ok(stream)
}
