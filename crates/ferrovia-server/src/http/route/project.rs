//! Projects.

use axum::Json as Answer;
use axum::extract::State as FromState;
use ferrovia_api::project::{NewProject, Project, ProjectList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ProjectPath;
use crate::http::convert::{self, PageParams};
use crate::http::extract::{Created, Ctx, Gone, In, Json, Params, Precondition, Tagged};
use crate::http::failure::Failure;
use crate::http::state::State;

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
}

/// Projects by name
#[utoipa::path(get, path = "/projects", tag = "projects", operation_id = "list_projects", params(PageParams),
    responses((status = 200, description = "A page of projects.", body = ProjectList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    Params(params): Params<PageParams>,
) -> Result<Answer<ProjectList>, Failure> {
    let page = state.cases.list_projects(&ctx, &params.page()?).await?;
    let (items, next) = convert::page(page, convert::project);
    Ok(Answer(ProjectList { items, next }))
}

/// Create a project with an environment `production`
#[utoipa::path(post, path = "/projects", tag = "projects", operation_id = "create_project", request_body = NewProject,
    responses((status = 201, description = "The new project.", body = Project)))]
async fn create(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    Json(new): Json<NewProject>,
) -> Result<Created<Project>, Failure> {
    let project = state.cases.create_project(&ctx, &new.name).await?;
    Ok(Created(convert::project(project)))
}

/// One project
#[utoipa::path(get, path = "/projects/{project}", tag = "projects", operation_id = "get_project", params(ProjectPath),
    responses((status = 200, description = "The project.", body = Project)))]
async fn get(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
) -> Result<Tagged<Project>, Failure> {
    let project = state.cases.get_project(&ctx, &path.project).await?;
    Ok(Tagged(project.version.to_string(), convert::project(project)))
}

/// Delete a project and everything in it, softly
#[utoipa::path(delete, path = "/projects/{project}", tag = "projects", operation_id = "delete_project",
    params(ProjectPath), responses((status = 204, description = "It is deleted.")))]
async fn delete(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    versions: Precondition,
) -> Result<Gone, Failure> {
    state
        .cases
        .delete_project(&ctx, &path.project, versions.tags())
        .await?;
    Ok(Gone)
}
