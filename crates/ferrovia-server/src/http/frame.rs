//! What surrounds every request: an id, a bound on time and number, one line in the log, and the problem document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State as FromState};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ferrovia_api::problem::MEDIA_TYPE;
use http::{HeaderValue, header};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::code;
use super::failure::{Failure, of_status};

/// Longest time for an ordinary request, in milliseconds; streams and uploads have bounds of their own.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Header of the request's id, in the answer.
pub const REQUEST_ID: &str = "x-request-id";

/// The request's id.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl RequestId {
    /// The id that a request has.
    pub fn of(extensions: &http::Extensions) -> String {
        extensions
            .get::<Self>()
            .map_or_else(String::new, |id| id.0.clone())
    }
}

/// Gives the request its id, and whatever fails below its problem document.
pub async fn frame(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().simple().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let begun = Instant::now();
    let method = request.method().clone();
    // The pattern and never the path itself: paths hold names, and in a mistaken request perhaps a secret.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "-".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let failure = response.extensions_mut().remove::<Failure>();
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let code = failure.as_ref().map_or("", Failure::code).to_owned();
    if let Some(failure) = failure {
        response = document(response, failure, &id);
    } else if refused && !has_document(&response) {
        response = document(response, of_status(status), &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, %method, route, status = status.as_u16(), code, took_ms, "request");
    response
}

fn has_document(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == MEDIA_TYPE.as_bytes())
}

/// The document in place of the body; headers such as `Allow` stay.
fn document(response: Response, failure: Failure, id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    if let Some(seconds) = failure.retry_after_s() {
        parts
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.status() == http::StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"ferrovia\"");
        parts.headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    let body = serde_json::to_vec(&failure.problem(id)).unwrap_or_default();
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

/// A bound on how many requests of a kind are worked on at once.
pub async fn admitted(
    FromState(places): FromState<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = places.try_acquire() else {
        return Failure::new(
            &code::TOO_MANY_REQUESTS,
            "the server works on as many requests of this kind as it may",
        )
        .hint("try again in a moment")
        .retry_after(1)
        .into_response();
    };
    next.run(request).await
}

/// A bound on how long a request takes.
pub async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(
            &code::DEADLINE_PASSED,
            format!("the request was not done in {} s", REQUEST_TIMEOUT_MS / 1_000),
        )
        .hint("whether it took effect is unknown; look before you repeat it, or repeat it with its `Idempotency-Key`")
        .retry_after(1)
        .into_response(),
    }
}
