//! Reading blobs, whole or a range of them (RFC 9110 section 14.2, one range).

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{Call, Refusal};
use crate::digest::Digest;
use crate::registry::{Error, Repository};

/// Bytes read from the disk at a time.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) async fn answer(call: Call, repository: &Repository, digest: &str) -> Result<Response, Refusal> {
    let digest: Digest = digest.parse().map_err(|_| Error::DigestInvalid)?;
    let store = &call.service.store;
    match call.method {
        Method::HEAD => {
            let found = match call.scope.may_push(repository) {
                true => store.keep_blob(repository, digest).await?,
                false => store.find_blob(repository, digest).await?,
            };
            let size = found.ok_or(Error::BlobUnknown(digest))?;
            Ok((StatusCode::OK, headers(digest, size)).into_response())
        }
        Method::GET => {
            let (mut file, size) = store.open_blob(repository, digest).await?;
            let asked = call
                .headers
                .get(header::RANGE)
                .and_then(|value| value.to_str().ok());
            let range = match asked.map(|value| range(value, size)) {
                None | Some(Asked::Everything) => None,
                Some(Asked::Part(first, last)) => Some((first, last)),
                Some(Asked::Nothing) => {
                    let all = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
                    return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
                }
            };
            let (first, last) = range.unwrap_or((0, size.saturating_sub(1)));
            let length = if size == 0 { 0 } else { last - first + 1 };
            if first > 0 {
                file.seek(std::io::SeekFrom::Start(first))
                    .await
                    .map_err(Error::io("read a blob"))?;
            }
            let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES));
            let status = if range.is_some() {
                StatusCode::PARTIAL_CONTENT
            } else {
                StatusCode::OK
            };
            let mut response = (status, headers(digest, length), body).into_response();
            if range.is_some()
                && let Ok(value) = format!("bytes {first}-{last}/{size}").parse()
            {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            Ok(response)
        }
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn headers(digest: Digest, length: u64) -> [(header::HeaderName, String); 5] {
    [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (
            header::HeaderName::from_static("docker-content-digest"),
            digest.to_string(),
        ),
    ]
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Part(u64, u64),
    Nothing,
}

/// What a `Range` header asks for; one that is not understood is ignored, as the standard says.
fn range(value: &str, size: u64) -> Asked {
    let Some((first, last)) = value
        .strip_prefix("bytes=")
        .filter(|spec| !spec.contains(','))
        .and_then(|spec| spec.split_once('-'))
    else {
        return Asked::Everything;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Asked::Nothing,
        (Ok(first), Ok(last)) if last >= first => Asked::Part(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Asked::Part(first, size - 1),
        (Err(_), Ok(0)) if first.is_empty() => Asked::Nothing,
        (Err(_), Ok(count)) if first.is_empty() && size > 0 => {
            Asked::Part(size.saturating_sub(count), size - 1)
        }
        _ => Asked::Everything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-", 10), Asked::Part(0, 9));
        assert_eq!(range("bytes=3-4", 10), Asked::Part(3, 4));
        assert_eq!(range("bytes=3-400", 10), Asked::Part(3, 9));
        assert_eq!(range("bytes=-4", 10), Asked::Part(6, 9));
        assert_eq!(range("bytes=10-", 10), Asked::Nothing);
        assert_eq!(range("bytes=0-", 0), Asked::Nothing);
        for ignored in ["bytes=4-3", "bytes=0-1,2-3", "lines=1-2", "bytes=a-b", "bytes=-"] {
            assert_eq!(range(ignored, 10), Asked::Everything, "{ignored}");
        }
    }
}
