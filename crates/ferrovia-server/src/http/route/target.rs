//! Where a deploy goes.

use axum::Json as Answer;
use axum::extract::State as FromState;
use ferrovia_api::project::{Target, TargetRequest};
use ferrovia_control::usecase::{Place, TargetRequest as Request};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::convert;
use crate::http::extract::{Ctx, Json};
use crate::http::failure::Failure;
use crate::http::state::State;

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(ensure))
}

/// Find where a deploy goes, and create what is missing if asked to
#[utoipa::path(post, path = "/targets", tag = "deployments", operation_id = "ensure_target",
    request_body = TargetRequest, responses((status = 200, description = "All three exist.", body = Target)))]
async fn ensure(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    Json(request): Json<TargetRequest>,
) -> Result<Answer<Target>, Failure> {
    let TargetRequest {
        project,
        environment,
        service,
        create,
    } = request;
    let place = Place {
        project,
        environment,
        service,
    };
    let target = state
        .cases
        .ensure_target(&ctx, &Request { place, create })
        .await?;
    Ok(Answer(convert::target(target)))
}
