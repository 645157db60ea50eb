//! The routes put together, each behind what belongs before it.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;

use super::auth::authenticate;
use super::frame::{admitted, frame, in_time};
use super::route::{
    access, deployment, environment, instance, log, project, service, source, system, target, variable,
};
use super::state::State;
use super::stream::bounded_life;

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

/// Streams below `/v1`: a token, and bounds of their own.
fn streams() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .merge(deployment::streams())
        .merge(log::streams())
}

fn v1_routes() -> OpenApiRouter<State> {
    ordinary()
        .merge(source::routes())
        .merge(source::uploads())
        .merge(streams())
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
    let plain = |routes: OpenApiRouter<State>| routes.split_for_parts().0;
    let authenticated = |routes: Router<State>| routes.layer(from_fn_with_state(state.clone(), authenticate));
    let bounded = |routes: Router<State>, places: &Arc<Semaphore>| {
        routes
            .layer(from_fn(in_time))
            .layer(from_fn_with_state(places.clone(), admitted))
    };
    let streams = plain(streams()).layer(from_fn_with_state(state.clone(), bounded_life));
    let uploads = authenticated(plain(source::uploads()));
    let sign_in = plain(access::open_routes()).layer(access::body_limit());
    let v1 = Router::new()
        .merge(bounded(authenticated(plain(ordinary())), &state.requests))
        .merge(bounded(authenticated(plain(source::routes())), &state.manifests).layer(source::body_limit()))
        .merge(uploads.layer(from_fn_with_state(state.uploads.clone(), admitted)))
        .merge(authenticated(streams))
        .merge(bounded(sign_in, &state.sign_ins));
    Router::new()
        .nest("/v1", v1)
        // Whether the process lives is told however much it has to do.
        .merge(plain(system::open_routes()).layer(from_fn(in_time)))
        .merge(bounded(
            authenticated(plain(system::metrics_route())),
            &state.requests,
        ))
        .layer(from_fn(frame))
        .with_state(state)
}
