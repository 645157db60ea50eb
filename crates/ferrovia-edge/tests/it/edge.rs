//! An edge in a thread, with a control and a node of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use ferrovia_edge::command::{self, Status};
use ferrovia_edge::{Options, listeners};
use ferrovia_table::Peers;
use tempfile::TempDir;

use crate::control::Control;
use crate::eventually;

pub struct Edge {
    pub address: SocketAddr,
    pub control: Control,
    pub dir: TempDir,
    thread: Option<JoinHandle<Result<(), ferrovia_edge::Error>>>,
}

/// Two workers, whatever the machine has: what they share is part of the test.
pub const WORKERS: usize = 2;

impl Edge {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub async fn start_with(adapt: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::start(dir.path());
        let listeners = listeners::bind_all("127.0.0.1:0".parse().unwrap(), WORKERS).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let mut options = Options::new(
            dir.path().to_owned(),
            dir.path().join("table"),
            listeners,
            Peers::same_user(),
        );
        options.workers = WORKERS;
        adapt(&mut options);
        let edge = Self {
            address,
            control,
            dir,
            thread: Some(launch(options)),
        };
        let socket = edge.socket();
        eventually("the edge runs and knows control", async || {
            status(&socket)
                .await
                .is_ok_and(|status| status.control && status.version.revision > 0)
        })
        .await;
        edge
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("edge.sock")
    }

    pub async fn status(&self) -> Status {
        status(&self.socket()).await.unwrap()
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) {
        let thread = self.thread.take().unwrap();
        eventually("the edge ends", async || thread.is_finished()).await;
        thread.join().unwrap().unwrap();
    }

    /// Waits until the process has ended by itself; `next` has taken its place.
    pub async fn replaced_by(&mut self, next: JoinHandle<Result<(), ferrovia_edge::Error>>) {
        self.ended().await;
        self.thread = Some(next);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = command::drain(&self.socket(), 0, 0);
        }
    }
}

pub fn launch(options: Options) -> JoinHandle<Result<(), ferrovia_edge::Error>> {
    std::thread::spawn(|| ferrovia_edge::run(options))
}

pub async fn status(socket: &Path) -> std::io::Result<Status> {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || command::status(&socket))
        .await
        .unwrap()
}
