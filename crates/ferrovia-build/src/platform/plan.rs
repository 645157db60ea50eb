//! What an image depends on, pinned and hashed.
//!
//! The key holds what changes the image and nothing else: of the variables only those that a step can see, of a Dockerfile
//! what its images are by digest, of bases what they are made of. Where something cannot be pinned (a registry that does
//! not answer), its name stands for it, and the build itself tells what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use ferrovia_core::bases::{Origin, available};
use ferrovia_core::detect::{self, Detection, Method, SourceView};
use ferrovia_core::dockerfile::Dockerfile;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::plan::{From, Plan};
use ferrovia_core::secret::Secret;
use ferrovia_core::tree::Manifest;

use super::image::ImagePlan;
use super::key::image_key;
use super::{PlatformBuilder, dockerfile};
use crate::bases::architecture;
use crate::bases::substitute::substitute;
use crate::fetch::ImageName;
use crate::tree::TreeError;
use crate::{BuildError, BuildRequest, PlannedBuild};

/// Grows when the same plan gives another image.
const BUILDER_VERSION: &str = "1";

/// A plan as it is kept with a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BuildPlan {
    /// Of a source tree.
    Tree(Box<TreePlan>),
    /// Of an image elsewhere.
    Image(ImagePlan),
}

/// How a tree is built, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreePlan {
    /// What the tree is and how it is built.
    #[serde(flatten)]
    pub detection: Detection,
    /// What the build starts from, by the name that the plan or the Dockerfile has for it.
    pub starts: BTreeMap<String, Start>,
    /// Hash over the variables that steps see.
    pub variables_hash: String,
}

/// What a build starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Start {
    /// A base of the platform.
    Base {
        /// Its key: `node:20`.
        key: String,
        /// What stands for its content.
        identity: String,
    },
    /// An image of a registry, pinned.
    Pinned {
        /// The digest that its tag led to.
        digest: String,
    },
    /// An image that could not be looked up.
    Unknown,
}

impl BuildPlan {
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl PlatformBuilder {
    pub(super) async fn plan_tree(
        &self,
        request: &BuildRequest,
        digest: &str,
    ) -> Result<PlannedBuild, BuildError> {
        let manifest = self.manifest(request, digest).await?;
        let root = request.settings.root_directory.as_deref().unwrap_or_default();
        let viewed = self.parts.trees.view(request.project_id, &manifest, root).await;
        let view = viewed.map_err(tree_failed)?;
        let origin = self.bases.origin().await;
        let mut detection = detect_tree(request, &view, origin)?;
        let (starts, warnings) = match &detection.method {
            Method::Auto { plan } => (self.bases_of(plan).await?, Vec::new()),
            Method::Dockerfile { path, .. } => {
                let file = Dockerfile::read(view.text(path).unwrap_or_default());
                self.images_of(request, &file, origin).await?
            }
        };
        detection.warnings.extend(warnings);
        let used = used_variables(request, &detection.method, &view);
        let hashes = self.key.hashes(&project_text(request), &used);
        let variables_hash = image_key(hashes.iter().map(|(name, hash)| (name.as_str(), hash.as_str())));
        let method = serde_json::to_string(&detection.method).unwrap_or_default();
        let starts_text = serde_json::to_string(&starts).unwrap_or_default();
        let settings = &request.settings;
        let arguments = serde_json::to_string(&settings.arguments).unwrap_or_default();
        let key = image_key([
            ("builder", BUILDER_VERSION),
            ("project", &project_text(request)),
            ("tree", digest),
            ("root", root),
            ("method", &method),
            ("starts", &starts_text),
            ("arguments", &arguments),
            ("variables", &variables_hash),
            ("architecture", architecture()),
        ]);
        let builder = match detection.method {
            Method::Dockerfile { .. } => "dockerfile",
            Method::Auto { .. } => "auto",
        };
        let warnings = detection.warnings.clone();
        let plan = BuildPlan::Tree(Box::new(TreePlan {
            detection,
            starts,
            variables_hash,
        }));
        Ok(PlannedBuild {
            builder: builder.to_owned(),
            plan: plan.to_json(),
            image_key: key,
            warnings,
        })
    }

    pub(super) async fn manifest(
        &self,
        request: &BuildRequest,
        digest: &str,
    ) -> Result<Manifest, BuildError> {
        let found = self.parts.manifests.find(request.project_id, digest).await?;
        found.ok_or_else(|| BuildError {
            report: Report::new("tree_not_found", "the source of this build is not there any more")
                .with_hint("upload it again: `ferrovia up`"),
            class: Class::NotFound,
        })
    }

    async fn bases_of(&self, plan: &Plan) -> Result<BTreeMap<String, Start>, BuildError> {
        let mut starts = BTreeMap::new();
        for key in base_keys(plan) {
            let identity = self.bases.identity(&key).await?;
            starts.insert(key.clone(), Start::Base { key, identity });
        }
        Ok(starts)
    }

    /// What the images of a Dockerfile are, and what should be told about those that something else stands for.
    async fn images_of(
        &self,
        request: &BuildRequest,
        file: &Dockerfile,
        origin: Origin,
    ) -> Result<(BTreeMap<String, Start>, Vec<Report>), BuildError> {
        let given: BTreeMap<String, String> = arguments(request).into_iter().collect();
        let (mut starts, mut warnings) = (BTreeMap::new(), Vec::new());
        for image in file.images(&given) {
            let found = match substitute(&image).filter(|_| origin == Origin::Made) {
                Some(substitute) => {
                    let key = substitute.key;
                    let identity = self.bases.identity(&key).await?;
                    warnings.extend(substitute.difference.map(|difference| {
                        Report::new(
                            "base_substituted",
                            format!(
                                "no registry gives `{image}` here, so the platform's own `{key}` stands for it: {difference}"
                            ),
                        )
                        .with_hint("set a mirror for `docker.io` to build from the image itself")
                    }));
                    Start::Base { key, identity }
                }
                None => self.pinned(&image).await,
            };
            starts.insert(image, found);
        }
        Ok((starts, warnings))
    }

    /// An image of a registry by digest. One that cannot be looked up fails in the build, with BuildKit's own words.
    async fn pinned(&self, image: &str) -> Start {
        let Ok(name) = image.parse::<ImageName>() else {
            return Start::Unknown;
        };
        if let Some(digest) = name.digest {
            return Start::Pinned {
                digest: digest.to_string(),
            };
        }
        match self.pins.digest(&self.client, &name).await {
            Some(digest) => Start::Pinned {
                digest: digest.to_string(),
            },
            None => Start::Unknown,
        }
    }
}

fn detect_tree(request: &BuildRequest, view: &SourceView, origin: Origin) -> Result<Detection, BuildError> {
    let names: Vec<String> = request.variables.iter().map(|(name, _)| name.clone()).collect();
    let asked = detect::Request {
        view,
        settings: &request.settings,
        tools: &available(origin),
        variables: &names,
        allow_no_start: true,
    };
    detect::detect(&asked).map_err(|refusal| BuildError {
        report: refusal.report,
        class: Class::Invalid,
    })
}

/// Every base that a plan names.
pub(super) fn base_keys(plan: &Plan) -> BTreeSet<String> {
    let steps = plan.steps.iter().filter_map(|step| match &step.from {
        From::Image(key) => Some(key.clone()),
        From::Step(_) => None,
    });
    steps.chain([plan.deploy.base.clone()]).collect()
}

/// The variables that are build arguments: those that are listed as not secret.
pub(super) fn arguments(request: &BuildRequest) -> Vec<(String, String)> {
    let listed = &request.settings.arguments;
    let given = request.variables.iter().filter(|(name, _)| listed.contains(name));
    given
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect()
}

/// The variables that a step can see: what the image may depend on.
fn used_variables(request: &BuildRequest, method: &Method, view: &SourceView) -> Vec<(String, Secret)> {
    let is_used = |name: &str| match method {
        Method::Auto { plan } => plan.steps.iter().any(|step| step.secrets.sees(name)),
        Method::Dockerfile { path, .. } => match view.text(path) {
            Some(text) => {
                request.settings.arguments.iter().any(|listed| listed == name)
                    || dockerfile::names_secret(text, name)
            }
            None => true,
        },
    };
    let used = request.variables.iter().filter(|(name, _)| is_used(name));
    used.cloned().collect()
}

pub(super) fn project_text(request: &BuildRequest) -> String {
    request.project_id.uuid().simple().to_string()
}

pub(super) fn tree_failed(error: TreeError) -> BuildError {
    if let TreeError::Disk { .. } = error {
        tracing::warn!(error = &error as &dyn std::error::Error, "source was not read");
    }
    BuildError {
        report: error.report(),
        class: error.class(),
    }
}
