//! Receiving blobs: at once, in chunks, or mounted from another repository of the same scope.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use uuid::Uuid;

use super::{Call, Refusal};
use crate::digest::Digest;
use crate::registry::{Error, Repository, Upload};

/// How long a body may stall, in milliseconds.
const STALL_MS: u64 = 60_000;

fn digest(call: &Call) -> Result<Option<Digest>, Error> {
    let parse = |text: String| text.parse().map_err(|_| Error::DigestInvalid);
    call.query("digest").map(parse).transpose()
}

fn length(call: &Call) -> Option<u64> {
    call.headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// POST: a mount, a blob in one request, or the beginning of an upload.
pub(super) async fn begin(call: Call, repository: &Repository) -> Result<Response, Refusal> {
    if call.method != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    let store = call.service.store.clone();
    if let (Some(mount), Some(from)) = (call.query("mount"), call.query("from")) {
        let mount: Digest = mount.parse().map_err(|_| Error::DigestInvalid)?;
        let from: Repository = from.parse()?;
        if call.scope.may_pull(&from) && store.mount_blob(&from, repository, mount).await? {
            return Ok(created(repository, mount));
        }
    }
    match digest(&call)? {
        Some(digest) => {
            let mut upload = store.begin_upload(repository, length(&call)).await?;
            receive(&mut upload, call.body).await?;
            store.finish_upload(upload, digest).await?;
            Ok(created(repository, digest))
        }
        None => {
            let upload = store.begin_upload(repository, None).await?;
            let response = accepted(repository, &upload, StatusCode::ACCEPTED);
            store.park(upload)?;
            Ok(response)
        }
    }
}

/// What is done with an upload that was begun.
pub(super) async fn answer(call: Call, repository: &Repository, id: &str) -> Result<Response, Refusal> {
    let id: Uuid = id.parse().map_err(|_| Error::UploadUnknown)?;
    let store = call.service.store.clone();
    let mut upload = store.resume(repository, id)?;
    match call.method {
        Method::GET => {
            let response = accepted(repository, &upload, StatusCode::NO_CONTENT);
            store.park(upload)?;
            Ok(response)
        }
        Method::PATCH => {
            if let Err(error) = expect_offset(&call, &upload) {
                store.park(upload)?;
                return Err(error.into());
            }
            receive(&mut upload, call.body).await?;
            let response = accepted(repository, &upload, StatusCode::ACCEPTED);
            store.park(upload)?;
            Ok(response)
        }
        Method::PUT => {
            let digest = digest(&call).and_then(|digest| digest.ok_or(Error::DigestInvalid));
            let digest = match digest.and_then(|digest| expect_offset(&call, &upload).map(|()| digest)) {
                Ok(digest) => digest,
                Err(error) => {
                    store.park(upload)?;
                    return Err(error.into());
                }
            };
            receive(&mut upload, call.body).await?;
            store.finish_upload(upload, digest).await?;
            Ok(created(repository, digest))
        }
        Method::DELETE => {
            drop(upload);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => {
            store.park(upload)?;
            Err(Refusal::MethodNotAllowed)
        }
    }
}

/// A chunk that says where it begins must begin where the last one ended.
fn expect_offset(call: &Call, upload: &Upload) -> Result<(), Error> {
    let offset = upload.written_bytes();
    let Some(range) = call.headers.get(header::CONTENT_RANGE) else {
        return Ok(());
    };
    let begin = range
        .to_str()
        .ok()
        .and_then(|text| {
            text.trim_start_matches("bytes")
                .trim_start_matches([' ', '='])
                .split_once('-')
        })
        .and_then(|(begin, _)| begin.trim().parse::<u64>().ok());
    if begin == Some(offset) {
        Ok(())
    } else {
        Err(Error::RangeInvalid { offset })
    }
}

async fn receive(upload: &mut Upload, body: Body) -> Result<(), Error> {
    let mut stream = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(STALL_MS), stream.next()).await;
        match next {
            Ok(Some(Ok(bytes))) => upload.write(&bytes).await?,
            Ok(None) => return upload.flush().await,
            Ok(Some(Err(_))) | Err(_) => return Err(Error::Interrupted),
        }
    }
}

fn accepted(repository: &Repository, upload: &Upload, status: StatusCode) -> Response {
    let headers = [
        (
            header::LOCATION,
            format!("/v2/{repository}/blobs/uploads/{}", upload.id),
        ),
        (
            header::RANGE,
            format!("0-{}", upload.written_bytes().saturating_sub(1)),
        ),
        (
            header::HeaderName::from_static("docker-upload-uuid"),
            upload.id.to_string(),
        ),
    ];
    (status, headers).into_response()
}

fn created(repository: &Repository, digest: Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (
            header::HeaderName::from_static("docker-content-digest"),
            digest.to_string(),
        ),
    ];
    (StatusCode::CREATED, headers).into_response()
}
