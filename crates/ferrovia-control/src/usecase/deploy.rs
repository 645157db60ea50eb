//! Deployments made: from an uploaded tree, from an image elsewhere, from the build of an earlier one.
//!
//! Everything that can be wrong is found here, before anything is built: settings, variables, the tree. A deployment
//! is a row that never changes in what it is made of; the reconcilers take it from there.

use std::sync::Arc;

use ferrovia_core::id::{BuildId, DeploymentId, DomainId};
use ferrovia_core::image_reference::{ReferenceError, check_reference};
use ferrovia_core::injected::GitSource;
use ferrovia_core::outcome::Durations;
use ferrovia_core::permission::Action;
use ferrovia_core::settings::{PortSetting, Settings};
use ferrovia_core::settings_rules::check;
use ferrovia_core::tree::Sha256;
use ferrovia_store::build::{self, NewBuild};
use ferrovia_store::deployment::{self, NewDeployment};
use ferrovia_store::queue::{Work, enqueue};
use ferrovia_store::seal::DataKey;
use ferrovia_store::{Tx, domain, instance, source_tree};
use uuid::Uuid;

use super::context::OpContext;
use super::error::Error;
use super::place::{Found, Place};
use super::resolve::Resolved;
use super::target::Target;
use super::view::DeploymentView;
use super::{UseCases, code, intent, settings};

/// How far back a build is looked for, in deployments.
const LOOK_BACK: u32 = 100;

/// A change of settings, as a function of what they are.
pub type SettingsChange = Arc<dyn Fn(&mut Settings) + Send + Sync>;

/// A deployment to be made.
#[derive(Clone)]
pub struct DeploymentRequest {
    /// Where its image comes from.
    pub source: DeploymentSource,
    /// Changes settings of the instance with it.
    pub settings: Option<SettingsChange>,
    /// Where the source came from.
    pub git: GitSource,
    /// How long sending the source took, in milliseconds.
    pub upload_ms: Option<u64>,
    /// Builds although an equal image exists.
    pub rebuild: bool,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeploymentSource {
    /// An uploaded tree, by digest.
    Tree(String),
    /// An image in some registry.
    Image(String),
}

impl UseCases {
    /// Makes a deployment. A service that exists and was never in the environment comes there with it.
    ///
    /// # Errors
    /// `tree_not_found`, `digest_invalid`, `image_invalid`, `setting_invalid`, `variable_unresolved`; nothing was changed.
    pub async fn deploy(
        &self,
        ctx: &OpContext,
        place: &Place,
        request: DeploymentRequest,
    ) -> Result<DeploymentView, Error> {
        match &request.source {
            DeploymentSource::Tree(digest) => drop(parse_digest(digest, "source.digest")?),
            DeploymentSource::Image(reference) => check_reference(reference).map_err(|error| {
                Error::new(&code::IMAGE_INVALID, error.to_string())
                    .hint(ReferenceError::HINT)
                    .field("source.reference")
            })?,
        }
        let target = self.find_target(ctx, place).await?;
        if request.settings.is_some() {
            ctx.authorise(Action::Configure, Some(target.project.id))?;
        }
        let (cases, context, label) = (self.clone(), ctx.clone(), target.label());
        // One transaction: where the deployment is refused, the instance does not come to be either.
        let id: DeploymentId = self
            .change(ctx, "deployment.create", label, move |tx| {
                Box::pin(async move {
                    let instance = cases
                        .ensure_instance(tx, &target.service, &target.environment)
                        .await?;
                    let Target {
                        project,
                        environment,
                        service,
                        ..
                    } = target;
                    let found = Found {
                        project,
                        environment,
                        service,
                        instance,
                    };
                    cases.insert_with_build(tx, &context, found, request).await
                })
            })
            .await?;
        self.get_deployment(ctx, id).await
    }

    async fn insert_with_build(
        &self,
        tx: &mut Tx,
        ctx: &OpContext,
        mut found: Found,
        request: DeploymentRequest,
    ) -> Result<DeploymentId, Error> {
        let now_ms = self.clock.now_ms();
        found.instance = instance::lock(tx, found.instance.id).await?;
        if let Some(apply) = &request.settings {
            apply(&mut found.instance.settings);
            check(&found.instance.settings).map_err(|error| settings::refused(&error, "settings."))?;
            let (id, version) = (found.instance.id, found.instance.version);
            instance::update_settings(tx, id, version, &found.instance.settings).await?;
        }
        let (tree_digest, image_reference) = match request.source {
            DeploymentSource::Tree(digest) => {
                if !source_tree::touch(tx, found.project.id, &digest, now_ms).await? {
                    let text = format!(
                        "the tree `{digest}` was not uploaded to `{}`, or not whole",
                        found.project.name
                    );
                    return Err(Error::new(&code::TREE_NOT_FOUND, text)
                        .hint("`ferrovia up` uploads it and deploys it")
                        .field("source.digest"));
                }
                (Some(digest), None)
            }
            DeploymentSource::Image(reference) => (None, Some(reference)),
        };
        let git = request.git.cleaned();
        let data_key = self.keyring.get(tx, found.project.data_key_id).await?;
        let made = self
            .resolve(tx, &found, &found.instance.settings, &data_key, &git)
            .await?;
        let build_id = BuildId::from_uuid(Uuid::now_v7());
        let new = NewBuild {
            id: build_id,
            project_id: found.project.id,
            service_id: found.service.id,
            tree_digest,
            image_reference,
            settings: made.settings.build.clone(),
            data_key_id: data_key.id(),
            sealed_variables: seal(&data_key, &made, &build::place(build_id))?,
            rebuild: request.rebuild,
            created_ms: now_ms,
        };
        build::insert(tx, &new).await?;
        let durations = Durations {
            upload: request.upload_ms,
            ..Durations::default()
        };
        self.insert_deployment(tx, ctx, &found, (build_id, made, git, durations), &data_key)
            .await
    }

    /// Makes a deployment of the newest build that did not fail and is not about to be cancelled, with the variables and settings of now.
    ///
    /// # Errors
    /// `nothing_deployed`, `variable_unresolved`.
    pub async fn redeploy(&self, ctx: &OpContext, place: &Place) -> Result<DeploymentView, Error> {
        let found = place
            .find(&mut *self.db.conn().await?, ctx, Action::Deploy)
            .await?;
        let (cases, context) = (self.clone(), ctx.clone());
        let id: DeploymentId = self
            .change(ctx, "deployment.redeploy", found.label(), move |tx| {
                Box::pin(async move { cases.insert_again(tx, &context, found).await })
            })
            .await?;
        self.get_deployment(ctx, id).await
    }

    async fn insert_again(
        &self,
        tx: &mut Tx,
        ctx: &OpContext,
        mut found: Found,
    ) -> Result<DeploymentId, Error> {
        found.instance = instance::lock(tx, found.instance.id).await?;
        let mut newest = None;
        for earlier in deployment::list(tx, found.instance.id, None, LOOK_BACK).await? {
            let usable = match build::get(tx, earlier.build_id).await?.outcome {
                build::Outcome::Succeeded => true,
                // One that nobody waits for any more is about to end.
                build::Outcome::Queued | build::Outcome::Building => {
                    !build::is_unwanted(tx, earlier.build_id).await?
                }
                build::Outcome::Failed | build::Outcome::Cancelled => false,
            };
            if usable {
                newest = Some(earlier);
                break;
            }
        }
        let Some(earlier) = newest else {
            let text = format!(
                "no build of `{}` has succeeded in `{}` yet",
                found.service.name, found.environment.name
            );
            return Err(Error::new(&code::NOTHING_DEPLOYED, text).hint("deploy with `ferrovia up`"));
        };
        let data_key = self.keyring.get(tx, found.project.data_key_id).await?;
        let git = earlier.source;
        let made = self
            .resolve(tx, &found, &found.instance.settings, &data_key, &git)
            .await?;
        let parts = (earlier.build_id, made, git, Durations::default());
        self.insert_deployment(tx, ctx, &found, parts, &data_key).await
    }

    async fn insert_deployment(
        &self,
        tx: &mut Tx,
        ctx: &OpContext,
        found: &Found,
        (build_id, made, source, durations): (BuildId, Resolved, GitSource, Durations),
        data_key: &DataKey,
    ) -> Result<DeploymentId, Error> {
        let now_ms = self.clock.now_ms();
        let id = DeploymentId::from_uuid(Uuid::now_v7());
        let instance_id = found.instance.id;
        let sealed_variables = seal(data_key, &made, &deployment::place(id))?;
        let public = made.settings.port != PortSetting::None;
        let new = NewDeployment {
            id,
            instance_id,
            number: instance::take_deployment_number(tx, instance_id).await?,
            build_id,
            settings: made.settings,
            data_key_id: data_key.id(),
            sealed_variables,
            source,
            upload_ms: durations.upload,
            created_ms: now_ms,
        };
        deployment::insert(tx, &new).await?;
        if public {
            let domain_id = DomainId::from_uuid(Uuid::now_v7());
            let (name, apps_domain) = (&found.service.name, &self.site.apps_domain);
            domain::generate_for_deployment(tx, domain_id, (instance_id, id), name, apps_domain, now_ms)
                .await?;
        }
        enqueue(tx, &Work::new("build", build_id, "build").team(ctx.team_id)).await?;
        intent::enqueue_all(tx, ctx.team_id, vec![instance_id]).await?;
        Ok(id)
    }
}

fn seal(data_key: &DataKey, made: &Resolved, place: &ferrovia_store::seal::Place) -> Result<Vec<u8>, Error> {
    let sealed = data_key
        .seal_pairs(&made.variables, place)
        .map_err(ferrovia_store::Error::from)?;
    Ok(sealed)
}

/// A digest in a request.
pub(super) fn parse_digest(text: &str, field: &str) -> Result<Sha256, Error> {
    text.parse()
        .map_err(|error: ferrovia_core::tree::ParseDigestError| {
            Error::new(&code::DIGEST_INVALID, error.to_string()).field(field)
        })
}
