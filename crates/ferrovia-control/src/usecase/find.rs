//! From a name or an id in a request to a living object of the actor's team, with the question whether they may.

use ferrovia_core::id::{EnvironmentId, ProjectId, ServiceId};
use ferrovia_core::name::Name;
use ferrovia_core::permission::{Action, Scope};
use ferrovia_store::environment::Environment;
use ferrovia_store::project::Project;
use ferrovia_store::service::Service;
use ferrovia_store::{Conn, environment, project, service};
use uuid::Uuid;

use super::code::{self, Code};
use super::context::{OpContext, denied};
use super::error::Error;

/// A name or an id, as people give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By name.
    Name(Name),
    /// By id.
    Id(Uuid),
}

impl Reference {
    /// What a text refers to. `None` for a text that can be neither: nothing has it.
    pub fn parse(text: &str) -> Option<Self> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 36 => Some(Self::Id(uuid)),
            _ => text.parse().ok().map(Self::Name),
        }
    }
}

/// A name that is given to something new.
///
/// # Errors
/// `name_invalid`, with the field.
pub(super) fn new_name(text: &str, field: &str) -> Result<Name, Error> {
    let name: Name = text.parse().map_err(|error: ferrovia_core::name::NameError| {
        Error::new(&code::NAME_INVALID, error.to_string()).field(field)
    })?;
    if matches!(Reference::parse(text), Some(Reference::Id(_))) {
        return Err(Error::new(&code::NAME_INVALID, "a name must not look like an id").field(field));
    }
    Ok(name)
}

/// Only so much of a wrong text is shown.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn missing(code: &'static Code, word: &str, text: &str) -> Error {
    Error::new(code, format!("there is no {word} `{}`", shown(text)))
        .hint(format!("`ferrovia {word} list` shows what there is"))
        .field(word)
}

/// A living project that the actor may do this to.
pub(super) async fn project(
    conn: &mut Conn,
    ctx: &OpContext,
    text: &str,
    action: Action,
) -> Result<Project, Error> {
    let found = match Reference::parse(text) {
        None => None,
        Some(Reference::Name(name)) => project::find_by_name(conn, ctx.team_id, &name).await?,
        Some(Reference::Id(id)) => project::find(conn, ProjectId::from_uuid(id)).await?,
    };
    let found = found.filter(|project| project.team_id == ctx.team_id && project.deleted_ms.is_none());
    match found {
        Some(project) => {
            ctx.authorise(action, Some(project.id))?;
            Ok(project)
        }
        // Whoever may see one project only is not told which others there are.
        None if ctx.scope != Scope::Owner => Err(denied()),
        None => Err(missing(&code::PROJECT_NOT_FOUND, "project", text)),
    }
}

/// A living environment of a project.
pub(super) async fn environment(conn: &mut Conn, of: ProjectId, text: &str) -> Result<Environment, Error> {
    find_environment(conn, of, text)
        .await?
        .ok_or_else(|| missing(&code::ENVIRONMENT_NOT_FOUND, "environment", text))
}

/// A living environment of a project, if there is one.
pub(super) async fn find_environment(
    conn: &mut Conn,
    of: ProjectId,
    text: &str,
) -> Result<Option<Environment>, Error> {
    let found: Option<Environment> = match Reference::parse(text) {
        None => None,
        Some(Reference::Name(name)) => environment::find_by_name(conn, of, &name).await?,
        Some(Reference::Id(id)) => environment::find(conn, EnvironmentId::from_uuid(id)).await?,
    };
    Ok(found.filter(|environment| environment.project_id == of && environment.deleted_ms.is_none()))
}

/// A living service of a project.
pub(super) async fn service(conn: &mut Conn, of: ProjectId, text: &str) -> Result<Service, Error> {
    find_service(conn, of, text)
        .await?
        .ok_or_else(|| missing(&code::SERVICE_NOT_FOUND, "service", text))
}

/// A living service of a project, if there is one.
pub(super) async fn find_service(
    conn: &mut Conn,
    of: ProjectId,
    text: &str,
) -> Result<Option<Service>, Error> {
    let found: Option<Service> = match Reference::parse(text) {
        None => None,
        Some(Reference::Name(name)) => service::find_by_name(conn, of, &name).await?,
        Some(Reference::Id(id)) => service::find(conn, ServiceId::from_uuid(id)).await?,
    };
    Ok(found.filter(|service| service.project_id == of && service.deleted_ms.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_told_apart() {
        let parse = Reference::parse;
        assert!(matches!(parse("shop"), Some(Reference::Name(_))));
        assert!(matches!(
            parse("0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e"),
            Some(Reference::Id(_))
        ));
        // An id without hyphens is a good name.
        assert!(matches!(
            parse("0190b7a47c1e7f3a9d523f6a1c2b4d5e"),
            Some(Reference::Name(_))
        ));
        assert_eq!(parse("a b"), None);
        assert_eq!(parse("a\0"), None);
        assert!(new_name("0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e", "name").is_err());
    }
}
