//! One method per endpoint.

use reqwest::{Body, Method};
use serde::Serialize;
use uuid::Uuid;

use super::{Client, Error, Follow};
use crate::build::Build;
use crate::deployment::{Deployment, DeploymentList, NewDeployment};
use crate::instance::{Instance, InstanceList, Scale};
use crate::log::LogPage;
use crate::project::{
    Environment, EnvironmentList, NewEnvironment, NewProject, NewService, Project, ProjectList, Service,
    ServiceList, Target, TargetRequest,
};
use crate::settings::{Settings, SettingsPatch};
use crate::source::{CONTENTS_TYPE, Contents, Manifest, TreeStatus};
use crate::system::{DoctorReport, Readiness};
use crate::token::{CreatedToken, Identity, NewToken, TokenList};
use crate::variable::{VariableList, VariablePatch};

/// Which instance: names or ids of project, environment and service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePath {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

impl InstancePath {
    fn segments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut segments = vec!["v1", "projects", &self.project, "environments", &self.environment];
        segments.extend(["services", self.service.as_str()]);
        segments.extend(rest);
        segments
    }
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PageQuery {
    /// Most things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogQuery {
    /// Most lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Lines after this cursor, the oldest first; without it the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Lines before this cursor, the newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Written at or after: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Written before: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Text in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Only of this deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Uuid>,
}

impl LogQuery {
    fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut give = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                pairs.push((key.to_owned(), value));
            }
        };
        give("limit", self.limit.map(|limit| limit.to_string()));
        give("after", self.after.clone());
        give("before", self.before.clone());
        give("since", self.since.clone());
        give("until", self.until.clone());
        give("contains", self.contains.clone());
        give("deployment", self.deployment.map(|id| id.to_string()));
        pairs
    }
}

/// Every method gives [`Error`] when it does not give what was asked for.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Who this client is to the server.
    pub async fn whoami(&self) -> Result<Identity, Error> {
        self.get(&["v1", "whoami"], &()).await
    }

    /// What each part does, when work is accepted; needs no token. An error also when work is not accepted.
    pub async fn readiness(&self) -> Result<Readiness, Error> {
        self.get(&["readyz"], &()).await
    }

    /// What is wrong with the installation.
    pub async fn doctor(&self) -> Result<DoctorReport, Error> {
        self.get(&["v1", "doctor"], &()).await
    }

    /// A page of projects.
    pub async fn projects(&self, page: &PageQuery) -> Result<ProjectList, Error> {
        self.get(&["v1", "projects"], page).await
    }

    /// One project.
    pub async fn project(&self, project: &str) -> Result<Project, Error> {
        self.get(&["v1", "projects", project], &()).await
    }

    /// Creates a project with its environment `production`.
    pub async fn create_project(&self, new: &NewProject) -> Result<Project, Error> {
        self.post(&["v1", "projects"], new).await
    }

    /// Deletes a project, softly.
    pub async fn delete_project(&self, project: &str) -> Result<(), Error> {
        self.delete(&["v1", "projects", project]).await
    }

    /// A page of environments.
    pub async fn environments(&self, project: &str, page: &PageQuery) -> Result<EnvironmentList, Error> {
        self.get(&["v1", "projects", project, "environments"], page).await
    }

    /// Creates an empty environment.
    pub async fn create_environment(
        &self,
        project: &str,
        new: &NewEnvironment,
    ) -> Result<Environment, Error> {
        self.post(&["v1", "projects", project, "environments"], new).await
    }

    /// Deletes an environment, softly.
    pub async fn delete_environment(&self, project: &str, environment: &str) -> Result<(), Error> {
        self.delete(&["v1", "projects", project, "environments", environment])
            .await
    }

    /// A page of services.
    pub async fn services(&self, project: &str, page: &PageQuery) -> Result<ServiceList, Error> {
        self.get(&["v1", "projects", project, "services"], page).await
    }

    /// Creates a service; it runs nowhere until it is deployed.
    pub async fn create_service(&self, project: &str, new: &NewService) -> Result<Service, Error> {
        self.post(&["v1", "projects", project, "services"], new).await
    }

    /// Deletes a service in every environment, softly.
    pub async fn delete_service(&self, project: &str, service: &str) -> Result<(), Error> {
        self.delete(&["v1", "projects", project, "services", service])
            .await
    }

    /// Finds where a deploy goes, and creates what is missing if asked to.
    pub async fn target(&self, request: &TargetRequest) -> Result<Target, Error> {
        self.post(&["v1", "targets"], request).await
    }

    /// A page of the instances of an environment.
    pub async fn instances(
        &self,
        project: &str,
        environment: &str,
        page: &PageQuery,
    ) -> Result<InstanceList, Error> {
        let path = ["v1", "projects", project, "environments", environment, "services"];
        self.get(&path, page).await
    }

    /// One instance.
    pub async fn instance(&self, path: &InstancePath) -> Result<Instance, Error> {
        self.get(&path.segments(&[]), &()).await
    }

    /// Changes settings; they take effect with the next deployment.
    pub async fn patch_settings(
        &self,
        path: &InstancePath,
        patch: &SettingsPatch,
    ) -> Result<Settings, Error> {
        self.patch(&path.segments(&["settings"]), patch).await
    }

    /// Which files of a tree the project lacks; a tree that lacks none can be deployed from then on.
    pub async fn offer_tree(&self, project: &str, manifest: &Manifest) -> Result<TreeStatus, Error> {
        self.post(&["v1", "projects", project, "trees"], manifest).await
    }

    /// Sends contents of files, laid out as [`CONTENTS_TYPE`] says; how many were taken. Safe to repeat.
    pub async fn send_contents(&self, project: &str, contents: impl Into<Body>) -> Result<u64, Error> {
        let request = self
            .request(Method::POST, &["v1", "projects", project, "contents"])
            .header("content-type", CONTENTS_TYPE)
            .body(contents);
        self.json::<Contents>(request).await.map(|taken| taken.count)
    }

    /// Makes a deployment.
    pub async fn deploy(&self, path: &InstancePath, new: &NewDeployment) -> Result<Deployment, Error> {
        self.post(&path.segments(&["deployments"]), new).await
    }

    /// A page of deployments, the newest first.
    pub async fn deployments(&self, path: &InstancePath, page: &PageQuery) -> Result<DeploymentList, Error> {
        self.get(&path.segments(&["deployments"]), page).await
    }

    /// Makes a deployment of the newest build with the variables and settings of now.
    pub async fn redeploy(&self, path: &InstancePath) -> Result<Deployment, Error> {
        self.act(&path.segments(&["redeploy"])).await
    }

    /// New containers of the same deployment.
    pub async fn restart(&self, path: &InstancePath) -> Result<Instance, Error> {
        self.act(&path.segments(&["restart"])).await
    }

    /// Stops the newest deployment that has not ended.
    pub async fn cancel(&self, path: &InstancePath) -> Result<Deployment, Error> {
        self.act(&path.segments(&["cancel"])).await
    }

    /// Sets how many copies should run.
    pub async fn scale(&self, path: &InstancePath, replicas: u32) -> Result<Instance, Error> {
        self.post(&path.segments(&["scale"]), &Scale { replicas }).await
    }

    /// Keeps the platform's hands off an instance.
    pub async fn hold(&self, path: &InstancePath) -> Result<Instance, Error> {
        self.act(&path.segments(&["hold"])).await
    }

    /// Ends a hold.
    pub async fn release(&self, path: &InstancePath) -> Result<Instance, Error> {
        self.act(&path.segments(&["release"])).await
    }

    /// Stops every replica; nothing is deleted.
    pub async fn down(&self, path: &InstancePath) -> Result<Instance, Error> {
        self.act(&path.segments(&["down"])).await
    }

    /// One deployment.
    pub async fn deployment(&self, id: Uuid) -> Result<Deployment, Error> {
        self.get(&["v1", "deployments", &id.to_string()], &()).await
    }

    /// Stops a deployment that has not ended.
    pub async fn cancel_deployment(&self, id: Uuid) -> Result<Deployment, Error> {
        self.act(&["v1", "deployments", &id.to_string(), "cancel"]).await
    }

    /// A deployment at each of its steps: events `progress` of [`Deployment`], until it has ended.
    pub fn follow_deployment(&self, id: Uuid) -> Follow {
        let segments = ["v1", "deployments", &id.to_string(), "stream"];
        Follow::new(self, &segments, Vec::new())
    }

    /// One build.
    pub async fn build(&self, id: Uuid) -> Result<Build, Error> {
        self.get(&["v1", "builds", &id.to_string()], &()).await
    }

    /// Lines of a build's log.
    pub async fn build_log(&self, id: Uuid, query: &LogQuery) -> Result<LogPage, Error> {
        self.get(&["v1", "builds", &id.to_string(), "logs"], query).await
    }

    /// The lines of a build's log as they come, until the build has ended: events `line` of
    /// [`crate::log::LogLine`].
    pub fn follow_build_log(&self, id: Uuid, query: &LogQuery) -> Follow {
        let segments = ["v1", "builds", &id.to_string(), "logs", "stream"];
        Follow::new(self, &segments, query.pairs())
    }

    /// Lines of an instance's log.
    pub async fn log(&self, path: &InstancePath, query: &LogQuery) -> Result<LogPage, Error> {
        self.get(&path.segments(&["logs"]), query).await
    }

    /// The lines of an instance's log as they come, without end: events `line` of [`crate::log::LogLine`].
    pub fn follow_log(&self, path: &InstancePath, query: &LogQuery) -> Follow {
        Follow::new(self, &path.segments(&["logs", "stream"]), query.pairs())
    }

    /// The variables of an instance.
    pub async fn variables(&self, path: &InstancePath) -> Result<VariableList, Error> {
        self.get(&path.segments(&["variables"]), &()).await
    }

    /// Changes the variables of an instance.
    pub async fn patch_variables(
        &self,
        path: &InstancePath,
        patch: &VariablePatch,
    ) -> Result<VariableList, Error> {
        self.patch(&path.segments(&["variables"]), patch).await
    }

    /// The shared variables of an environment.
    pub async fn shared_variables(&self, project: &str, environment: &str) -> Result<VariableList, Error> {
        let path = [
            "v1",
            "projects",
            project,
            "environments",
            environment,
            "variables",
        ];
        self.get(&path, &()).await
    }

    /// Changes the shared variables of an environment.
    pub async fn patch_shared_variables(
        &self,
        project: &str,
        environment: &str,
        patch: &VariablePatch,
    ) -> Result<VariableList, Error> {
        let path = [
            "v1",
            "projects",
            project,
            "environments",
            environment,
            "variables",
        ];
        self.patch(&path, patch).await
    }

    /// A page of tokens.
    pub async fn tokens(&self, page: &PageQuery) -> Result<TokenList, Error> {
        self.get(&["v1", "tokens"], page).await
    }

    /// Creates a token.
    pub async fn create_token(&self, new: &NewToken) -> Result<CreatedToken, Error> {
        self.post(&["v1", "tokens"], new).await
    }

    /// Revokes a token at once.
    pub async fn revoke_token(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&["v1", "tokens", &id.to_string()]).await
    }
}
