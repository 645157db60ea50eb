//! What handlers have at hand, and the seams to the rest of the server.

use std::sync::Arc;

use async_trait::async_trait;
use ferrovia_api::system::{Component, Finding};
use ferrovia_control::usecase::UseCases;
use tokio::sync::Semaphore;

use super::auth::Failures;

/// Ordinary requests that are worked on at once.
pub const MAX_REQUESTS: usize = 256;
/// Tokens that are tried at once, by whoever has none yet.
pub const MAX_SIGN_INS: usize = 16;
/// Manifests that are worked on at once: each may be of many megabytes.
pub const MAX_MANIFESTS: usize = 4;
/// Uploads of contents at once.
pub const MAX_UPLOADS: usize = 32;
/// Streams that are open at once.
pub const MAX_STREAMS: usize = 512;

/// Answers what only the running server knows. Given by whoever wires it.
#[async_trait]
pub trait Installation: Send + Sync {
    /// Each part of the platform and whether it does its work, as last observed; quick.
    async fn components(&self) -> Vec<Component>;

    /// Everything that a doctor looks at, the worst first.
    async fn examine(&self) -> Vec<Finding>;

    /// The metrics of this process in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// What handlers have at hand. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// Everything that changes or reads the platform's objects.
    pub cases: UseCases,
    /// The rest of the server.
    pub installation: Arc<dyn Installation>,
    pub(super) failures: Arc<Failures>,
    pub(super) requests: Arc<Semaphore>,
    pub(super) sign_ins: Arc<Semaphore>,
    pub(super) manifests: Arc<Semaphore>,
    pub(super) uploads: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
}

impl State {
    /// State with the usual bounds.
    pub fn new(cases: UseCases, installation: Arc<dyn Installation>) -> Self {
        Self {
            cases,
            installation,
            failures: Arc::new(Failures::default()),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            sign_ins: Arc::new(Semaphore::new(MAX_SIGN_INS)),
            manifests: Arc::new(Semaphore::new(MAX_MANIFESTS)),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }
}
