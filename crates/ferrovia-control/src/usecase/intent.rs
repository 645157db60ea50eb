//! What should run: restart, cancel, scale, hold, release, down. Each changes the intent and makes the instance due.

use ferrovia_core::id::{DeploymentId, InstanceId, TeamId};
use ferrovia_core::permission::Action;
use ferrovia_core::settings_rules::check_replicas;
use ferrovia_store::queue::{Work, enqueue};
use ferrovia_store::{Tx, deployment, instance, intent};

use super::context::OpContext;
use super::error::Error;
use super::place::Place;
use super::view::{DeploymentView, InstanceView};
use super::{UseCases, code, settings};

/// How far back a deployment that has not ended is looked for: older ones are superseded.
const LOOK_BACK: u32 = 100;

/// Makes instances due for their reconciler.
pub(super) async fn enqueue_all(tx: &mut Tx, team: TeamId, instances: Vec<InstanceId>) -> Result<(), Error> {
    for id in instances {
        enqueue(tx, &Work::new("instance", id, "control").team(team)).await?;
    }
    Ok(())
}

/// A change of the intent.
#[derive(Debug, Clone, Copy)]
enum Step {
    Restart,
    Scale(u32),
    Hold(bool),
    Down,
}

impl Step {
    const fn action(self) -> (&'static str, Action) {
        match self {
            Self::Restart => ("instance.restart", Action::Deploy),
            Self::Scale(_) => ("instance.scale", Action::Configure),
            Self::Hold(true) => ("instance.hold", Action::Hold),
            Self::Hold(false) => ("instance.release", Action::Hold),
            Self::Down => ("instance.down", Action::Configure),
        }
    }

    async fn apply(self, tx: &mut Tx, id: InstanceId) -> Result<(), Error> {
        match self {
            Self::Restart => {
                if intent::lock(tx, id).await?.target.is_none() {
                    return Err(
                        Error::new(&code::NOTHING_DEPLOYED, "nothing runs that could be restarted").hint(
                            "`ferrovia up` deploys, `ferrovia redeploy` brings back what was taken down",
                        ),
                    );
                }
                intent::restart(tx, id).await?;
            }
            Self::Scale(replicas) => intent::set_replicas(tx, id, replicas).await?,
            Self::Hold(held) => {
                if intent::lock(tx, id).await?.held != held {
                    intent::set_held(tx, id, held).await?;
                }
            }
            Self::Down => {
                intent::set_target(tx, id, None).await?;
                deployment::request_cancel_of_instance(tx, id).await?;
                // No redeploy chooses a build while nobody may wait for it any more.
                instance::lock(tx, id).await?;
            }
        }
        Ok(())
    }
}

impl UseCases {
    async fn step(&self, ctx: &OpContext, place: &Place, step: Step) -> Result<InstanceView, Error> {
        let (name, action) = step.action();
        let found = place.find(&mut *self.db.conn().await?, ctx, action).await?;
        let (id, team_id) = (found.instance.id, ctx.team_id);
        let _: () = self
            .change(ctx, name, found.label(), move |tx| {
                Box::pin(async move {
                    step.apply(tx, id).await?;
                    enqueue_all(tx, team_id, vec![id]).await
                })
            })
            .await?;
        self.live.changed(id);
        self.get_instance(ctx, place).await
    }

    /// New containers of the same deployment.
    ///
    /// # Errors
    /// `nothing_deployed`.
    pub async fn restart(&self, ctx: &OpContext, place: &Place) -> Result<InstanceView, Error> {
        self.step(ctx, place, Step::Restart).await
    }

    /// Sets how many copies should run.
    ///
    /// # Errors
    /// `setting_invalid` for too many.
    pub async fn scale(&self, ctx: &OpContext, place: &Place, replicas: u32) -> Result<InstanceView, Error> {
        check_replicas(replicas).map_err(|error| settings::refused(&error, ""))?;
        self.step(ctx, place, Step::Scale(replicas)).await
    }

    /// Keeps the platform's hands off an instance.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not.
    pub async fn hold(&self, ctx: &OpContext, place: &Place) -> Result<InstanceView, Error> {
        self.step(ctx, place, Step::Hold(true)).await
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not.
    pub async fn release(&self, ctx: &OpContext, place: &Place) -> Result<InstanceView, Error> {
        self.step(ctx, place, Step::Hold(false)).await
    }

    /// Stops every copy and what is under way; nothing is deleted.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not.
    pub async fn down(&self, ctx: &OpContext, place: &Place) -> Result<InstanceView, Error> {
        self.step(ctx, place, Step::Down).await
    }

    /// Stops the newest deployment of an instance that has not ended.
    ///
    /// # Errors
    /// `nothing_to_cancel`.
    pub async fn cancel(&self, ctx: &OpContext, place: &Place) -> Result<DeploymentView, Error> {
        let mut conn = self.db.conn().await?;
        let found = place.find(&mut conn, ctx, Action::Deploy).await?;
        let newest = deployment::list(&mut conn, found.instance.id, None, LOOK_BACK).await?;
        drop(conn);
        let id = newest
            .iter()
            .find(|deployment| !deployment.outcome.is_final())
            .map(|deployment| deployment.id);
        let id = id.ok_or_else(|| {
            let text = format!("no deployment of `{}` is under way", found.service.name);
            Error::new(&code::NOTHING_TO_CANCEL, text).hint("`ferrovia status` shows what is")
        })?;
        self.request_cancel(ctx, id, found.instance.id, found.label())
            .await
    }

    /// Stops a deployment that has not ended.
    ///
    /// # Errors
    /// `deployment_not_found`, `nothing_to_cancel`.
    pub async fn cancel_deployment(
        &self,
        ctx: &OpContext,
        id: DeploymentId,
    ) -> Result<DeploymentView, Error> {
        let view = self.find_deployment(ctx, id, Action::Deploy).await?;
        let label = format!(
            "{}/{}/{}",
            view.project.name, view.environment.name, view.service.name
        );
        self.request_cancel(ctx, id, view.deployment.instance_id, label)
            .await
    }

    async fn request_cancel(
        &self,
        ctx: &OpContext,
        id: DeploymentId,
        instance: InstanceId,
        label: String,
    ) -> Result<DeploymentView, Error> {
        let team_id = ctx.team_id;
        let _: () = self
            .change(ctx, "deployment.cancel", label, move |tx| {
                Box::pin(async move {
                    if !deployment::request_cancel(tx, id).await? {
                        return Err(Error::new(
                            &code::NOTHING_TO_CANCEL,
                            "this deployment has already ended",
                        )
                        .hint("`ferrovia status` shows what is"));
                    }
                    // No redeploy chooses a build while nobody may wait for it any more.
                    instance::lock(tx, instance).await?;
                    enqueue_all(tx, team_id, vec![instance]).await
                })
            })
            .await?;
        self.live.changed(instance);
        self.get_deployment(ctx, id).await
    }
}
