//! Deploys by image: the tag becomes a digest when it is planned, and the image comes into the platform's registry.

use serde::{Deserialize, Serialize};

use ferrovia_core::error::{Class, Report};

use super::key::image_key;
use super::{BuildPlan, PlatformBuilder};
use crate::bases::architecture;
use crate::digest::Digest;
use crate::fetch::ImageName;
use crate::narrator::Narrator;
use crate::{BuildError, BuildRequest, PlannedBuild};

/// An image elsewhere, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePlan {
    /// As it was given.
    pub image: String,
    /// The manifest for this machine's architecture that the tag led to.
    pub digest: Digest,
}

impl PlatformBuilder {
    pub(super) async fn plan_image(
        &self,
        request: &BuildRequest,
        reference: &str,
    ) -> Result<PlannedBuild, BuildError> {
        let name = parse(reference)?;
        let resolved = self.client.resolve(&name).await;
        let digest = resolved
            .map_err(|error| error.into_build_error(reference))?
            .digest;
        let project = request.project_id.uuid().simple().to_string();
        let digest_text = digest.to_string();
        let key = image_key([
            ("builder", "image"),
            ("project", &project),
            ("image", &digest_text),
            ("architecture", architecture()),
        ]);
        let plan = BuildPlan::Image(ImagePlan {
            image: reference.to_owned(),
            digest,
        });
        Ok(PlannedBuild {
            builder: "image".to_owned(),
            plan: plan.to_json(),
            image_key: key,
            warnings: Vec::new(),
        })
    }

    pub(super) async fn copy_image(
        &self,
        request: &BuildRequest,
        plan: &ImagePlan,
        narrator: &Narrator<'_>,
    ) -> Result<Digest, BuildError> {
        let wrong = |error: crate::fetch::FetchError| error.into_build_error(&plan.image);
        let mut name = parse(&plan.image)?;
        name.digest = Some(plan.digest);
        let narrator = narrator.step(format!("fetch {}", plan.image));
        narrator.say(&format!("`{}` is {}", plan.image, plan.digest));
        let resolved = self.client.resolve(&name).await.map_err(wrong)?;
        let repository = Self::repository(request)?;
        let copied = self
            .client
            .copy(&name, &resolved, &self.parts.store, &repository, &narrator)
            .await
            .map_err(wrong)?;
        narrator.say(&format!("fetched {} bytes", copied.fetched_bytes));
        Ok(resolved.digest)
    }
}

fn parse(reference: &str) -> Result<ImageName, BuildError> {
    reference.parse::<ImageName>().map_err(|error| BuildError {
        report: Report::new("image_invalid", error.to_string()).with_hint("correct the image's name"),
        class: Class::Invalid,
    })
}
