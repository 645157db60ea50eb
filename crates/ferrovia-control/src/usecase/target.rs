//! Where a deploy goes: all three exist, or are made in one transaction when that is asked for.

use ferrovia_core::id::{DomainId, InstanceId};
use ferrovia_core::permission::Action;
use ferrovia_core::settings::Settings;
use ferrovia_store::environment::Environment;
use ferrovia_store::instance::{self, Instance, NewInstance};
use ferrovia_store::project::Project;
use ferrovia_store::service::Service;
use ferrovia_store::{Tx, domain, environment, project, service};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::context::OpContext;
use super::error::Error;
use super::place::Place;
use super::{UseCases, code, find};

/// Where a deploy goes, and whether what is missing is made.
#[derive(Debug, Clone)]
pub struct TargetRequest {
    /// Names or ids.
    pub place: Place,
    /// Whether what is missing is made.
    pub create: bool,
}

/// Where a deploy goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The project.
    pub project: Project,
    /// The environment.
    pub environment: Environment,
    /// The service.
    pub service: Service,
    /// The service in the environment; none while it was never deployed there.
    pub instance: Option<Instance>,
    /// Which of `project`, `environment` and `service` were made.
    pub created: Vec<String>,
}

/// What is kept of a target for a repeated request.
#[derive(Serialize, Deserialize)]
struct Kept {
    instance_id: InstanceId,
    created: Vec<String>,
}

/// Refusals that say that something is new.
const NEW: [&str; 3] = [
    code::PROJECT_NOT_FOUND.name,
    code::ENVIRONMENT_NOT_FOUND.name,
    code::SERVICE_NOT_FOUND.name,
];

impl Target {
    /// `PROJECT/ENVIRONMENT/SERVICE`, for the audit.
    pub(super) fn label(&self) -> String {
        format!(
            "{}/{}/{}",
            self.project.name, self.environment.name, self.service.name
        )
    }
}

impl UseCases {
    /// Finds where a deploy goes, and makes what is missing when that is asked for; else nothing is changed.
    ///
    /// # Errors
    /// `project_not_found`, `environment_not_found` and `service_not_found` for the first that is missing, without
    /// `create`; `name_invalid`, `exhausted`.
    pub async fn ensure_target(&self, ctx: &OpContext, request: &TargetRequest) -> Result<Target, Error> {
        match self.find_target(ctx, &request.place).await {
            Ok(target) if target.instance.is_some() || !request.create => return Ok(target),
            Ok(_) => {}
            Err(error) if request.create && NEW.contains(&error.report().code.as_str()) => {}
            Err(error) => return Err(error),
        }
        let Place {
            project,
            environment,
            service,
        } = &request.place;
        let label = format!("{project}/{environment}/{service}");
        let (cases, context, place) = (self.clone(), ctx.clone(), request.place.clone());
        let kept: Kept = self
            .change(ctx, "target.create", label, move |tx| {
                Box::pin(async move { cases.make_target(tx, &context, &place).await })
            })
            .await?;
        let mut conn = self.db.conn().await?;
        let instance = instance::get(&mut conn, kept.instance_id).await?;
        let service = service::get(&mut conn, instance.service_id).await?;
        let environment = environment::get(&mut conn, instance.environment_id).await?;
        let project = project::get(&mut conn, service.project_id).await?;
        Ok(Target {
            project,
            environment,
            service,
            instance: Some(instance),
            created: kept.created,
        })
    }

    /// Where a deploy goes, when all three are there.
    pub(super) async fn find_target(&self, ctx: &OpContext, place: &Place) -> Result<Target, Error> {
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, &place.project, Action::Deploy).await?;
        let environment = find::environment(&mut conn, project.id, &place.environment).await?;
        let service = find::service(&mut conn, project.id, &place.service).await?;
        let instance = instance::find_by_place(&mut conn, service.id, environment.id).await?;
        Ok(Target {
            project,
            environment,
            service,
            instance,
            created: Vec::new(),
        })
    }

    async fn make_target(&self, tx: &mut Tx, ctx: &OpContext, place: &Place) -> Result<Kept, Error> {
        let mut created = Vec::new();
        let project = match find::project(tx, ctx, &place.project, Action::Deploy).await {
            Ok(project) => project,
            Err(error) if error.report().code == code::PROJECT_NOT_FOUND.name => {
                ctx.authorise(Action::CreateProject, None)?;
                created.push("project".to_owned());
                let name = find::new_name(&place.project, "project")?;
                self.insert_project(tx, ctx, name).await?
            }
            Err(error) => return Err(error),
        };
        let is_new = !created.is_empty();
        let environment = match find::find_environment(tx, project.id, &place.environment).await? {
            Some(environment) => environment,
            None => {
                if !is_new {
                    ctx.authorise(Action::ManageProject, Some(project.id))?;
                }
                created.push("environment".to_owned());
                let name = find::new_name(&place.environment, "environment")?;
                self.insert_environment(tx, project.id, name).await?
            }
        };
        let service = match find::find_service(tx, project.id, &place.service).await? {
            Some(service) => service,
            None => {
                created.push("service".to_owned());
                let name = find::new_name(&place.service, "service")?;
                self.insert_service(tx, project.id, name).await?
            }
        };
        let instance = self.ensure_instance(tx, &service, &environment).await?;
        Ok(Kept {
            instance_id: instance.id,
            created,
        })
    }

    /// The instance of a service in an environment; a new one gets its private address and its host name, both its
    /// own for good.
    pub(super) async fn ensure_instance(
        &self,
        tx: &mut Tx,
        service: &Service,
        environment: &Environment,
    ) -> Result<Instance, Error> {
        if let Some(instance) = instance::find_by_place(tx, service.id, environment.id).await? {
            return Ok(instance);
        }
        let now_ms = self.clock.now_ms();
        let new = NewInstance {
            id: InstanceId::from_uuid(Uuid::now_v7()),
            service_id: service.id,
            environment_id: environment.id,
            settings: Settings::default(),
            created_ms: now_ms,
        };
        let instance = instance::insert(tx, &new, &self.addresses).await?;
        domain::generate(
            tx,
            DomainId::from_uuid(Uuid::now_v7()),
            instance.id,
            (&service.name, &environment.name),
            &self.site.apps_domain,
            now_ms,
        )
        .await?;
        Ok(instance)
    }
}
