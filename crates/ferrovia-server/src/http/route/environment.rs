//! Environments of a project.

use axum::Json as Answer;
use axum::extract::State as FromState;
use ferrovia_api::project::{Environment, EnvironmentList, NewEnvironment};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{EnvironmentPath, ProjectPath};
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

/// Environments of a project by name
#[utoipa::path(get, path = "/projects/{project}/environments", tag = "environments",
    operation_id = "list_environments", params(ProjectPath, PageParams),
    responses((status = 200, description = "A page of environments.", body = EnvironmentList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    Params(params): Params<PageParams>,
) -> Result<Answer<EnvironmentList>, Failure> {
    let (project, page) = state
        .cases
        .list_environments(&ctx, &path.project, &params.page()?)
        .await?;
    let (items, next) = convert::page(page, |environment| convert::environment(&project, environment));
    Ok(Answer(EnvironmentList { items, next }))
}

/// Create an environment without services
#[utoipa::path(post, path = "/projects/{project}/environments", tag = "environments",
    operation_id = "create_environment", params(ProjectPath), request_body = NewEnvironment,
    responses((status = 201, description = "The new environment.", body = Environment)))]
async fn create(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    Json(new): Json<NewEnvironment>,
) -> Result<Created<Environment>, Failure> {
    let (project, made) = state
        .cases
        .create_environment(&ctx, &path.project, &new.name)
        .await?;
    Ok(Created(convert::environment(&project, made)))
}

/// One environment
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}", tag = "environments",
    operation_id = "get_environment", params(EnvironmentPath),
    responses((status = 200, description = "The environment.", body = Environment)))]
async fn get(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<EnvironmentPath>,
) -> Result<Tagged<Environment>, Failure> {
    let (project, found) = state
        .cases
        .get_environment(&ctx, &path.project, &path.environment)
        .await?;
    Ok(Tagged(
        found.version.to_string(),
        convert::environment(&project, found),
    ))
}

/// Delete an environment and everything in it, softly
#[utoipa::path(delete, path = "/projects/{project}/environments/{environment}", tag = "environments",
    operation_id = "delete_environment", params(EnvironmentPath),
    responses((status = 204, description = "It is deleted.")))]
async fn delete(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<EnvironmentPath>,
    versions: Precondition,
) -> Result<Gone, Failure> {
    let EnvironmentPath { project, environment } = path;
    state
        .cases
        .delete_environment(&ctx, &project, &environment, versions.tags())
        .await?;
    Ok(Gone)
}
