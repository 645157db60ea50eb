//! Deployments and builds, read.

use ferrovia_core::id::{BuildId, DeploymentId};
use ferrovia_core::permission::{Action, Scope};
use ferrovia_store::{Conn, build, deployment, environment, instance, intent, project, service};

use super::context::OpContext;
use super::error::Error;
use super::page::{Page, PageRequest};
use super::place::{Found, Place};
use super::view::{BuildView, DeploymentView};
use super::{UseCases, code};

impl UseCases {
    /// One deployment.
    ///
    /// # Errors
    /// `deployment_not_found`.
    pub async fn get_deployment(&self, ctx: &OpContext, id: DeploymentId) -> Result<DeploymentView, Error> {
        self.find_deployment(ctx, id, Action::ReadProject).await
    }

    pub(super) async fn find_deployment(
        &self,
        ctx: &OpContext,
        id: DeploymentId,
        action: Action,
    ) -> Result<DeploymentView, Error> {
        let mut conn = self.db.conn().await?;
        let missing = || {
            Error::new(
                &code::DEPLOYMENT_NOT_FOUND,
                format!("there is no deployment `{id}`"),
            )
            .hint("`ferrovia status` shows the newest")
            .field("deployment")
        };
        let deployment = deployment::find(&mut conn, id).await?;
        let Some(deployment) = deployment else {
            return Err(hidden(ctx, missing()));
        };
        let found = found_of(&mut conn, deployment.instance_id).await?;
        if found.project.team_id != ctx.team_id {
            return Err(hidden(ctx, missing()));
        }
        ctx.authorise(action, Some(found.project.id))?;
        let intent = intent::get(&mut conn, deployment.instance_id).await?;
        let observed = self.observe(&mut conn, &found, &intent).await?;
        self.deployment_view(&mut conn, &found, deployment, &intent, &observed)
            .await
    }

    /// The deployments of an instance, the newest first.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not; `cursor_invalid`.
    pub async fn list_deployments(
        &self,
        ctx: &OpContext,
        place: &Place,
        page: &PageRequest,
    ) -> Result<Page<DeploymentView>, Error> {
        let before = page.after::<u32>()?;
        let mut conn = self.db.conn().await?;
        let found = place.find(&mut conn, ctx, Action::ReadProject).await?;
        let intent = intent::get(&mut conn, found.instance.id).await?;
        let observed = self.observe(&mut conn, &found, &intent).await?;
        let rows = deployment::list(&mut conn, found.instance.id, before, page.fetch()).await?;
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            views.push(
                self.deployment_view(&mut conn, &found, row, &intent, &observed)
                    .await?,
            );
        }
        Ok(page.page(views, |view| view.deployment.number.to_string()))
    }

    /// One build.
    ///
    /// # Errors
    /// `build_not_found`.
    pub async fn get_build(&self, ctx: &OpContext, id: BuildId) -> Result<BuildView, Error> {
        let mut conn = self.db.conn().await?;
        let missing = || {
            Error::new(&code::BUILD_NOT_FOUND, format!("there is no build `{id}`"))
                .hint("a deployment names its build")
                .field("build")
        };
        let Some(found) = build::find(&mut conn, id).await? else {
            return Err(hidden(ctx, missing()));
        };
        let project = project::get(&mut conn, found.project_id).await?;
        if project.team_id != ctx.team_id {
            return Err(hidden(ctx, missing()));
        }
        ctx.authorise(Action::ReadProject, Some(project.id))?;
        let queue_position = match found.outcome {
            build::Outcome::Queued => Some(build::queue_position(&mut conn, id).await?),
            _ => None,
        };
        let made_by = match &found.image {
            Some(image) if found.reused => build::find_maker(&mut conn, found.project_id, image).await?,
            _ => None,
        };
        Ok(BuildView {
            build: found,
            queue_position,
            made_by,
        })
    }
}

/// Whoever may see one project only is not told what else there is.
fn hidden(ctx: &OpContext, missing: Error) -> Error {
    if ctx.scope == Scope::Owner {
        missing
    } else {
        super::context::denied()
    }
}

async fn found_of(conn: &mut Conn, id: ferrovia_core::id::InstanceId) -> Result<Found, Error> {
    let instance = instance::get(conn, id).await?;
    let service = service::get(conn, instance.service_id).await?;
    let environment = environment::get(conn, instance.environment_id).await?;
    let project = project::get(conn, service.project_id).await?;
    Ok(Found {
        project,
        environment,
        service,
        instance,
    })
}
