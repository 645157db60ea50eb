//! Services of a project.

use axum::Json as Answer;
use axum::extract::State as FromState;
use ferrovia_api::project::{NewService, Service, ServiceList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ProjectPath, ServicePath};
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

/// Services of a project by name
#[utoipa::path(get, path = "/projects/{project}/services", tag = "services", operation_id = "list_services",
    params(ProjectPath, PageParams),
    responses((status = 200, description = "A page of services.", body = ServiceList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    Params(params): Params<PageParams>,
) -> Result<Answer<ServiceList>, Failure> {
    let (project, page) = state
        .cases
        .list_services(&ctx, &path.project, &params.page()?)
        .await?;
    let (items, next) = convert::page(page, |service| convert::service(&project, service));
    Ok(Answer(ServiceList { items, next }))
}

/// Create a service; it runs nowhere until it is deployed
#[utoipa::path(post, path = "/projects/{project}/services", tag = "services", operation_id = "create_service",
    params(ProjectPath), request_body = NewService,
    responses((status = 201, description = "The new service.", body = Service)))]
async fn create(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    Json(new): Json<NewService>,
) -> Result<Created<Service>, Failure> {
    let (project, made) = state.cases.create_service(&ctx, &path.project, &new.name).await?;
    Ok(Created(convert::service(&project, made)))
}

/// One service
#[utoipa::path(get, path = "/projects/{project}/services/{service}", tag = "services", operation_id = "get_service",
    params(ServicePath), responses((status = 200, description = "The service.", body = Service)))]
async fn get(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ServicePath>,
) -> Result<Tagged<Service>, Failure> {
    let (project, found) = state
        .cases
        .get_service(&ctx, &path.project, &path.service)
        .await?;
    Ok(Tagged(
        found.version.to_string(),
        convert::service(&project, found),
    ))
}

/// Delete a service in every environment, softly
#[utoipa::path(delete, path = "/projects/{project}/services/{service}", tag = "services",
    operation_id = "delete_service", params(ServicePath), responses((status = 204, description = "It is deleted.")))]
async fn delete(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ServicePath>,
    versions: Precondition,
) -> Result<Gone, Failure> {
    state
        .cases
        .delete_service(&ctx, &path.project, &path.service, versions.tags())
        .await?;
    Ok(Gone)
}
