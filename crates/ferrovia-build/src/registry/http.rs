//! The OCI distribution protocol over HTTP, thin over [`Store`].

mod answer;
mod blobs;
mod manifests;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use self::answer::Refusal;
use super::{Access, Error, Repository, Scope, Store};

#[derive(Clone)]
struct Service {
    store: Arc<Store>,
    access: Access,
}

/// The registry as a service: `/v2/…` and nothing else.
pub fn router(store: Arc<Store>, access: Access) -> Router {
    Router::new()
        .route("/v2", any(dispatch))
        .route("/v2/", any(dispatch))
        .route("/v2/{*rest}", any(dispatch))
        .with_state(Service { store, access })
}

/// Which resource a path names. Repositories have slashes in their names, so that routes cannot be patterns.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    Root,
    Blob(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Manifest(&'a str, &'a str),
    Tags(&'a str),
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        if matches!(rest, "" | "/") {
            return Some(Self::Root);
        }
        let rest = rest.strip_prefix('/')?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags(name));
        }
        let (head, last) = rest.rsplit_once('/')?;
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            return Some(if last.is_empty() {
                Self::Uploads(name)
            } else {
                Self::Upload(name, last)
            });
        }
        if let Some(name) = head.strip_suffix("/blobs") {
            let uploads = last == "uploads";
            return Some(if uploads {
                Self::Uploads(name)
            } else {
                Self::Blob(name, last)
            });
        }
        head.strip_suffix("/manifests")
            .map(|name| Self::Manifest(name, last))
    }

    fn repository(&self) -> Result<Option<Repository>, Error> {
        match self {
            Self::Root => Ok(None),
            Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Tags(name) => name.parse().map(Some),
        }
    }
}

/// A request whose sender may do what it asks for.
struct Call {
    service: Service,
    scope: Scope,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
}

impl Call {
    /// The value of a query parameter, decoded.
    fn query(&self, name: &str) -> Option<String> {
        let query = self.uri.query()?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

async fn dispatch(State(service): State<Service>, request: Request) -> Response {
    let mut response = match answer(service, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    response
}

async fn answer(service: Service, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let given = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let scope = given
        .and_then(|value| service.access.check(value))
        .ok_or(Refusal::Unauthorized)?;
    let path = parts.uri.path().to_owned();
    let resource = Resource::of(&path).ok_or(Refusal::NoSuchResource)?;
    let repository = resource.repository()?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if let Some(repository) = &repository {
        let may = match (reads, &resource) {
            (true, Resource::Uploads(_) | Resource::Upload(..)) | (false, _) => scope.may_push(repository),
            (true, _) => scope.may_pull(repository),
        };
        if !may {
            return Err(Refusal::Denied);
        }
    }
    let call = Call {
        service,
        scope,
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    match (resource, repository) {
        (Resource::Blob(_, digest), Some(repository)) => blobs::answer(call, &repository, digest).await,
        (Resource::Uploads(_), Some(repository)) => uploads::begin(call, &repository).await,
        (Resource::Upload(_, id), Some(repository)) => uploads::answer(call, &repository, id).await,
        (Resource::Manifest(_, reference), Some(repository)) => {
            manifests::answer(call, &repository, reference).await
        }
        (Resource::Tags(_), Some(repository)) => manifests::tags(call, &repository).await,
        _ if reads => Ok((StatusCode::OK, axum::Json(serde_json::json!({}))).into_response()),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases = [
            ("/v2", Some(Resource::Root)),
            ("/v2/", Some(Resource::Root)),
            ("/v2/a/b/blobs/sha256:x", Some(Resource::Blob("a/b", "sha256:x"))),
            ("/v2/a/blobs/uploads/", Some(Resource::Uploads("a"))),
            ("/v2/a/blobs/uploads", Some(Resource::Uploads("a"))),
            ("/v2/a/blobs/uploads/1", Some(Resource::Upload("a", "1"))),
            ("/v2/a/manifests/latest", Some(Resource::Manifest("a", "latest"))),
            ("/v2/a/b/tags/list", Some(Resource::Tags("a/b"))),
            ("/v2/_catalog", None),
            ("/v1/a/manifests/latest", None),
        ];
        for (path, resource) in cases {
            assert_eq!(Resource::of(path), resource, "{path}");
        }
    }
}
