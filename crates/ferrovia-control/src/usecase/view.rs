//! What is shown of an instance, a deployment or a build: rows put together.

use ferrovia_core::cutover::{ImageStanding, reason_without_replica};
use ferrovia_core::error::Report;
use ferrovia_core::id::BuildId;
use ferrovia_core::intent::Intent;
use ferrovia_core::name::Name;
use ferrovia_core::outcome::{Outcome, State};
use ferrovia_core::settings::PortSetting;
use ferrovia_core::workload::ImageReference;
use ferrovia_store::build::Build;
use ferrovia_store::deployment::Deployment;
use ferrovia_store::environment::Environment;
use ferrovia_store::instance::Instance;
use ferrovia_store::project::Project;
use ferrovia_store::service::Service;
use ferrovia_store::{Conn, build, deployment, domain, image, intent};

use super::UseCases;
use super::error::Error;
use super::place::Found;
use super::resolve::own_host;
use super::status::ObservedState;

/// A service in an environment.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// Its project.
    pub project: Project,
    /// Its environment.
    pub environment: Environment,
    /// Its service.
    pub service: Service,
    /// Its row.
    pub instance: Instance,
    /// What should run.
    pub intent: Intent,
    /// What was last seen.
    pub observed: ObservedState,
    /// Where it answers.
    pub url: Option<String>,
    /// Its newest deployment.
    pub latest: Option<DeploymentView>,
    /// The deployment that should run, when that is not the newest.
    pub running: Option<DeploymentView>,
    /// What an operator should know.
    pub notes: Vec<Report>,
}

/// An attempt to run an instance.
#[derive(Debug, Clone)]
pub struct DeploymentView {
    /// Its project.
    pub project: Project,
    /// Its environment.
    pub environment: Environment,
    /// Its service.
    pub service: Service,
    /// Its row.
    pub deployment: Deployment,
    /// Digest of its image.
    pub image: Option<String>,
    /// What was last seen of what it runs.
    pub state: State,
    /// What it waits for, while it waits.
    pub waits_for: Option<String>,
    /// Why what it runs is not healthy, as soon as it is known.
    pub reason: Option<Report>,
    /// Where it answers.
    pub url: Option<String>,
}

/// A build.
#[derive(Debug, Clone)]
pub struct BuildView {
    /// Its row.
    pub build: Build,
    /// Builds that are before it, while it waits.
    pub queue_position: Option<u32>,
    /// The build that made its image, when that was an earlier one.
    pub made_by: Option<BuildId>,
}

impl UseCases {
    /// Everything of an instance.
    pub(super) async fn instance_view(&self, conn: &mut Conn, found: Found) -> Result<InstanceView, Error> {
        let id = found.instance.id;
        let intent = intent::get(conn, id).await?;
        let newest = deployment::list(conn, id, None, 1).await?.pop();
        let target = match intent.target {
            Some(target) if newest.as_ref().is_none_or(|newest| newest.id != target) => {
                deployment::find(conn, target).await?
            }
            _ => None,
        };
        let observed = self.observe(conn, &found, &intent).await?;
        let mut notes = Vec::new();
        if intent.held {
            notes.push(held(&found.service.name).with_hint(
                "what is asked for meanwhile (a deployment, a restart, a number of replicas) is done after `ferrovia \
                 release`",
            ));
        }
        let latest = match newest {
            Some(newest) => Some(
                self.deployment_view(conn, &found, newest, &intent, &observed)
                    .await?,
            ),
            None => None,
        };
        let running = match target {
            Some(target) => Some(
                self.deployment_view(conn, &found, target, &intent, &observed)
                    .await?,
            ),
            None => None,
        };
        let current = running.as_ref().or(latest.as_ref());
        let url = match current {
            Some(view) => view.url.clone(),
            None => self.url(conn, &found, found.instance.settings.port).await?,
        };
        let Found {
            project,
            environment,
            service,
            instance,
        } = found;
        Ok(InstanceView {
            project,
            environment,
            service,
            instance,
            intent,
            observed,
            url,
            latest,
            running,
            notes,
        })
    }

    async fn url(&self, conn: &mut Conn, found: &Found, port: PortSetting) -> Result<Option<String>, Error> {
        if port == PortSetting::None {
            return Ok(None);
        }
        let host = own_host(&domain::of_instance(conn, found.instance.id).await?);
        Ok(host.map(|host| self.site.address(&host).url()))
    }

    /// Where a deployment listens; nowhere for a worker, and the usual port while its image is not known.
    pub(super) async fn port_of(
        &self,
        conn: &mut Conn,
        deployment: &Deployment,
        image: Option<&ImageReference>,
    ) -> Result<Option<u16>, Error> {
        let found = match image {
            Some(image) => image::find(conn, image).await?,
            None => None,
        };
        let config = found.map_or(serde_json::Value::Null, |found| found.config);
        Ok(image::port(&config, deployment.settings.port))
    }

    /// Why a deployment that has not failed is not healthy.
    fn reason(
        &self,
        found: &Found,
        deployment: &Deployment,
        image: Option<&ImageReference>,
        observed: &ObservedState,
    ) -> Option<Report> {
        match deployment.outcome {
            Outcome::Failed | Outcome::Cancelled | Outcome::Superseded => None,
            Outcome::Queued | Outcome::Building => None,
            Outcome::Succeeded => observed.reason_of(deployment.id),
            Outcome::Deploying => observed.reason_of(deployment.id).or_else(|| {
                let standing = image.map_or(ImageStanding::Unknown, |image| self.live.image(image));
                reason_without_replica(&standing, &self.live.problems(found.instance.id))
            }),
        }
    }

    /// Everything of a deployment.
    pub(super) async fn deployment_view(
        &self,
        conn: &mut Conn,
        found: &Found,
        mut deployment: Deployment,
        intent: &Intent,
        observed: &ObservedState,
    ) -> Result<DeploymentView, Error> {
        if intent.replicas == 0 && intent.target == Some(deployment.id) {
            deployment.warnings.push(scaled_to_zero(&found.service.name));
        }
        let build = build::get(conn, deployment.build_id).await?;
        let waits_for = match deployment.outcome {
            outcome if outcome.is_final() => None,
            _ if intent.held => Some("held by an operator".to_owned()),
            Outcome::Queued | Outcome::Building if build.outcome == build::Outcome::Queued => {
                match build::queue_position(conn, build.id).await? {
                    0 => self.live.waiting_of_build(build.id),
                    1 => Some("one build before it".to_owned()),
                    before => Some(format!("{before} builds before it")),
                }
            }
            Outcome::Building => self.live.waiting_of_build(build.id),
            _ => self
                .live
                .waiting_of(found.instance.id)
                .first()
                .map(|waiting| waiting.as_str().to_owned()),
        };
        let state = observed.of_deployment(deployment.id, deployment.outcome);
        let url = match self.port_of(conn, &deployment, build.image.as_ref()).await? {
            Some(_) => self.url(conn, found, deployment.settings.port).await?,
            None => None,
        };
        let reason =
            if intent.held && !deployment.outcome.is_final() {
                Some(held(&found.service.name).with_hint(
                    "the deployment waits until `ferrovia release`; `ferrovia cancel` takes it back",
                ))
            } else {
                self.reason(found, &deployment, build.image.as_ref(), observed)
            };
        Ok(DeploymentView {
            project: found.project.clone(),
            environment: found.environment.clone(),
            service: found.service.clone(),
            image: build.image.map(|image| image.digest),
            state,
            waits_for,
            reason,
            url,
            deployment,
        })
    }
}

/// Nothing changes while somebody holds it.
fn held(service: &Name) -> Report {
    Report::new("instance_held", format!("`{service}` is held: nothing changes"))
}

/// It is deployed, and nothing runs: somebody wanted it so.
fn scaled_to_zero(service: &Name) -> Report {
    Report::new(
        "scaled_to_zero",
        format!("no replica of `{service}` runs: it is scaled to 0"),
    )
    .with_hint(format!("`ferrovia scale 1 --service {service}` starts one"))
}
