//! Server-sent events: bounded in number and length, with a sign of life and an `id` to resume from.
//!
//! A stream ends without an `end` event after a while, when the server ends and soon after its token was revoked; a
//! client that may connects again with `Last-Event-ID`.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as FromState};
use axum::middleware::Next;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use ferrovia_api::STREAM_HEARTBEAT_MS;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;

use super::auth::Credential;
use super::code;
use super::failure::Failure;
use super::serve::Ending;
use super::state::State;

/// Longest life of one connection of a stream, in milliseconds.
pub const MAX_STREAM_MS: u64 = 15 * 60 * 1_000;
/// Events that wait for a slow client.
const WAITING_EVENTS: usize = 64;

/// Where a producer puts events.
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// One event; false when the client is gone.
    pub async fn send<T: Serialize>(&self, name: &str, id: &str, content: &T) -> bool {
        let Ok(event) = Event::default().event(name).id(id).json_data(content) else {
            return false;
        };
        self.0.send(event).await.is_ok()
    }

    /// The last event: nothing comes after it.
    pub async fn end(&self) {
        let _ = self.0.send(Event::default().event("end").data("{}")).await;
    }
}

/// Ends the streams below it with the server, and with the token that asked for them.
pub async fn bounded_life(FromState(state): FromState<State>, request: Request, next: Next) -> Response {
    let ending = request.extensions().get::<Ending>().cloned();
    let credential = request.extensions().get::<Credential>().cloned();
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let ended = async move {
        match ending {
            Some(Ending(ended)) => ended.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let revoked = async move {
        match credential {
            Some(credential) => credential.revoked(state).await,
            None => std::future::pending().await,
        }
    };
    let over = async move {
        tokio::select! {
            () = ended => {}
            () = revoked => {}
        }
    };
    let (parts, body) = response.into_parts();
    let body = body.into_data_stream().take_until(Box::pin(over));
    Response::from_parts(parts, Body::from_stream(body))
}

/// Runs a producer for as long as the client listens, and at most [`MAX_STREAM_MS`].
///
/// # Errors
/// `too_many_requests` when as many streams are open as may be.
pub fn stream<F, Fut>(state: &State, produce: F) -> Result<Response, Failure>
where
    F: FnOnce(Events) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
        Failure::new(&code::TOO_MANY_REQUESTS, "as many streams are open as may be")
            .hint("close some, or try again in a moment")
            .retry_after(5)
    })?;
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let closed = sender.clone();
    let producer = produce(Events(sender));
    tokio::spawn(async move {
        tokio::select! {
            () = producer => {}
            () = closed.closed() => {}
            () = tokio::time::sleep(Duration::from_millis(MAX_STREAM_MS)) => {}
        }
        drop(permit);
    });
    let keep_alive = KeepAlive::new()
        .interval(Duration::from_millis(STREAM_HEARTBEAT_MS))
        .text("heartbeat");
    Ok(Sse::new(events(receiver)).keep_alive(keep_alive).into_response())
}

fn events(receiver: mpsc::Receiver<Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (Ok(event), receiver))
    })
}
