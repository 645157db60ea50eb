//! From the domain to the wire and back. Destructuring is exhaustive: a new field is a compile error here and not a
//! field that clients never get.

mod deployment;
mod instance;
mod settings;

use ferrovia_api as api;
use ferrovia_control::usecase::{
    CreatedToken, Identity, MAX_PAGE, Page, PageRequest, Target, VariableView, Variables,
};
use ferrovia_core::error::Report;
use ferrovia_core::permission::Scope;
use ferrovia_store::environment::Environment;
use ferrovia_store::project::Project;
use ferrovia_store::service::Service;
use ferrovia_store::token::Token;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::code;
use super::failure::Failure;

pub use deployment::{build, deployment, deployment_request};
pub use instance::instance;
pub use settings::{settings, settings_change};

/// A time, from milliseconds since 1970; what no clock shows is the beginning of time.
pub fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time that may not be.
pub fn time_of(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(time)
}

/// A report.
pub fn report(report: Report) -> api::Report {
    let Report {
        code,
        message,
        hint,
        log,
    } = report;
    api::Report {
        code,
        message,
        hint,
        log,
    }
}

/// Reports.
pub fn reports(reports: Vec<Report>) -> Vec<api::Report> {
    reports.into_iter().map(report).collect()
}

/// Which page is wanted.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Most things in the answer.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: u32,
    /// The `next` of the page before.
    pub after: Option<String>,
}

fn default_limit() -> u32 {
    api::DEFAULT_PAGE
}

impl PageParams {
    /// The page that is meant.
    ///
    /// # Errors
    /// `parameter_invalid` for a limit that cannot be.
    pub fn page(self) -> Result<PageRequest, Failure> {
        let Self { limit, after } = self;
        check_limit(limit, MAX_PAGE)?;
        Ok(PageRequest { limit, after })
    }
}

/// Refuses a number of things that no answer has.
///
/// # Errors
/// `parameter_invalid`.
pub fn check_limit(limit: u32, most: u32) -> Result<(), Failure> {
    if (1..=most).contains(&limit) {
        return Ok(());
    }
    let text = format!("`limit` is from 1 to {most}");
    Err(Failure::new(&code::PARAMETER_INVALID, text).field("limit"))
}

/// The items of a page, converted, and its cursor.
pub fn page<T, U>(page: Page<T>, convert: impl Fn(T) -> U) -> (Vec<U>, Option<String>) {
    let Page { items, next } = page;
    (items.into_iter().map(convert).collect(), next)
}

/// A project.
pub fn project(project: Project) -> api::project::Project {
    let Project {
        id,
        team_id: _,
        name,
        data_key_id: _,
        version: _,
        created_ms,
        deleted_ms: _,
    } = project;
    api::project::Project {
        id: id.uuid(),
        name: name.into(),
        created_at: time(created_ms),
    }
}

/// A project by id and name.
pub fn named_project(project: &Project) -> api::Named {
    api::Named {
        id: project.id.uuid(),
        name: project.name.to_string(),
    }
}

/// An environment by id and name.
pub fn named_environment(environment: &Environment) -> api::Named {
    api::Named {
        id: environment.id.uuid(),
        name: environment.name.to_string(),
    }
}

/// A service by id and name.
pub fn named_service(service: &Service) -> api::Named {
    api::Named {
        id: service.id.uuid(),
        name: service.name.to_string(),
    }
}

/// An environment.
pub fn environment(of: &Project, environment: Environment) -> api::project::Environment {
    let Environment {
        id,
        project_id: _,
        name,
        mark: _,
        bridge: _,
        version: _,
        created_ms,
        deleted_ms: _,
    } = environment;
    api::project::Environment {
        id: id.uuid(),
        project: named_project(of),
        name: name.into(),
        created_at: time(created_ms),
    }
}

/// A service.
pub fn service(of: &Project, service: Service) -> api::project::Service {
    let Service {
        id,
        project_id: _,
        name,
        version: _,
        created_ms,
        deleted_ms: _,
    } = service;
    api::project::Service {
        id: id.uuid(),
        project: named_project(of),
        name: name.into(),
        created_at: time(created_ms),
    }
}

/// Where a deploy goes.
pub fn target(target: Target) -> api::project::Target {
    let Target {
        project,
        environment,
        service,
        instance,
        created,
    } = target;
    api::project::Target {
        project: named_project(&project),
        environment: named_environment(&environment),
        service: named_service(&service),
        instance_id: instance.map(|instance| instance.id.uuid()),
        created,
    }
}

/// A scope as a text.
fn scope(scope: Scope, project: Option<String>) -> String {
    match scope {
        Scope::Owner => "owner".to_owned(),
        Scope::Deploy { project_id } => {
            format!("deploy:{}", project.unwrap_or_else(|| project_id.to_string()))
        }
    }
}

/// A token.
pub fn token((token, project): (Token, Option<String>)) -> api::token::Token {
    let Token {
        id,
        team_id: _,
        name,
        scope: of,
        created_ms,
        last_used_ms,
        revoked_ms: _,
    } = token;
    api::token::Token {
        id: id.uuid(),
        name,
        scope: scope(of, project),
        created_at: time(created_ms),
        last_used_at: time_of(last_used_ms),
    }
}

/// A new token with its text: the one place that gives it out.
pub fn created_token(created: CreatedToken) -> api::token::CreatedToken {
    let CreatedToken {
        token: made,
        project,
        secret,
    } = created;
    api::token::CreatedToken {
        token: token((made, project)),
        secret: secret.expose().to_owned(),
    }
}

/// Who acts.
pub fn identity(identity: Identity) -> api::token::Identity {
    let Identity {
        actor,
        scope: of,
        project,
        team,
        installation_id,
        version,
    } = identity;
    api::token::Identity {
        actor,
        scope: scope(of, project),
        team,
        installation_id,
        version,
    }
}

/// Variables, for whoever may read them, with their version.
pub fn variables(variables: Variables) -> (String, api::variable::VariableList) {
    let Variables { items, version } = variables;
    let items = items.into_iter().map(variable).collect();
    (version, api::variable::VariableList { items })
}

fn variable(view: VariableView) -> api::variable::Variable {
    let VariableView {
        key,
        value,
        sealed,
        public,
        updated_ms,
    } = view;
    api::variable::Variable {
        key: key.into(),
        value: value.map(|value| value.expose().to_owned()),
        sealed,
        public,
        updated_at: time(updated_ms),
    }
}
