//! Projects, their environments and their services; and the target of a deploy, which is one of each.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Named;

/// A set of services that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique in the team.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A page of projects, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// The projects.
    pub items: Vec<Project>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// A project to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// A DNS label of at most 40 bytes: lower-case letters, digits, hyphens.
    #[schema(
        pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length = 40,
        example = "shop"
    )]
    pub name: String,
}

/// A full copy of a project's services with its own network and variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: Named,
    /// Its name, unique in the project.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A page of environments, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentList {
    /// The environments.
    pub items: Vec<Environment>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// An environment to be created, without services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnvironment {
    /// A DNS label of at most 40 bytes: lower-case letters, digits, hyphens.
    #[schema(
        pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length = 40,
        example = "staging"
    )]
    pub name: String,
}

/// One deployable thing of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: Named,
    /// Its name, unique in the project.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A page of services, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceList {
    /// The services.
    pub items: Vec<Service>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// A service to be created; it runs nowhere until it is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// A DNS label of at most 40 bytes: lower-case letters, digits, hyphens.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length = 40, example = "web")]
    pub name: String,
}

/// Where a deploy goes. Without `create`, what is missing is an error that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// The project's name or id.
    #[schema(example = "shop")]
    pub project: String,
    /// The environment's name or id.
    #[schema(example = "production")]
    pub environment: String,
    /// The service's name or id.
    #[schema(example = "web")]
    pub service: String,
    /// Whether what is missing is created.
    #[serde(default)]
    pub create: bool,
}

/// Where a deploy goes: all three exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// The project.
    pub project: Named,
    /// The environment.
    pub environment: Named,
    /// The service.
    pub service: Named,
    /// The service in the environment; null while it was never deployed there.
    pub instance_id: Option<Uuid>,
    /// Which of `project`, `environment` and `service` were created just now.
    pub created: Vec<String>,
}
