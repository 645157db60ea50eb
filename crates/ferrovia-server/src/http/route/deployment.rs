//! Deployments and builds.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State as FromState;
use axum::response::Response;
use ferrovia_api::StreamEvent;
use ferrovia_api::build::Build;
use ferrovia_api::deployment::{Deployment, DeploymentList, NewDeployment};
use ferrovia_control::usecase::OpContext;
use ferrovia_core::id::DeploymentId;
use ferrovia_core::outcome::Outcome;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{InstancePath, id};
use crate::http::convert::{self, PageParams};
use crate::http::extract::{Accepted, Ctx, In, Json, Params};
use crate::http::failure::Failure;
use crate::http::state::State;
use crate::http::stream::{Events, stream};

/// Longest time between two looks at a deployment that is followed, in milliseconds; what this process changes is
/// seen at once. While it deploys, what is waited for changes with what nodes and edges say.
const LOOK_MS: u64 = 500;
/// The same while it is queued or built: its log comes by another stream.
const BUILD_LOOK_MS: u64 = 2_000;

/// Which deployment.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct DeploymentPath {
    /// Id of the deployment.
    #[param(format = Uuid)]
    pub deployment: String,
}

/// Which build.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct BuildPath {
    /// Id of the build.
    #[param(format = Uuid)]
    pub build: String,
}

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(redeploy))
        .routes(routes!(cancel_newest))
        .routes(routes!(get))
        .routes(routes!(cancel))
        .routes(routes!(get_build))
}

/// The routes that are streams.
pub fn streams() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// Deployments of a service in an environment, the newest first
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}/deployments",
    tag = "deployments", operation_id = "list_deployments", params(InstancePath, PageParams),
    responses((status = 200, description = "A page of deployments.", body = DeploymentList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    Params(params): Params<PageParams>,
) -> Result<Answer<DeploymentList>, Failure> {
    let page = state
        .cases
        .list_deployments(&ctx, &path.into(), &params.page()?)
        .await?;
    let (items, next) = convert::page(page, convert::deployment);
    Ok(Answer(DeploymentList { items, next }))
}

/// Deploy an uploaded tree or an image
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/deployments",
    tag = "deployments", operation_id = "deploy", params(InstancePath), request_body = NewDeployment,
    responses((status = 202, description = "The new deployment, queued.", body = Deployment)))]
async fn create(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    Json(new): Json<NewDeployment>,
) -> Result<Accepted<Deployment>, Failure> {
    let request = convert::deployment_request(new);
    let view = state.cases.deploy(&ctx, &path.into(), request).await?;
    Ok(Accepted(convert::deployment(view)))
}

/// Deploy the newest build again, with the variables and settings of now
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/redeploy",
    tag = "deployments", operation_id = "redeploy", params(InstancePath),
    responses((status = 202, description = "The new deployment, queued.", body = Deployment)))]
async fn redeploy(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Deployment>, Failure> {
    let view = state.cases.redeploy(&ctx, &path.into()).await?;
    Ok(Accepted(convert::deployment(view)))
}

/// Stop the newest deployment that has not ended
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/services/{service}/cancel",
    tag = "deployments", operation_id = "cancel", params(InstancePath),
    responses((status = 202, description = "The deployment, about to end.", body = Deployment)))]
async fn cancel_newest(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Accepted<Deployment>, Failure> {
    let view = state.cases.cancel(&ctx, &path.into()).await?;
    Ok(Accepted(convert::deployment(view)))
}

/// One deployment
#[utoipa::path(get, path = "/deployments/{deployment}", tag = "deployments", operation_id = "get_deployment",
    params(DeploymentPath), responses((status = 200, description = "The deployment.", body = Deployment)))]
async fn get(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<DeploymentPath>,
) -> Result<Answer<Deployment>, Failure> {
    let view = state
        .cases
        .get_deployment(&ctx, id(&path.deployment, "deployment")?)
        .await?;
    Ok(Answer(convert::deployment(view)))
}

/// Stop a deployment that has not ended
#[utoipa::path(post, path = "/deployments/{deployment}/cancel", tag = "deployments",
    operation_id = "cancel_deployment", params(DeploymentPath),
    responses((status = 202, description = "The deployment, about to end.", body = Deployment)))]
async fn cancel(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<DeploymentPath>,
) -> Result<Accepted<Deployment>, Failure> {
    let id = id(&path.deployment, "deployment")?;
    let view = state.cases.cancel_deployment(&ctx, id).await?;
    Ok(Accepted(convert::deployment(view)))
}

/// Follow a deployment: an event `progress` with the deployment at each change, `end` after its end
#[utoipa::path(get, path = "/deployments/{deployment}/stream", tag = "deployments",
    operation_id = "follow_deployment", params(DeploymentPath),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream",
        body = StreamEvent)))]
async fn follow(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<DeploymentPath>,
) -> Result<Response, Failure> {
    let id = id(&path.deployment, "deployment")?;
    let instance = state.cases.get_deployment(&ctx, id).await?.deployment.instance_id;
    let of = state.clone();
    stream(&state, move |events| {
        let changes = of.cases.live.changes(instance);
        progress(of, ctx, id, changes, events)
    })
}

async fn progress(
    state: State,
    ctx: OpContext,
    id: DeploymentId,
    mut changes: watch::Receiver<()>,
    events: Events,
) {
    let mut look_ms = LOOK_MS;
    let mut last = None;
    let mut number = 0_u64;
    loop {
        changes.mark_unchanged();
        match state.cases.get_deployment(&ctx, id).await {
            Ok(view) => {
                let ended = view.deployment.outcome.is_final();
                look_ms = match view.deployment.outcome {
                    Outcome::Queued | Outcome::Building => BUILD_LOOK_MS,
                    _ => LOOK_MS,
                };
                let deployment = convert::deployment(view);
                if last.as_ref() != Some(&deployment) {
                    number += 1;
                    if !events.send("progress", &number.to_string(), &deployment).await {
                        return;
                    }
                    last = Some(deployment);
                }
                if ended {
                    return events.end().await;
                }
            }
            // What passes is waited for; what stays ends the stream, and the next connection is told why.
            Err(error) if error.class().is_retryable() => {}
            Err(_) => return,
        }
        let look = Duration::from_millis(look_ms);
        if let Ok(Err(_)) = tokio::time::timeout(look, changes.changed()).await {
            // Control is ending: nothing tells of changes any more.
            tokio::time::sleep(look).await;
        }
    }
}

/// One build
#[utoipa::path(get, path = "/builds/{build}", tag = "builds", operation_id = "get_build", params(BuildPath),
    responses((status = 200, description = "The build.", body = Build)))]
async fn get_build(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<BuildPath>,
) -> Result<Answer<Build>, Failure> {
    let view = state.cases.get_build(&ctx, id(&path.build, "build")?).await?;
    Ok(Answer(convert::build(view)))
}
