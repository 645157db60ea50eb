//! The Docker engine: replicas are containers on bridges of the platform's own.
//!
//! It keeps no state that matters: everything is read back from labels, so that any number of processes (control and
//! `node`) can use one engine, and one that was killed goes on where Docker is. Containers are created by a
//! deterministic name and otherwise acted on by observed id only, after a look at their labels: nothing of another
//! installation, and nothing without labels, is ever touched.
//!
//! Two things are remembered for speed and may be forgotten at any time: which networks were seen, and which ids were
//! seen to be ours (an id is never used twice, and labels never change).
//!
//! It publishes no ports, makes no network per environment and runs nothing inside containers: who reaches whom is
//! decided by `node`, and so is who is healthy.

mod api;
mod container;
mod events;
mod figures;
mod image;
mod info;
mod labels;
mod network;
mod observed;
mod replicas;
mod resolver;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, Workload};
use futures_util::stream::BoxStream;

use self::api::{Api, Ask};
use self::figures::Figures;
pub use self::image::{PULL_SILENCE_TIMEOUT_MS, PULL_TIMEOUT_MS};
pub use self::replicas::{APPLY_TIMEOUT_MS, STOP_MARGIN_MS};
use crate::socket::Socket;
use crate::{Capabilities, Engine, EngineInfo, Error, Hint, ImageInfo, RegistryLogin, Scope, Stats};

/// How long figures may take, in milliseconds.
const FIGURES_TIMEOUT_MS: u64 = 15_000;

/// What a Docker engine is used with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Docker's Unix socket.
    pub socket: PathBuf,
    /// Whose containers these are: stands in every label, and nothing else is touched.
    pub installation: String,
    /// The addresses of replicas; its interface prefix also begins the containers' names.
    pub addresses: AddressPlan,
    /// Directory for files that are mounted into containers. Docker must see it under the same path.
    pub files: PathBuf,
}

/// The engine at a Docker socket. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    api: Arc<Api>,
    options: Options,
    /// The resolver files of the bridges whose networks were seen.
    bridges: tokio::sync::Mutex<BTreeMap<u32, PathBuf>>,
    /// Ids that were seen to be ours.
    ours: Mutex<HashSet<String>>,
}

impl DockerEngine {
    /// An engine that connects when it is first used: Docker need not be there yet, and may come and go.
    pub fn new(options: Options) -> Self {
        let inner = Inner {
            api: Arc::new(Api::new(Socket::new(&options.socket))),
            options,
            bridges: tokio::sync::Mutex::default(),
            ours: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes the network of a bridge before the first replica needs it: names are answered and the firewall is loaded
    /// on an interface that is there.
    ///
    /// # Errors
    /// [`Error::Network`] when something else has its name or its addresses.
    pub async fn ensure_bridge(&self, index: u32) -> Result<(), Error> {
        let bridge = self.inner.options.addresses.bridge(index);
        let bridge =
            bridge.ok_or_else(|| Error::Network(format!("the address plan has no bridge {index}")))?;
        self.inner.ensure_bridge(&bridge).await.map(|_| ())
    }
}

#[async_trait]
impl Engine for DockerEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            static_addresses: true,
            pause: true,
            socket_inspection: true,
        }
    }

    async fn info(&self) -> Result<EngineInfo, Error> {
        info::ask(&self.inner.api).await
    }

    async fn find_image(&self, image: &ImageReference) -> Result<Option<ImageInfo>, Error> {
        image::find(&self.inner.api, image).await
    }

    async fn ensure_image(&self, image: &ImageReference, login: &RegistryLogin) -> Result<ImageInfo, Error> {
        image::ensure(&self.inner.api, image, login).await
    }

    async fn images(&self, repository_prefix: &str) -> Result<Vec<ImageReference>, Error> {
        image::list(&self.inner.api, repository_prefix).await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), Error> {
        image::remove(&self.inner.api, image).await
    }

    async fn apply(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.inner.make(workload, true).await
    }

    async fn prepare(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.inner.make(workload, false).await
    }

    async fn observe(&self, scope: Scope) -> Result<Vec<Observed>, Error> {
        self.inner.observe(scope).await
    }

    async fn find(&self, handle: &str) -> Result<Option<Observed>, Error> {
        Ok(self
            .inner
            .inspect_ours(handle)
            .await?
            .and_then(|found| found.observed()))
    }

    async fn start(&self, handle: &str) -> Result<(), Error> {
        self.inner.check_ours(handle).await?;
        self.inner.start(handle).await
    }

    async fn set_restart(&self, handle: &str, restart: EngineRestart) -> Result<(), Error> {
        self.inner.check_ours(handle).await?;
        self.inner.set_restart(handle, restart).await
    }

    async fn stop(&self, handle: &str, grace_ms: u32) -> Result<(), Error> {
        match self.inner.check_ours(handle).await {
            Err(Error::Gone(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.inner.stop(handle, grace_ms).await,
        }
    }

    async fn remove(&self, handle: &str) -> Result<(), Error> {
        match self.inner.check_ours(handle).await {
            Err(Error::Gone(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.inner.remove(handle).await,
        }
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Hint, Error>>, Error> {
        events::open(self.inner.api.clone(), &self.inner.options.installation).await
    }

    async fn stats(&self, handle: &str) -> Result<Option<Stats>, Error> {
        match self.inner.check_ours(handle).await {
            Err(Error::Gone(_)) => return Ok(None),
            other => other?,
        }
        let ask = Ask::get(format!("/containers/{handle}/stats"), FIGURES_TIMEOUT_MS)
            .query(&[("stream", "false"), ("one-shot", "true")]);
        match self.inner.api.ask_for::<Figures>(ask).await {
            Ok(figures) => Ok(figures.stats()),
            Err(refusal) if refusal.code() == Some(404) => Ok(None),
            Err(refusal) => Err(refusal.into_error("stats")),
        }
    }

    async fn log_file(&self, handle: &str) -> Result<Option<PathBuf>, Error> {
        Ok(self
            .inner
            .inspect_ours(handle)
            .await?
            .and_then(|found| found.log_path().map(PathBuf::from)))
    }

    async fn process_id(&self, handle: &str) -> Result<Option<u32>, Error> {
        let found = self.inner.inspect_ours(handle).await?;
        Ok(found
            .filter(|found| found.is_running())
            .map(|found| found.state.pid))
    }
}
