//! What handlers take out of a request; whatever does not fit is told with the field's name.

use std::io;
use std::time::Duration;

use axum::body::{Body as AxumBody, BodyDataStream, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use ferrovia_control::usecase::OpContext;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::code;
use super::failure::Failure;

/// Largest JSON body but for manifests, in bytes: 1,000 variables of 128 KiB do not come at once.
pub const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;
/// Longest time between two pieces of a body, in milliseconds.
pub const BODY_PROGRESS_MS: u64 = 15_000;

/// Who acts; there once the request has passed [`super::auth`].
#[derive(Debug)]
pub struct Ctx(pub OpContext);

impl<S: Send + Sync> FromRequestParts<S> for Ctx {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let context = parts.extensions.get::<OpContext>().cloned();
        context
            .map(Self)
            .ok_or_else(|| Failure::new(&code::UNAUTHENTICATED, "this needs a token"))
    }
}

/// The parts of the path.
#[derive(Debug)]
pub struct In<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for In<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::new(&code::PARAMETER_INVALID, rejection.body_text())
                .hint("parts of the path are UTF-8 with percent-encoding")
                .field("path")),
        }
    }
}

/// The parameters of the query.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let why = text
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&text);
                let failure = Failure::new(&code::PARAMETER_INVALID, format!("the query is wrong: {why}"));
                match parameter_of(why) {
                    Some(name) => failure.field(name),
                    None => failure.field("query"),
                }
            })
    }
}

/// The parameter that a message of serde is about: `limit: invalid digit`, ``unknown field `limt` ``.
fn parameter_of(why: &str) -> Option<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some((name, _)) = why.split_once(": ")
        && !name.is_empty()
        && name.chars().all(word)
    {
        return Some(name);
    }
    let quoted = why.split('`').nth(1)?;
    (!quoted.is_empty() && quoted.chars().all(word)).then_some(quoted)
}

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let limit = request
            .extensions()
            .get::<BodyLimit>()
            .map_or(MAX_JSON_BYTES, |limit| limit.0);
        is_json(request.headers())?;
        let bytes = read(request.into_body(), limit).await?;
        parse(&bytes).map(Self)
    }
}

/// Another bound than [`MAX_JSON_BYTES`] for the body of a route, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

fn essence(headers: &HeaderMap) -> String {
    let kind = header_text(headers, &CONTENT_TYPE).unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let essence = essence(headers);
    if essence.starts_with("application/") && essence.ends_with("+json") {
        return Ok(());
    }
    is_of_type(headers, "application/json")
}

/// Refuses a body of another media type.
///
/// # Errors
/// `media_type_unsupported`.
pub fn is_of_type(headers: &HeaderMap, wanted: &str) -> Result<(), Failure> {
    if essence(headers) == wanted {
        return Ok(());
    }
    Err(Failure::new(
        &code::MEDIA_TYPE_UNSUPPORTED,
        format!("the body must be `{wanted}`"),
    )
    .hint(format!("send `Content-Type: {wanted}`"))
    .field("content-type"))
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// `body_too_large`, `timed_out` when it stops coming, `request_invalid` when it breaks off.
pub async fn read(body: AxumBody, limit: usize) -> Result<Bytes, Failure> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(piece) = next_piece(&mut stream).await? {
        if whole.len() + piece.len() > limit {
            return Err(Failure::new(
                &code::BODY_TOO_LARGE,
                format!("the body has more than {limit} bytes"),
            ));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// The next piece of a body that must not stop coming.
async fn next_piece(stream: &mut BodyDataStream) -> Result<Option<Bytes>, Failure> {
    let wait = Duration::from_millis(BODY_PROGRESS_MS);
    match tokio::time::timeout(wait, stream.next()).await {
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(_))) => Err(Failure::new(&code::REQUEST_INVALID, "the body broke off")),
        Ok(None) => Ok(None),
        Err(_) => Err(Failure::new(&code::TIMED_OUT, "the body stopped coming")),
    }
}

/// The pieces of a body that may be of any length but must not stop coming.
pub fn paced(body: AxumBody) -> impl Stream<Item = io::Result<Bytes>> + Send {
    unfold(body.into_data_stream(), |mut stream| async move {
        match next_piece(&mut stream).await {
            Ok(Some(piece)) => Some((Ok(piece), stream)),
            Ok(None) => None,
            Err(failure) => Some((
                Err(io::Error::new(io::ErrorKind::TimedOut, failure.code().to_owned())),
                stream,
            )),
        }
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // Every body of this API is an object; serde would take an array of an object's values for it.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Failure::new(
            &code::FIELD_INVALID,
            "the body must be a JSON object, not an array",
        )
        .field("body"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            wrong_field(path, &inner)
        } else {
            Failure::new(&code::JSON_INVALID, format!("the body is not JSON: {inner}")).field("body")
        }
    })?;
    deserializer.end().map_err(|error| {
        Failure::new(
            &code::JSON_INVALID,
            format!("the body is not one JSON value: {error}"),
        )
        .field("body")
    })?;
    Ok(value)
}

fn wrong_field(path: String, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    // The place in the text follows the message: lines and columns help nobody whose client wrote the JSON.
    let why = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(why, _)| why);
    let named = why
        .split('`')
        .nth(1)
        .filter(|_| why.starts_with("missing field") || why.starts_with("unknown field"));
    let path = if path == "." { String::new() } else { path };
    let field = match named {
        Some(name) if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) => {
            if path.is_empty() { name.to_owned() } else { path }
        }
        Some(name) => format!("{path}.{name}"),
        None if path.is_empty() => "body".to_owned(),
        None => path,
    };
    Failure::new(&code::FIELD_INVALID, format!("`{field}`: {why}")).field(field)
}

/// The versions that a change may be made on (RFC 9110 section 13.1.1).
#[derive(Debug, Clone, Default)]
pub struct Precondition(Option<Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(IF_MATCH) {
            let wrong = || {
                Failure::new(&code::HEADER_INVALID, "`If-Match` is not a list of entity tags")
                    .hint("send the `ETag` of the answer as it is: `If-Match: \"7\"`")
                    .field("if-match")
            };
            for tag in value.to_str().map_err(|_| wrong())?.split(',') {
                let tag = tag.trim();
                let strong = tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
                match tag {
                    "*" => return Ok(Self(None)),
                    tag if strong => tags.push(tag[1..tag.len() - 1].to_owned()),
                    // A weak tag never matches strongly.
                    tag if tag.starts_with("W/\"") => tags.push(String::new()),
                    _ => return Err(wrong()),
                }
            }
        }
        let given = parts.headers.contains_key(IF_MATCH);
        Ok(Self(given.then_some(tags)))
    }
}

impl Precondition {
    /// The tags that are good; none given: any.
    pub fn tags(&self) -> Option<&[String]> {
        self.0.as_deref()
    }
}

/// A JSON answer with its version as `ETag`.
#[derive(Debug)]
pub struct Tagged<T>(pub String, pub T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(tag, value) = self;
        let mut response = axum::Json(value).into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// A JSON answer with status 201.
#[derive(Debug)]
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, axum::Json(self.0)).into_response()
    }
}

/// A JSON answer with status 202: it is under way.
#[derive(Debug)]
pub struct Accepted<T>(pub T);

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, axum::Json(self.0)).into_response()
    }
}

/// An answer without a body.
#[derive(Debug)]
pub struct Gone;

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// A header as text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use ferrovia_api::project::TargetRequest;
    use ferrovia_api::settings::SettingsPatch;

    use super::*;

    fn field<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, u16) {
        let failure = parse::<T>(text.as_bytes()).unwrap_err();
        let problem = failure.problem("r");
        (problem.field.unwrap(), problem.status)
    }

    #[test]
    fn the_wrong_field_is_named() {
        assert_eq!(field::<TargetRequest>("{"), ("body".into(), 400));
        assert_eq!(field::<TargetRequest>("{} x"), ("project".into(), 422));
        assert_eq!(field::<TargetRequest>("[1]"), ("body".into(), 422));
        assert_eq!(
            field::<TargetRequest>(r#"{"project":1}"#),
            ("project".into(), 422)
        );
        assert_eq!(
            field::<TargetRequest>(r#"{"project":"a"}"#),
            ("environment".into(), 422)
        );
        assert_eq!(
            field::<TargetRequest>(r#"{"projekt":"a"}"#),
            ("projekt".into(), 422)
        );
        assert_eq!(
            field::<SettingsPatch>(r#"{"drain_ms":-1}"#),
            ("drain_ms".into(), 422)
        );
        assert_eq!(
            field::<SettingsPatch>(r#"{"resources":{"pids":1e99}}"#),
            ("resources.pids".into(), 422)
        );
        assert_eq!(
            field::<SettingsPatch>(r#"{"build":{"x":1}}"#),
            ("build.x".into(), 422)
        );
    }

    #[test]
    fn the_wrong_parameter_is_named() {
        assert_eq!(
            parameter_of("limit: invalid digit found in string"),
            Some("limit")
        );
        assert_eq!(
            parameter_of("unknown field `limt`, expected `limit` or `after`"),
            Some("limt")
        );
    }
}
