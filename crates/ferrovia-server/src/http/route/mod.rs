//! One module per kind of object. A handler takes its request apart, calls one use case and converts the answer.

pub mod access;
pub mod deployment;
pub mod environment;
pub mod instance;
pub mod log;
pub mod project;
pub mod service;
pub mod source;
pub mod system;
pub mod target;
pub mod variable;

use ferrovia_control::usecase::{Error, Place, code};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which project.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ProjectPath {
    /// Name or id of the project.
    pub project: String,
}

/// Which environment.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct EnvironmentPath {
    /// Name or id of the project.
    pub project: String,
    /// Name or id of the environment.
    pub environment: String,
}

/// Which service of a project.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ServicePath {
    /// Name or id of the project.
    pub project: String,
    /// Name or id of the service.
    pub service: String,
}

/// Which service in which environment.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InstancePath {
    /// Name or id of the project.
    pub project: String,
    /// Name or id of the environment.
    pub environment: String,
    /// Name or id of the service.
    pub service: String,
}

impl From<InstancePath> for Place {
    fn from(path: InstancePath) -> Self {
        let InstancePath {
            project,
            environment,
            service,
        } = path;
        Self {
            project,
            environment,
            service,
        }
    }
}

/// An id in a path; what is none is told with the parameter's name.
fn id<K: ferrovia_core::id::Kind>(text: &str, field: &str) -> Result<ferrovia_core::id::Id<K>, Error> {
    text.parse().map_err(|error: ferrovia_core::id::ParseIdError| {
        Error::new(&code::ID_INVALID, error.to_string()).field(field)
    })
}
