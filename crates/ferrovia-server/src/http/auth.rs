//! Who acts: a bearer token (RFC 6750), or the user at the other end of a Unix socket.
//!
//! A good token always passes. Wrong ones are counted per place that they come from; past a bound they are answered
//! with 429, so that a client gone wild is seen and slowed. Guessing is hopeless anyway: a token has 256 bits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{Request, State as FromState};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ferrovia_control::usecase::{OpContext, Repeat};
use ferrovia_core::error::Class;
use ferrovia_core::secret::Secret;
use http::{HeaderMap, Method, header};

use super::code;
use super::extract::{BodyLimit, MAX_JSON_BYTES, header_text, read};
use super::failure::Failure;
use super::frame::RequestId;
use super::state::State;

/// Wrong tokens from one place before they are answered with 429.
pub const MAX_FAILURES: u32 = 20;
/// Over this time, in milliseconds.
pub const FAILURES_WINDOW_MS: u64 = 60_000;
/// Places that are remembered at once.
const MAX_PLACES: usize = 10_000;
/// How often the token of a stream is looked at again, in milliseconds.
pub const RECHECK_MS: u64 = 10_000;
/// Longest `Idempotency-Key`, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Where a connection comes from; put into each request by [`super::serve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP.
    Address(IpAddr),
    /// Over the Unix socket: the user at the other end.
    User {
        /// Its user id.
        uid: u32,
    },
}

/// What a request proved itself with, for answers that last: it may be revoked meanwhile.
#[derive(Debug, Clone)]
pub struct Credential(Option<Secret>);

impl Credential {
    /// Waits until it is not good any more.
    pub async fn revoked(self, state: State) {
        // The owner of the host stays it.
        let Some(token) = self.0 else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(Duration::from_millis(RECHECK_MS)).await;
            match state.cases.authenticate(&token, String::new()).await {
                Err(error) if error.class() == Class::Denied => return,
                _ => {}
            }
        }
    }
}

/// Wrong tokens by the place that they came from.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<Option<Peer>, (Instant, u32)>>);

impl Failures {
    /// Counts one more; whether it is still within the bound.
    fn count(&self, peer: Option<Peer>) -> bool {
        let now = Instant::now();
        let window = Duration::from_millis(FAILURES_WINDOW_MS);
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MAX_PLACES {
            places.retain(|_, (since, _)| now.duration_since(*since) < window);
        }
        if places.len() >= MAX_PLACES {
            return false;
        }
        let (since, count) = places.entry(peer).or_insert((now, 0));
        if now.duration_since(*since) >= window {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_FAILURES
    }

    /// The refusal of a wrong or missing token.
    pub fn refusal(&self, peer: Option<Peer>, failure: Failure) -> Failure {
        if self.count(peer) {
            return failure;
        }
        let seconds = u32::try_from(FAILURES_WINDOW_MS / 1_000).unwrap_or(u32::MAX);
        Failure::new(
            &code::TOO_MANY_FAILURES,
            "too many requests without a good token came from here",
        )
        .hint("wait a minute, and check the token: `ferrovia whoami`")
        .retry_after(seconds)
    }
}

/// Lets a request pass when it is known who acts, and says so to the handler.
pub async fn authenticate(FromState(state): FromState<State>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let request_id = RequestId::of(request.extensions());
    let said = request
        .headers()
        .contains_key(header::AUTHORIZATION)
        .then(|| bearer(request.headers()));
    let credential = Credential(said.clone().flatten());
    let mut context = match identify(&state, said, peer, request_id).await {
        Ok(context) => context,
        Err(failure) => return failure.into_response(),
    };
    if request.method() == Method::POST {
        request = match repeatable(request).await {
            Ok((request, repeat)) => {
                context.repeat = repeat;
                request
            }
            Err(failure) => return failure.into_response(),
        };
    }
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(credential);
    next.run(request).await
}

/// `said`: whether there is an `Authorization`, and the token in it.
async fn identify(
    state: &State,
    said: Option<Option<Secret>>,
    peer: Option<Peer>,
    request_id: String,
) -> Result<OpContext, Failure> {
    if let Some(token) = said {
        let missing = || {
            Failure::new(&code::UNAUTHENTICATED, "`Authorization` is not a bearer token")
                .hint("send `Authorization: Bearer TOKEN`")
                .field("authorization")
        };
        let Some(token) = token else {
            return Err(state.failures.refusal(peer, missing()));
        };
        return match state.cases.authenticate(&token, request_id).await {
            Ok(context) => Ok(context),
            Err(error) => {
                let failure = Failure::from(error);
                let wrong = failure.status() == http::StatusCode::UNAUTHORIZED;
                Err(if wrong {
                    state.failures.refusal(peer, failure)
                } else {
                    failure
                })
            }
        };
    }
    if let Some(Peer::User { uid }) = peer {
        return Ok(state.cases.authenticate_host(uid, request_id).await?);
    }
    let missing = Failure::new(&code::UNAUTHENTICATED, "this needs a token").hint(
        "`ferrovia login` keeps one; `ferroviad token create --name NAME` on the server's host makes one",
    );
    Err(state.failures.refusal(peer, missing))
}

/// The token of an `Authorization` header, if it has that form.
pub fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = header_text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| Secret::new(token))
}

/// Takes the `Idempotency-Key` of a request, with a digest of all that makes the request what it is.
async fn repeatable(request: Request) -> Result<(Request, Option<Repeat>), Failure> {
    let Some(value) = request.headers().get("idempotency-key") else {
        return Ok((request, None));
    };
    let key = value.to_str().ok().filter(|key| {
        !key.is_empty()
            && key.len() <= MAX_KEY_BYTES
            && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    });
    let key = key.map(str::to_owned).ok_or_else(|| {
        Failure::new(&code::HEADER_INVALID, "`Idempotency-Key` cannot be one")
            .hint(format!(
                "send 1 to {MAX_KEY_BYTES} printable ASCII characters, a new UUID for example"
            ))
            .field("idempotency-key")
    })?;
    let limit = request
        .extensions()
        .get::<BodyLimit>()
        .map_or(MAX_JSON_BYTES, |limit| limit.0);
    let (parts, body) = request.into_parts();
    let body = read(body, limit).await?;
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [parts.uri.to_string().as_bytes(), &body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    let request = Request::from_parts(parts, Body::from(body));
    Ok((request, Some(Repeat { key, digest })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_counted_per_place() {
        let failures = Failures::default();
        let here = Some(Peer::Address(IpAddr::from([127, 0, 0, 1])));
        let there = Some(Peer::Address(IpAddr::from([10, 0, 0, 1])));
        for _ in 0..MAX_FAILURES {
            assert!(failures.count(here));
        }
        assert!(!failures.count(here));
        assert!(failures.count(there));
    }

    #[test]
    fn bearer_tokens() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).map(|token| token.expose().to_owned())
        };
        assert_eq!(of("Bearer abc"), Some("abc".into()));
        assert_eq!(of("bearer  abc"), Some("abc".into()));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer "), None);
        assert_eq!(of("abc"), None);
    }
}
