//! Answers of the registry that are not content: refusals in OCI's error document.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::registry::Error;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    Unauthorized,
    Denied,
    NoSuchResource,
    MethodNotAllowed,
    Store(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Status and code of the specification, "Error codes"; 507 for a full disk, which it has no code for.
fn classified(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        Error::DigestInvalid | Error::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        Error::TagInvalid => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
        Error::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        Error::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        Error::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        Error::RangeInvalid { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
        Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        Error::TooManyUploads { .. } => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        Error::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        Error::ManifestBlobUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
        Error::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
        Error::Interrupted => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        Error::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match &self {
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "sign in with a login of this platform".to_owned(),
            ),
            Self::Denied => (
                StatusCode::FORBIDDEN,
                "DENIED",
                "this login does not open this repository".to_owned(),
            ),
            Self::NoSuchResource => (
                StatusCode::NOT_FOUND,
                "UNSUPPORTED",
                "there is no such resource".to_owned(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "this resource does not take this method".to_owned(),
            ),
            Self::Store(error) => {
                if let Error::Io { what, source } = error {
                    tracing::error!(what, error = %source, "the registry's disk refused");
                }
                let (status, code) = classified(error);
                (status, code, error.to_string())
            }
        };
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        let mut response = (status, axum::Json(body)).into_response();
        if let Self::Unauthorized = self {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Basic realm=\"ferrovia\", charset=\"UTF-8\""),
            );
        }
        response
    }
}
