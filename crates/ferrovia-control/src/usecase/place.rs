//! Where something is: project, environment, service and the instance that these make.

use ferrovia_core::id::DeploymentId;
use ferrovia_core::permission::Action;
use ferrovia_core::workload::Owner;
use ferrovia_store::environment::Environment;
use ferrovia_store::instance::Instance;
use ferrovia_store::project::Project;
use ferrovia_store::service::Service;
use ferrovia_store::{Conn, instance};

use super::code;
use super::context::OpContext;
use super::error::Error;
use super::find;

/// Names or ids that lead to an instance.
#[derive(Debug, Clone)]
pub struct Place {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

/// What a [`Place`] leads to.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub project: Project,
    pub environment: Environment,
    pub service: Service,
    pub instance: Instance,
}

impl Place {
    /// The living instance, if the actor may do this to it.
    pub(super) async fn find(
        &self,
        conn: &mut Conn,
        ctx: &OpContext,
        action: Action,
    ) -> Result<Found, Error> {
        let project = find::project(conn, ctx, &self.project, action).await?;
        let environment = find::environment(conn, project.id, &self.environment).await?;
        let service = find::service(conn, project.id, &self.service).await?;
        let instance = instance::find_by_place(conn, service.id, environment.id)
            .await?
            .ok_or_else(|| {
                let text = format!(
                    "the service `{}` was never deployed in `{}`",
                    service.name, environment.name
                );
                Error::new(&code::INSTANCE_NOT_FOUND, text)
                    .hint("`ferrovia up` deploys it")
                    .field("service")
            })?;
        Ok(Found {
            project,
            environment,
            service,
            instance,
        })
    }
}

impl Found {
    /// `PROJECT/ENVIRONMENT/SERVICE`, for the audit.
    pub fn label(&self) -> String {
        format!(
            "{}/{}/{}",
            self.project.name, self.environment.name, self.service.name
        )
    }

    /// Whose a deployment of it is.
    pub fn owner(&self, deployment_id: DeploymentId, number: u32) -> Owner {
        Owner {
            project_id: self.project.id,
            project: self.project.name.clone(),
            environment_id: self.environment.id,
            environment: self.environment.name.clone(),
            service_id: self.service.id,
            service: self.service.name.clone(),
            instance_id: self.instance.id,
            deployment_id,
            number,
        }
    }
}
