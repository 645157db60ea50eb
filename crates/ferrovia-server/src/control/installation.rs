//! What only the running server knows: how its parts are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_api::system::{Component, Finding};
use ferrovia_control::{Live, Status};
use ferrovia_core::table::Audience;
use ferrovia_store::Db;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::{Config, EngineKind};
use crate::doctor;
use crate::http::Installation;

/// How long the database may take to answer, in milliseconds.
const PING_MS: u64 = 1_000;

/// The running server.
pub struct Running {
    pub(super) config: Config,
    pub(super) db: Db,
    pub(super) live: Arc<Live>,
    pub(super) status: watch::Receiver<Status>,
}

impl Running {
    /// The parts but the database, which must be asked.
    fn parts(&self) -> Vec<Component> {
        let status = self.status.borrow().clone();
        let readers = self.live.readers();
        let edge = readers
            .readers
            .iter()
            .any(|reader| reader.connected && reader.audience == Audience::Edge);
        let node = readers
            .readers
            .iter()
            .any(|reader| reader.connected && reader.audience == Audience::Node);
        let engine = match self.config.engine {
            EngineKind::Docker => format!("Docker at `{}`", self.config.docker_socket.display()),
            EngineKind::Fake => "the fake engine: nothing real runs".to_owned(),
        };
        vec![
            component("control", status.works, "takes up work"),
            component("engine", status.hears_engine, engine),
            component(
                "node",
                status.hears_node && node,
                "names, firewall, health and logs",
            ),
            component(
                "edge",
                edge,
                format!("public traffic at {}", self.config.http_listen),
            ),
        ]
    }
}

fn component(name: &str, ready: bool, detail: impl Into<String>) -> Component {
    Component {
        name: name.to_owned(),
        ready,
        required: true,
        detail: Some(detail.into()),
    }
}

#[async_trait]
impl Installation for Running {
    async fn components(&self) -> Vec<Component> {
        let limit = Duration::from_millis(PING_MS);
        let answers = matches!(tokio::time::timeout(limit, self.db.ping()).await, Ok(Ok(())));
        let place = match self.config.database.is_private() {
            true => "the private PostgreSQL",
            false => "PostgreSQL elsewhere",
        };
        let mut components = vec![component("database", answers, place)];
        components.extend(self.parts());
        components
    }

    async fn examine(&self) -> Vec<Finding> {
        doctor::examine(&self.config).await
    }

    fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("ferrovia");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What runs", Info::new(version));
        let ready = Family::<[(&'static str, String); 1], Gauge>::default();
        registry.register("component_ready", "Whether a part does its work", ready.clone());
        for part in self.parts() {
            ready
                .get_or_create(&[("component", part.name)])
                .set(part.ready.into());
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
