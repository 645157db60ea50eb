//! The routes put together, each behind what belongs before it.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use utoipa_axum::router::OpenApiRouter;

use super::auth::authenticate;
use super::frame::{bounded, frame};
use super::route::{
    access, deployment, environment, instance, log, project, service, source, system, target, variable,
};
use super::state::State;

/// Ordinary requests below `/v1`: a token, and an end in time.
fn ordinary() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .merge(access::routes())
        .merge(project::routes())
        .merge(environment::routes())
        .merge(service::routes())
        .merge(target::routes())
        .merge(instance::routes())
        .merge(variable::routes())
        .merge(deployment::routes())
        .merge(log::routes())
        .merge(system::routes())
}

/// Requests below `/v1` that last: a token, and bounds of their own.
fn lasting() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .merge(source::uploads())
        .merge(deployment::streams())
        .merge(log::streams())
}

fn v1_routes() -> OpenApiRouter<State> {
    ordinary()
        .merge(source::routes())
        .merge(lasting())
        .merge(access::open_routes())
}

/// Every route with its documentation, without layers.
pub(super) fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .nest("/v1", v1_routes())
        .merge(system::open_routes())
        .merge(system::metrics_route())
}

/// The API as a service. Put [`super::serve`] before it, which says who is at the other end.
pub fn router(state: State) -> Router {
    let authenticated = |routes: OpenApiRouter<State>| {
        routes
            .layer(from_fn_with_state(state.clone(), authenticate))
            .split_for_parts()
            .0
    };
    let in_time = |routes: Router<State>| routes.layer(from_fn_with_state(state.clone(), bounded));
    let v1 = Router::new()
        .merge(in_time(authenticated(ordinary())))
        .merge(in_time(authenticated(source::routes())).layer(source::body_limit()))
        .merge(authenticated(lasting()))
        .merge(in_time(access::open_routes().split_for_parts().0));
    Router::new()
        .nest("/v1", v1)
        .merge(in_time(system::open_routes().split_for_parts().0))
        .merge(in_time(authenticated(system::metrics_route())))
        .layer(from_fn(frame))
        .with_state(state)
}
