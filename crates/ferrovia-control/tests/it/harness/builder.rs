//! A builder that makes images of nothing: a tree's name decides what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_build::{BuildError, BuildLog, BuildRequest, BuildSource, Builder, BuiltImage, PlannedBuild};
use ferrovia_core::error::{Class, Report};
use ferrovia_core::workload::ImageReference;
use serde_json::json;

use super::REGISTRY;

#[derive(Debug, Default)]
pub struct TestBuilder {
    pub state: Mutex<State>,
}

#[derive(Debug, Default)]
pub struct State {
    /// What the registry holds.
    pub images: BTreeSet<String>,
    /// Builds that were begun, by tree.
    pub begun: BTreeMap<String, u32>,
    /// Builds that run.
    pub running: u32,
}

/// Counts a build as running until it is dropped.
struct Guard<'a>(&'a TestBuilder);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().running -= 1;
    }
}

pub fn image_of(tree: &str) -> ImageReference {
    let digit = |byte: u8| format!("{byte:02x}");
    let hex: String = tree
        .bytes()
        .chain(std::iter::repeat(0))
        .take(32)
        .map(digit)
        .collect();
    ImageReference {
        repository: format!("{REGISTRY}/apps/shop/web"),
        digest: format!("sha256:{hex}"),
    }
}

fn tree(request: &BuildRequest) -> String {
    match &request.source {
        BuildSource::Tree { digest } => digest.clone(),
        BuildSource::Image { reference } => reference.clone(),
    }
}

#[async_trait]
impl Builder for TestBuilder {
    async fn plan(&self, request: &BuildRequest) -> Result<PlannedBuild, BuildError> {
        let tree = tree(request);
        if tree.starts_with("no-plan") {
            return Err(BuildError {
                report: Report::new("nothing_detected", "nothing was detected"),
                class: Class::Invalid,
            });
        }
        Ok(PlannedBuild {
            builder: "auto".into(),
            plan: json!({ "tree": tree }),
            image_key: format!("key-{tree}"),
            warnings: Vec::new(),
        })
    }

    async fn build(
        &self,
        request: &BuildRequest,
        _: &PlannedBuild,
        log: &(dyn BuildLog + '_),
    ) -> Result<BuiltImage, BuildError> {
        let tree = tree(request);
        {
            let mut state = self.state.lock().unwrap();
            state.running += 1;
            *state.begun.entry(tree.clone()).or_default() += 1;
        }
        let _guard = Guard(self);
        log.line(Some("build"), 0, &format!("building {tree}"));
        if tree.starts_with("slow") {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        let begun = self.state.lock().unwrap().begun[&tree];
        if tree.starts_with("broken") {
            return Err(BuildError {
                report: Report::new("build_failed", "the build command failed"),
                class: Class::Invalid,
            });
        }
        if tree.starts_with("flaky") && begun < 2 {
            return Err(BuildError {
                report: Report::new("registry_unavailable", "the registry does not answer"),
                class: Class::Transient,
            });
        }
        let image = image_of(&tree);
        self.state.lock().unwrap().images.insert(image.to_string());
        Ok(BuiltImage {
            image,
            size_bytes: 1_000,
            config: json!({ "ExposedPorts": { "8080/tcp": {} } }),
        })
    }

    async fn has_image(&self, image: &ImageReference) -> Result<bool, BuildError> {
        Ok(self.state.lock().unwrap().images.contains(&image.to_string()))
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), BuildError> {
        self.state.lock().unwrap().images.remove(&image.to_string());
        Ok(())
    }
}
