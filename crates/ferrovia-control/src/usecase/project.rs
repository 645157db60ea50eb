//! Projects, environments and services: list, create, delete.
//!
//! Deleting marks the one row and makes every instance beneath due; what runs of them is then for the reconcilers.

use ferrovia_core::id::{EnvironmentId, ProjectId, ServiceId};
use ferrovia_core::name::Name;
use ferrovia_core::permission::{Action, Scope};
use ferrovia_store::environment::{self, Environment, NewEnvironment};
use ferrovia_store::project::{self, NewProject, Project};
use ferrovia_store::service::{self, NewService, Service};
use ferrovia_store::{Tx, instance};
use uuid::Uuid;

use super::context::OpContext;
use super::error::Error;
use super::page::{Page, PageRequest};
use super::{UseCases, code, find, intent};

/// The environment that every project begins with.
pub(super) const FIRST_ENVIRONMENT: &str = "production";

impl UseCases {
    /// Projects by name; with a scope for one project only that one.
    ///
    /// # Errors
    /// `cursor_invalid`.
    pub async fn list_projects(&self, ctx: &OpContext, page: &PageRequest) -> Result<Page<Project>, Error> {
        let after = page.after::<Name>()?;
        let mut conn = self.db.conn().await?;
        let projects = match ctx.scope {
            Scope::Owner => project::list(&mut conn, ctx.team_id, after.as_ref(), page.fetch()).await?,
            Scope::Deploy { project_id } => {
                let own = project::find(&mut conn, project_id).await?;
                let living = own.filter(|project| project.deleted_ms.is_none());
                living
                    .into_iter()
                    .filter(|project| after.as_ref().is_none_or(|after| project.name > *after))
                    .collect()
            }
        };
        Ok(page.page(projects, |project| project.name.to_string()))
    }

    /// One project.
    ///
    /// # Errors
    /// `project_not_found`.
    pub async fn get_project(&self, ctx: &OpContext, reference: &str) -> Result<Project, Error> {
        find::project(&mut *self.db.conn().await?, ctx, reference, Action::ReadProject).await
    }

    /// Creates a project with an environment `production`.
    ///
    /// # Errors
    /// `name_invalid`, `name_taken`.
    pub async fn create_project(&self, ctx: &OpContext, name: &str) -> Result<Project, Error> {
        ctx.authorise(Action::CreateProject, None)?;
        let name = find::new_name(name, "name")?;
        let (cases, context) = (self.clone(), ctx.clone());
        let id: ProjectId = self
            .change(ctx, "project.create", name.to_string(), move |tx| {
                Box::pin(async move {
                    let project = cases.insert_project(tx, &context, name).await?;
                    let first = find::new_name(FIRST_ENVIRONMENT, "environment")?;
                    cases.insert_environment(tx, project.id, first).await?;
                    Ok(project.id)
                })
            })
            .await?;
        Ok(project::get(&mut *self.db.conn().await?, id).await?)
    }

    pub(super) async fn insert_project(
        &self,
        tx: &mut Tx,
        ctx: &OpContext,
        name: Name,
    ) -> Result<Project, Error> {
        let now_ms = self.clock.now_ms();
        let key = self.keyring.create(tx, Uuid::now_v7(), now_ms).await?;
        let new = NewProject {
            id: ProjectId::from_uuid(Uuid::now_v7()),
            team_id: ctx.team_id,
            name,
            data_key_id: key.id(),
            created_ms: now_ms,
        };
        Ok(project::insert(tx, &new).await?)
    }

    /// Deletes a project and everything in it, softly. `versions` are those on which it may be deleted.
    ///
    /// # Errors
    /// `project_not_found`, `changed_meanwhile`.
    pub async fn delete_project(
        &self,
        ctx: &OpContext,
        reference: &str,
        versions: Option<&[String]>,
    ) -> Result<(), Error> {
        let found = find::project(&mut *self.db.conn().await?, ctx, reference, Action::ManageProject).await?;
        check_version(versions, found.version)?;
        let now_ms = self.clock.now_ms();
        let team_id = ctx.team_id;
        self.change(ctx, "project.delete", found.name.to_string(), move |tx| {
            Box::pin(async move {
                // Read before the row is marked: what is beneath lives as long as its project does.
                let beneath = instances_of_project(tx, found.id).await?;
                project::delete(tx, found.id, found.version, now_ms).await?;
                intent::enqueue_all(tx, team_id, beneath).await
            })
        })
        .await
    }

    /// Environments of a project by name.
    ///
    /// # Errors
    /// `project_not_found`, `cursor_invalid`.
    pub async fn list_environments(
        &self,
        ctx: &OpContext,
        project: &str,
        page: &PageRequest,
    ) -> Result<(Project, Page<Environment>), Error> {
        let after = page.after::<Name>()?;
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ReadProject).await?;
        let found = environment::list(&mut conn, project.id, after.as_ref(), page.fetch()).await?;
        let page = page.page(found, |environment| environment.name.to_string());
        Ok((project, page))
    }

    /// One environment, with its project.
    ///
    /// # Errors
    /// `project_not_found`, `environment_not_found`.
    pub async fn get_environment(
        &self,
        ctx: &OpContext,
        project: &str,
        reference: &str,
    ) -> Result<(Project, Environment), Error> {
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ReadProject).await?;
        let environment = find::environment(&mut conn, project.id, reference).await?;
        Ok((project, environment))
    }

    /// Creates an environment without services.
    ///
    /// # Errors
    /// `project_not_found`, `name_invalid`, `name_taken`, `exhausted`.
    pub async fn create_environment(
        &self,
        ctx: &OpContext,
        project: &str,
        name: &str,
    ) -> Result<(Project, Environment), Error> {
        let project = find::project(&mut *self.db.conn().await?, ctx, project, Action::ManageProject).await?;
        let name = find::new_name(name, "name")?;
        let (cases, of) = (self.clone(), project.id);
        let target = format!("{}/{name}", project.name);
        let id: EnvironmentId = self
            .change(ctx, "environment.create", target, move |tx| {
                Box::pin(async move { Ok(cases.insert_environment(tx, of, name).await?.id) })
            })
            .await?;
        let environment = environment::get(&mut *self.db.conn().await?, id).await?;
        Ok((project, environment))
    }

    /// Makes an environment on the bridge with the most room.
    pub(super) async fn insert_environment(
        &self,
        tx: &mut Tx,
        project_id: ProjectId,
        name: Name,
    ) -> Result<Environment, Error> {
        let used = environment::members_by_bridge(tx).await?;
        let bridge = (0..self.addresses.bridge_count())
            .min_by_key(|bridge| {
                let found = used.iter().find(|used| used.bridge == *bridge);
                // The lowest of equal ones: a machine with few environments has one bridge.
                found.map_or((0, 0, *bridge), |used| {
                    (used.replicas / HEADROOM, used.environments / HEADROOM, *bridge)
                })
            })
            .ok_or_else(|| Error::new(&code::EXHAUSTED, "there is no bridge left for a new environment"))?;
        let new = NewEnvironment {
            id: EnvironmentId::from_uuid(Uuid::now_v7()),
            project_id,
            name,
            bridge,
            created_ms: self.clock.now_ms(),
        };
        Ok(environment::insert(tx, &new).await?)
    }

    /// Deletes an environment and everything in it, softly.
    ///
    /// # Errors
    /// `project_not_found`, `environment_not_found`, `changed_meanwhile`.
    pub async fn delete_environment(
        &self,
        ctx: &OpContext,
        project: &str,
        reference: &str,
        versions: Option<&[String]>,
    ) -> Result<(), Error> {
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ManageProject).await?;
        let found = find::environment(&mut conn, project.id, reference).await?;
        drop(conn);
        check_version(versions, found.version)?;
        let (now_ms, team_id) = (self.clock.now_ms(), ctx.team_id);
        let target = format!("{}/{}", project.name, found.name);
        self.change(ctx, "environment.delete", target, move |tx| {
            Box::pin(async move {
                let beneath = instance::of_environment(tx, found.id).await?;
                environment::delete(tx, found.id, found.version, now_ms).await?;
                intent::enqueue_all(
                    tx,
                    team_id,
                    beneath.into_iter().map(|instance| instance.id).collect(),
                )
                .await
            })
        })
        .await
    }

    /// Services of a project by name.
    ///
    /// # Errors
    /// `project_not_found`, `cursor_invalid`.
    pub async fn list_services(
        &self,
        ctx: &OpContext,
        project: &str,
        page: &PageRequest,
    ) -> Result<(Project, Page<Service>), Error> {
        let after = page.after::<Name>()?;
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ReadProject).await?;
        let found = service::list(&mut conn, project.id, after.as_ref(), page.fetch()).await?;
        let page = page.page(found, |service| service.name.to_string());
        Ok((project, page))
    }

    /// One service, with its project.
    ///
    /// # Errors
    /// `project_not_found`, `service_not_found`.
    pub async fn get_service(
        &self,
        ctx: &OpContext,
        project: &str,
        reference: &str,
    ) -> Result<(Project, Service), Error> {
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ReadProject).await?;
        let service = find::service(&mut conn, project.id, reference).await?;
        Ok((project, service))
    }

    /// Creates a service; it runs nowhere until it is deployed.
    ///
    /// # Errors
    /// `project_not_found`, `name_invalid`, `name_taken`.
    pub async fn create_service(
        &self,
        ctx: &OpContext,
        project: &str,
        name: &str,
    ) -> Result<(Project, Service), Error> {
        let project = find::project(&mut *self.db.conn().await?, ctx, project, Action::Deploy).await?;
        let name = find::new_name(name, "name")?;
        let (cases, of) = (self.clone(), project.id);
        let target = format!("{}/{name}", project.name);
        let id: ServiceId = self
            .change(ctx, "service.create", target, move |tx| {
                Box::pin(async move { Ok(cases.insert_service(tx, of, name).await?.id) })
            })
            .await?;
        let service = service::get(&mut *self.db.conn().await?, id).await?;
        Ok((project, service))
    }

    pub(super) async fn insert_service(
        &self,
        tx: &mut Tx,
        project_id: ProjectId,
        name: Name,
    ) -> Result<Service, Error> {
        let new = NewService {
            id: ServiceId::from_uuid(Uuid::now_v7()),
            project_id,
            name,
            created_ms: self.clock.now_ms(),
        };
        Ok(service::insert(tx, &new).await?)
    }

    /// Deletes a service in every environment, softly.
    ///
    /// # Errors
    /// `project_not_found`, `service_not_found`, `changed_meanwhile`.
    pub async fn delete_service(
        &self,
        ctx: &OpContext,
        project: &str,
        reference: &str,
        versions: Option<&[String]>,
    ) -> Result<(), Error> {
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ManageProject).await?;
        let found = find::service(&mut conn, project.id, reference).await?;
        drop(conn);
        check_version(versions, found.version)?;
        let (now_ms, team_id) = (self.clock.now_ms(), ctx.team_id);
        let target = format!("{}/{}", project.name, found.name);
        self.change(ctx, "service.delete", target, move |tx| {
            Box::pin(async move {
                let beneath = instance::of_service(tx, found.id).await?;
                service::delete(tx, found.id, found.version, now_ms).await?;
                intent::enqueue_all(
                    tx,
                    team_id,
                    beneath.into_iter().map(|instance| instance.id).collect(),
                )
                .await
            })
        })
        .await
    }
}

/// Environments and replicas on a bridge that count as one: an environment goes to another bridge only for a reason.
const HEADROOM: u32 = 100;

/// Refuses a change on a version that is not among those that the client has seen.
pub(super) fn check_version(wanted: Option<&[String]>, found: i64) -> Result<(), Error> {
    match wanted {
        Some(wanted) if !wanted.contains(&found.to_string()) => Err(changed_meanwhile()),
        _ => Ok(()),
    }
}

pub(super) fn changed_meanwhile() -> Error {
    Error::new(
        &code::CHANGED_MEANWHILE,
        "it was changed by somebody else since it was read",
    )
    .hint("read it again, look at what changed, and repeat with the new `ETag`")
    .field("if-match")
}

async fn instances_of_project(
    tx: &mut Tx,
    project: ProjectId,
) -> Result<Vec<ferrovia_core::id::InstanceId>, Error> {
    let mut found = Vec::new();
    let mut after: Option<Name> = None;
    loop {
        let environments = environment::list(tx, project, after.as_ref(), super::MAX_PAGE).await?;
        for environment in &environments {
            let instances = instance::of_environment(tx, environment.id).await?;
            found.extend(instances.into_iter().map(|instance| instance.id));
        }
        if environments.len() < super::MAX_PAGE as usize {
            return Ok(found);
        }
        after = environments.last().map(|environment| environment.name.clone());
    }
}
