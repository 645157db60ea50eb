//! Services in environments: what is wanted of them and what is seen.

use axum::Json as Answer;
use axum::extract::State as FromState;
use ferrovia_api::instance::{Instance, InstanceList, Scale};
use ferrovia_api::settings::{Settings, SettingsPatch};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{EnvironmentPath, InstancePath};
use crate::http::convert::{self, PageParams};
use crate::http::extract::{Accepted, Ctx, In, Json, Params, Precondition, Tagged};
use crate::http::failure::Failure;
use crate::http::state::State;

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(get_settings, change_settings))
        .routes(routes!(restart))
        .routes(routes!(scale))
        .routes(routes!(hold))
        .routes(routes!(release))
        .routes(routes!(down))
}

/// What runs in an environment, by the service's name
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services", tag = "instances",
    operation_id = "list_instances", params(EnvironmentPath, PageParams),
    responses((status = 200, description = "A page of instances.", body = InstanceList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<EnvironmentPath>,
    Params(params): Params<PageParams>,
) -> Result<Answer<InstanceList>, Failure> {
    let EnvironmentPath { project, environment } = path;
    let page = state
        .cases
        .list_instances(&ctx, &project, &environment, &params.page()?)
        .await?;
    let (items, next) = convert::page(page, convert::instance);
    Ok(Answer(InstanceList { items, next }))
}

/// One service in one environment: intent, deployments, and what was seen
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}", tag = "instances",
    operation_id = "get_instance", params(InstancePath),
    responses((status = 200, description = "The instance.", body = Instance)))]
async fn get(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Answer<Instance>, Failure> {
    let view = state.cases.get_instance(&ctx, &path.into()).await?;
    Ok(Answer(convert::instance(view)))
}

/// The settings of a service in an environment
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}/settings",
    tag = "instances", operation_id = "get_settings", params(InstancePath),
    responses((status = 200, description = "The settings.", body = Settings)))]
async fn get_settings(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Tagged<Settings>, Failure> {
    let (settings, version) = state.cases.get_settings(&ctx, &path.into()).await?;
    Ok(Tagged(version.to_string(), convert::settings(settings)))
}

/// Change settings; the next deployment is made with them
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}/services/{service}/settings",
    tag = "instances", operation_id = "change_settings", params(InstancePath), request_body = SettingsPatch,
    responses((status = 200, description = "All settings after the change.", body = Settings)))]
async fn change_settings(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    versions: Precondition,
    Json(patch): Json<SettingsPatch>,
) -> Result<Tagged<Settings>, Failure> {
    let change = convert::settings_change(patch);
    let changed = state
        .cases
        .change_settings(&ctx, &path.into(), versions.tags(), change)
        .await?;
    let (settings, version) = changed;
    Ok(Tagged(version.to_string(), convert::settings(settings)))
}

/// Make new containers of the same deployment
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/restart",
    tag = "instances", operation_id = "restart", params(InstancePath),
    responses((status = 202, description = "It restarts.", body = Instance)))]
async fn restart(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Instance>, Failure> {
    let view = state.cases.restart(&ctx, &path.into()).await?;
    Ok(Accepted(convert::instance(view)))
}

/// Set how many copies should run
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/scale",
    tag = "instances", operation_id = "scale", params(InstancePath), request_body = Scale,
    responses((status = 202, description = "It scales.", body = Instance)))]
async fn scale(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    Json(Scale { replicas }): Json<Scale>,
) -> Result<Accepted<Instance>, Failure> {
    let view = state.cases.scale(&ctx, &path.into(), replicas).await?;
    Ok(Accepted(convert::instance(view)))
}

/// Keep the platform's hands off
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/hold",
    tag = "instances", operation_id = "hold", params(InstancePath),
    responses((status = 202, description = "It is held.", body = Instance)))]
async fn hold(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Instance>, Failure> {
    let view = state.cases.hold(&ctx, &path.into()).await?;
    Ok(Accepted(convert::instance(view)))
}

/// End a hold
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/release",
    tag = "instances", operation_id = "release", params(InstancePath),
    responses((status = 202, description = "It is no longer held.", body = Instance)))]
async fn release(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Instance>, Failure> {
    let view = state.cases.release(&ctx, &path.into()).await?;
    Ok(Accepted(convert::instance(view)))
}

/// Stop every copy and what is under way; nothing is deleted
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/down",
    tag = "instances", operation_id = "down", params(InstancePath),
    responses((status = 202, description = "It goes down.", body = Instance)))]
async fn down(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Instance>, Failure> {
    let view = state.cases.down(&ctx, &path.into()).await?;
    Ok(Accepted(convert::instance(view)))
}
