//! The public listeners: bound once, kept as duplicates, handed to every edge that starts. While anybody holds one,
//! connections wait in its backlog instead of being refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use ferrovia_edge::{command, listeners};
use ferrovia_table::Peers;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::command::Failure;
use crate::config::Config;
use crate::edge;

/// The listeners and the socket at which they are handed out.
#[derive(Debug)]
pub struct Sockets {
    held: Arc<Vec<TcpListener>>,
    door: UnixListener,
    peers: Peers,
}

impl Sockets {
    /// Fetches the listeners of an edge that lives, else binds them.
    ///
    /// # Errors
    /// When the port is in use, naming the process that has it.
    pub async fn open(config: &Config, edge_uid: u32) -> Result<Self, Failure> {
        let socket = config.paths.edge_socket();
        let fetched = tokio::task::spawn_blocking(move || command::fetch_listeners(&socket)).await?;
        let wanted = config.http_listen;
        let fits = |held: &Vec<TcpListener>| {
            !held.is_empty()
                && held
                    .iter()
                    .all(|one| one.local_addr().is_ok_and(|address| address == wanted))
        };
        let held = match fetched.ok().filter(fits) {
            Some(held) => held,
            None => {
                listeners::bind_all(wanted, edge::workers(config)).map_err(|error| refused(wanted, &error))?
            }
        };
        let path = config.paths.serve_socket();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let door = UnixListener::bind(&path)?;
        // Who may pass the directory may connect; who may have the listeners is checked by user id.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            held: Arc::new(held),
            door,
            peers: Peers { uid: edge_uid },
        })
    }

    /// Hands duplicates to whoever of the platform asks, until `stop` becomes true.
    pub async fn hand_out(self, mut stop: watch::Receiver<bool>) {
        loop {
            let stream = tokio::select! {
                accepted = self.door.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("no connection was accepted for the listeners: {error}");
                        continue;
                    }
                },
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = self.peers.check(&stream) {
                tracing::warn!("the listeners were not handed out: {error}");
                continue;
            }
            let held = Arc::clone(&self.held);
            tokio::task::spawn_blocking(move || {
                let sent = stream.into_std().and_then(|stream| {
                    stream.set_nonblocking(false)?;
                    listeners::send(&stream, &held)
                });
                if let Err(error) = sent {
                    tracing::warn!("the listeners were not handed out: {error}");
                }
            });
        }
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let owner = super::port_owner::find(address.port()).map_or_else(
                || "another process".to_owned(),
                |owner| format!("`{}` (process {})", owner.name, owner.pid),
            );
            format!("{address} is in use by {owner}; stop it, or choose another address with `--http-listen`")
        }
        _ => format!("{address} cannot be listened on: {error}"),
    }
}
