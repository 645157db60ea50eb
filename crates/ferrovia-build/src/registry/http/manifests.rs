//! Manifests and tags.

use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{Call, Refusal};
use crate::registry::manifest::MAX_MANIFEST_BYTES;
use crate::registry::{Error, MediaType, Reference, Repository};

/// How long a manifest may take to come, in milliseconds.
const MANIFEST_TIMEOUT_MS: u64 = 30_000;
/// Most tags in one answer.
const MAX_TAGS: usize = 1000;

pub(super) async fn answer(
    call: Call,
    repository: &Repository,
    reference: &str,
) -> Result<Response, Refusal> {
    let reference: Reference = reference.parse()?;
    let store = call.service.store.clone();
    match call.method {
        Method::GET | Method::HEAD => {
            let stored = store
                .find_manifest(repository, &reference)
                .await?
                .ok_or_else(|| Error::ManifestUnknown(reference.to_string()))?;
            let headers = [
                (header::CONTENT_TYPE, stored.media_type.as_str().to_owned()),
                (header::CONTENT_LENGTH, stored.bytes.len().to_string()),
                (header::ETAG, format!("\"{}\"", stored.digest)),
                (
                    header::HeaderName::from_static("docker-content-digest"),
                    stored.digest.to_string(),
                ),
            ];
            let body = if call.method == Method::HEAD {
                Vec::new()
            } else {
                stored.bytes
            };
            Ok((StatusCode::OK, headers, body).into_response())
        }
        Method::PUT => put(call, repository, &reference).await,
        Method::DELETE => {
            match &reference {
                Reference::Tag(tag) => store.delete_tag(repository, tag).await?,
                Reference::Digest(digest) => {
                    if !store.delete_manifest(repository, *digest).await? {
                        return Err(Error::ManifestUnknown(reference.to_string()).into());
                    }
                }
            }
            Ok(StatusCode::ACCEPTED.into_response())
        }
        _ => Err(Refusal::MethodNotAllowed),
    }
}

async fn put(call: Call, repository: &Repository, reference: &Reference) -> Result<Response, Refusal> {
    let kind = call
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(MediaType::from_header)
        .ok_or_else(|| Error::ManifestInvalid("its `Content-Type` is not one that is taken".into()))?;
    let limit = usize::try_from(MAX_MANIFEST_BYTES).unwrap_or(usize::MAX);
    let read = Limited::new(call.body, limit).collect();
    let bytes = match tokio::time::timeout(Duration::from_millis(MANIFEST_TIMEOUT_MS), read).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let limit_bytes = MAX_MANIFEST_BYTES;
            return Err(Error::TooLarge { limit_bytes }.into());
        }
        _ => return Err(Error::Interrupted.into()),
    };
    let digest = call
        .service
        .store
        .put_manifest(repository, reference, kind, &bytes)
        .await?;
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/manifests/{digest}")),
        (
            header::HeaderName::from_static("docker-content-digest"),
            digest.to_string(),
        ),
    ];
    Ok((StatusCode::CREATED, headers).into_response())
}

pub(super) async fn tags(call: Call, repository: &Repository) -> Result<Response, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::MethodNotAllowed);
    }
    let after = call.query("last");
    let wanted = call.query("n").and_then(|n| n.parse().ok());
    let wanted: usize = wanted.unwrap_or(MAX_TAGS).min(MAX_TAGS);
    let all = call.service.store.tags(repository).await?;
    let tags: Vec<&str> = all
        .iter()
        .map(|tag| tag.as_str())
        .filter(|tag| after.as_deref().is_none_or(|after| *tag > after))
        .collect();
    let page = &tags[..tags.len().min(wanted)];
    let body = axum::Json(serde_json::json!({"name": repository.as_str(), "tags": page}));
    match page.last() {
        Some(last) if page.len() < tags.len() => {
            let next = format!("</v2/{repository}/tags/list?n={wanted}&last={last}>; rel=\"next\"");
            Ok(([(header::LINK, next)], body).into_response())
        }
        _ => Ok(body.into_response()),
    }
}
