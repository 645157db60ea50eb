//! Variables of an instance, and shared ones of an environment.

use axum::extract::State as FromState;
use ferrovia_api::variable::{VariableList, VariablePatch, VariableSetting};
use ferrovia_control::usecase::{VariableChange, VariableOwner, VariableSetting as Setting, Variables};
use ferrovia_core::secret::Secret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{EnvironmentPath, InstancePath};
use crate::http::convert;
use crate::http::extract::{Ctx, In, Json, Precondition, Tagged};
use crate::http::failure::Failure;
use crate::http::state::State;

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list, change))
        .routes(routes!(list_shared, change_shared))
}

fn change_of(patch: VariablePatch) -> VariableChange {
    let VariablePatch { set, unset } = patch;
    let setting = |setting: VariableSetting| {
        let VariableSetting {
            key,
            value,
            sealed,
            public,
        } = setting;
        Setting {
            key,
            value: Secret::new(value),
            sealed,
            public,
        }
    };
    VariableChange {
        set: set.into_iter().map(setting).collect(),
        unset,
    }
}

fn shared(path: EnvironmentPath) -> VariableOwner {
    let EnvironmentPath { project, environment } = path;
    VariableOwner::Shared { project, environment }
}

fn tagged(variables: Variables) -> Tagged<VariableList> {
    let (version, list) = convert::variables(variables);
    Tagged(version, list)
}

/// The variables of a service in an environment
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}/variables",
    tag = "variables", operation_id = "list_variables", params(InstancePath),
    responses((status = 200, description = "All variables.", body = VariableList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
) -> Result<Tagged<VariableList>, Failure> {
    let owner = VariableOwner::Instance(path.into());
    Ok(tagged(state.cases.list_variables(&ctx, &owner).await?))
}

/// Set and unset variables of a service in an environment; the next deployment has them
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}/services/{service}/variables",
    tag = "variables", operation_id = "change_variables", params(InstancePath), request_body = VariablePatch,
    responses((status = 200, description = "All variables after the change.", body = VariableList)))]
async fn change(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    versions: Precondition,
    Json(patch): Json<VariablePatch>,
) -> Result<Tagged<VariableList>, Failure> {
    let (owner, change) = (VariableOwner::Instance(path.into()), change_of(patch));
    let variables = state
        .cases
        .change_variables(&ctx, &owner, change, versions.tags())
        .await?;
    Ok(tagged(variables))
}

/// The variables that an environment shares
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/variables", tag = "variables",
    operation_id = "list_shared_variables", params(EnvironmentPath),
    responses((status = 200, description = "All shared variables.", body = VariableList)))]
async fn list_shared(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<EnvironmentPath>,
) -> Result<Tagged<VariableList>, Failure> {
    Ok(tagged(state.cases.list_variables(&ctx, &shared(path)).await?))
}

/// Set and unset variables that an environment shares; the next deployments have them
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}/variables", tag = "variables",
    operation_id = "change_shared_variables", params(EnvironmentPath), request_body = VariablePatch,
    responses((status = 200, description = "All shared variables after the change.", body = VariableList)))]
async fn change_shared(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<EnvironmentPath>,
    versions: Precondition,
    Json(patch): Json<VariablePatch>,
) -> Result<Tagged<VariableList>, Failure> {
    let (owner, change) = (shared(path), change_of(patch));
    let variables = state
        .cases
        .change_variables(&ctx, &owner, change, versions.tags())
        .await?;
    Ok(tagged(variables))
}
