//! The builder that goes with the fake engine: it says that it builds and builds nothing.
//!
//! The fake engine runs any image, whatever it is called. So a source becomes the name of an image: equal sources the
//! same, which is how builds that are skipped can be seen too.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::workload::ImageReference;
use serde_json::json;

use crate::digest::Digest;
use crate::{BuildError, BuildLog, BuildRequest, Builder, BuiltImage, PlannedBuild};

/// Most images that are remembered; one that was forgotten is built again.
const MAX_IMAGES: usize = 100_000;

/// Gives every source an image that does not exist.
#[derive(Debug)]
pub struct SimulatedBuilder {
    registry: SocketAddr,
    /// Images that were taken away.
    removed: Mutex<HashSet<ImageReference>>,
}

impl SimulatedBuilder {
    /// A builder whose images are named after this registry.
    pub fn new(registry: SocketAddr) -> Self {
        Self {
            registry,
            removed: Mutex::default(),
        }
    }

    fn image(&self, request: &BuildRequest, key: &str) -> ImageReference {
        let project = request.project_id.uuid().simple();
        let service = request.service_id.uuid().simple();
        ImageReference {
            repository: format!("{}/apps/{project}/{service}", self.registry),
            digest: Digest::of(key.as_bytes()).to_string(),
        }
    }
}

#[async_trait]
impl Builder for SimulatedBuilder {
    async fn plan(&self, request: &BuildRequest) -> Result<PlannedBuild, BuildError> {
        let plan = json!({ "source": request.source, "settings": request.settings });
        let text = format!("{}{plan}", request.project_id.uuid());
        Ok(PlannedBuild {
            builder: "simulated".to_owned(),
            plan,
            image_key: Digest::of(text.as_bytes()).to_string(),
            warnings: vec![Report::new(
                "build_simulated",
                "nothing was built: the fake engine runs no real image",
            )],
        })
    }

    async fn build(
        &self,
        request: &BuildRequest,
        planned: &PlannedBuild,
        log: &(dyn BuildLog + '_),
    ) -> Result<BuiltImage, BuildError> {
        let image = self.image(request, &planned.image_key);
        log.line(Some("simulate"), 0, "nothing is built with the fake engine");
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.remove(&image);
        Ok(BuiltImage {
            image,
            size_bytes: 0,
            config: json!({}),
        })
    }

    async fn has_image(&self, image: &ImageReference) -> Result<bool, BuildError> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(!removed.contains(image))
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), BuildError> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if removed.len() >= MAX_IMAGES {
            return Err(BuildError {
                report: Report::new("image_not_removed", "too many simulated images were removed")
                    .with_hint("restart `ferroviad serve`"),
                class: Class::Unavailable,
            });
        }
        removed.insert(image.clone());
        Ok(())
    }
}
