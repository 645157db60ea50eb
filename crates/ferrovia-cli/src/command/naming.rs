//! `project`, `environment` and `service`: list, create, delete.

use ferrovia_api::client::PageQuery;
use ferrovia_api::project::{NewEnvironment, NewProject};

use super::{Session, settings};
use crate::args::{EnvironmentCommand, ProjectCommand, ServiceCommand};
use crate::failure::{Exit, Failure};
use crate::printer::table;
use crate::target::check_name;

/// What follows a deletion that was not confirmed.
const KEPT: &str = "nothing was deleted";

/// One row of a list: name, id, time.
fn row(name: &str, id: uuid::Uuid, created_at: jiff::Timestamp) -> Vec<String> {
    vec![
        name.to_owned(),
        id.to_string(),
        created_at.strftime("%F %R").to_string(),
    ]
}

fn listed(rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    table(&["name", "id", "created"], rows)
}

fn deleted(session: &Session<'_>, name: &str) -> Result<Exit, Failure> {
    let value = serde_json::json!({ "deleted": name });
    session.printer.value(&value, |_| format!("deleted `{name}`"));
    Ok(Exit::Done)
}

/// Lists, creates and deletes projects.
pub async fn project(session: &Session<'_>, command: ProjectCommand) -> Result<Exit, Failure> {
    let client = session.client()?;
    match command {
        ProjectCommand::List => {
            let mut all = Vec::new();
            let mut page = PageQuery::default();
            loop {
                let list = client.projects(&page).await?;
                all.extend(list.items);
                page.after = list.next;
                if page.after.is_none() {
                    break;
                }
            }
            let rows = |all: &Vec<ferrovia_api::project::Project>| {
                listed(
                    all.iter()
                        .map(|project| row(&project.name, project.id, project.created_at))
                        .collect(),
                )
            };
            session.printer.value(&all, rows);
        }
        ProjectCommand::Create { name } => {
            let project = client.create_project(&NewProject { name }).await?;
            session
                .printer
                .value(&project, |project| format!("created `{}`", project.name));
        }
        ProjectCommand::Delete { name, yes } => {
            check_name(&name, "project")?;
            let question = format!("deleting the project `{name}` with everything in it");
            if !session.confirmed(yes, &question)? {
                session.printer.say(KEPT);
                return Ok(Exit::Failed);
            }
            client.delete_project(&name).await?;
            return deleted(session, &name);
        }
    }
    Ok(Exit::Done)
}

/// Lists, creates and deletes environments of a project.
pub async fn environment(session: &Session<'_>, command: EnvironmentCommand) -> Result<Exit, Failure> {
    let client = session.client()?;
    let project = session.project()?;
    match command {
        EnvironmentCommand::List => {
            let mut all = Vec::new();
            let mut page = PageQuery::default();
            loop {
                let list = client.environments(&project, &page).await?;
                all.extend(list.items);
                page.after = list.next;
                if page.after.is_none() {
                    break;
                }
            }
            let rows = |all: &Vec<ferrovia_api::project::Environment>| {
                listed(
                    all.iter()
                        .map(|found| row(&found.name, found.id, found.created_at))
                        .collect(),
                )
            };
            session.printer.value(&all, rows);
        }
        EnvironmentCommand::Create { name } => {
            let created = client
                .create_environment(&project, &NewEnvironment { name })
                .await?;
            session
                .printer
                .value(&created, |created| format!("created `{}`", created.name));
        }
        EnvironmentCommand::Delete { name, yes } => {
            check_name(&name, "environment")?;
            let question = format!("deleting the environment `{name}` of `{project}` with everything in it");
            if !session.confirmed(yes, &question)? {
                session.printer.say(KEPT);
                return Ok(Exit::Failed);
            }
            client.delete_environment(&project, &name).await?;
            return deleted(session, &name);
        }
    }
    Ok(Exit::Done)
}

/// Lists and deletes services of a project, shows and changes settings.
pub async fn service(session: &Session<'_>, command: ServiceCommand) -> Result<Exit, Failure> {
    let client = session.client()?;
    match command {
        ServiceCommand::List => {
            let project = session.project()?;
            let mut all = Vec::new();
            let mut page = PageQuery::default();
            loop {
                let list = client.services(&project, &page).await?;
                all.extend(list.items);
                page.after = list.next;
                if page.after.is_none() {
                    break;
                }
            }
            let rows = |all: &Vec<ferrovia_api::project::Service>| {
                listed(
                    all.iter()
                        .map(|found| row(&found.name, found.id, found.created_at))
                        .collect(),
                )
            };
            session.printer.value(&all, rows);
            Ok(Exit::Done)
        }
        ServiceCommand::Settings { changes } => settings::settings(session, &changes).await,
        ServiceCommand::Delete { name, yes } => {
            check_name(&name, "service")?;
            let project = session.project()?;
            let question = format!("deleting the service `{name}` of `{project}` in every environment");
            if !session.confirmed(yes, &question)? {
                session.printer.say(KEPT);
                return Ok(Exit::Failed);
            }
            client.delete_service(&project, &name).await?;
            deleted(session, &name)
        }
    }
}
