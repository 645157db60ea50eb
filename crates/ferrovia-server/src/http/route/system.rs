//! The installation itself. `healthz`, `readyz` and the state page need no token.

use axum::Json as Answer;
use axum::extract::State as FromState;
use axum::response::{Html, IntoResponse, Response};
use ferrovia_api::system::{DoctorReport, Health, Readiness};
use http::{StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::Ctx;
use crate::http::failure::Failure;
use crate::http::openapi;
use crate::http::state::State;

/// The routes below `/v1`.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(doctor))
        .routes(routes!(document))
}

/// The routes outside of `/v1` that need no token.
pub fn open_routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(page))
}

/// The route outside of `/v1` that needs one.
pub fn metrics_route() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// The process lives
#[utoipa::path(get, path = "/healthz", tag = "system", operation_id = "healthz", security(()),
    responses((status = 200, description = "It lives.", body = Health)))]
async fn healthz(FromState(state): FromState<State>) -> Answer<Health> {
    Answer(Health {
        status: "ok".to_owned(),
        version: state.cases.version.clone(),
    })
}

async fn readiness(state: &State) -> Readiness {
    let components = state.installation.components().await;
    let holds_up = |component: &ferrovia_api::system::Component| component.required && !component.ready;
    Readiness {
        ready: !components.iter().any(holds_up),
        components,
    }
}

/// Whether work is accepted, and what each part does
#[utoipa::path(get, path = "/readyz", tag = "system", operation_id = "readyz", security(()),
    responses((status = 200, description = "Work is accepted.", body = Readiness),
        (status = 503, description = "Work is not accepted.", body = Readiness)))]
async fn readyz(FromState(state): FromState<State>) -> Response {
    let readiness = readiness(&state).await;
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Answer(readiness)).into_response()
}

/// The state for people, until there is a dashboard
#[utoipa::path(get, path = "/", tag = "system", operation_id = "page", security(()),
    responses((status = 200, description = "A page.", content_type = "text/html", body = String)))]
async fn page(FromState(state): FromState<State>) -> Html<String> {
    let readiness = readiness(&state).await;
    let mut rows = String::new();
    for component in &readiness.components {
        let word = if component.ready { "ready" } else { "not ready" };
        let detail = component.detail.as_deref().unwrap_or_default();
        for cell in [component.name.as_str(), word, detail] {
            rows.push_str(&format!("<td>{}</td>", escaped(cell)));
        }
        rows.push_str("</tr>\n<tr>");
    }
    let word = if readiness.ready { "ready" } else { "not ready" };
    let version = escaped(&state.cases.version);
    Html(
        PAGE.replace("{word}", word)
            .replace("{version}", &version)
            .replace("{rows}", &format!("<tr>{rows}</tr>")),
    )
}

/// What people see; one file, without scripts and anything from elsewhere.
const PAGE: &str = include_str!("page.html");

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "system", operation_id = "metrics",
    responses((status = 200, description = "Metrics.", content_type = "text/plain", body = String)))]
async fn metrics(FromState(state): FromState<State>, Ctx(ctx): Ctx) -> Result<Response, Failure> {
    state.cases.may_read_installation(&ctx)?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], state.installation.metrics()).into_response())
}

/// What is wrong with the installation, the worst first
#[utoipa::path(get, path = "/doctor", tag = "system", operation_id = "doctor",
    responses((status = 200, description = "Everything that was looked at.", body = DoctorReport)))]
async fn doctor(FromState(state): FromState<State>, Ctx(ctx): Ctx) -> Result<Answer<DoctorReport>, Failure> {
    state.cases.may_read_installation(&ctx)?;
    let findings = state.installation.examine().await;
    Ok(Answer(DoctorReport { findings }))
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "system", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json", body = Object)))]
async fn document(_: Ctx) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text()).into_response()
}
