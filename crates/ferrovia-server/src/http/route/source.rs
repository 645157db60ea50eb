//! Uploading source.

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Request, State as FromState};
use ferrovia_api::source::{CONTENTS_TYPE, Contents, ContentsBody, Manifest, ManifestEntry, TreeStatus};
use ferrovia_core::tree::{Entry, EntryKind, ParseDigestError, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ProjectPath;
use crate::http::code;
use crate::http::extract::{BodyLimit, Ctx, In, Json, is_of_type, paced};
use crate::http::failure::Failure;
use crate::http::state::State;

/// Largest manifest, in bytes: 200,000 entries of usual paths.
pub const MAX_MANIFEST_BYTES: usize = 48 * 1024 * 1024;

/// The route of manifests.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(offer))
}

/// The bound of [`routes`]; outside of whatever reads the body.
pub fn body_limit() -> axum::Extension<BodyLimit> {
    axum::Extension(BodyLimit(MAX_MANIFEST_BYTES))
}

/// The route of contents: as long as bytes come, it may last.
pub fn uploads() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(send))
}

fn entry(n: usize, entry: ManifestEntry) -> Result<Entry, Failure> {
    let (path, kind) = match entry {
        ManifestEntry::File {
            path,
            executable,
            digest,
            size,
        } => {
            let digest: Sha256 = digest.parse().map_err(|error: ParseDigestError| {
                Failure::new(&code::FIELD_INVALID, error.to_string()).field(format!("entries[{n}].digest"))
            })?;
            let kind = EntryKind::File {
                executable,
                digest,
                size,
            };
            (path, kind)
        }
        ManifestEntry::Symlink { path, target } => (path, EntryKind::Symlink { target }),
        ManifestEntry::Directory { path } => (path, EntryKind::Directory),
    };
    Ok(Entry { path, kind })
}

/// Offer a tree: which files of it the project lacks; a tree that lacks none can be deployed from then on
#[utoipa::path(post, path = "/projects/{project}/trees", tag = "source", operation_id = "offer_tree",
    params(ProjectPath), request_body = Manifest,
    responses((status = 200, description = "What the project has of it.", body = TreeStatus)))]
async fn offer(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    Json(manifest): Json<Manifest>,
) -> Result<Answer<TreeStatus>, Failure> {
    let entries = manifest
        .entries
        .into_iter()
        .enumerate()
        .map(|(n, found)| entry(n, found));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let status = state.cases.offer_tree(&ctx, &path.project, entries).await?;
    Ok(Answer(TreeStatus {
        complete: status.missing.is_empty(),
        digest: status.digest,
        missing: status.missing,
    }))
}

/// Send contents of files: each a line `sha256:… SIZE` and as many bytes, one after the other
#[utoipa::path(post, path = "/projects/{project}/contents", tag = "source", operation_id = "send_contents",
    params(ProjectPath), request_body(content = ContentsBody, content_type = "application/vnd.ferrovia.contents"),
    responses((status = 200, description = "They are kept.", body = Contents)))]
async fn send(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<ProjectPath>,
    request: Request,
) -> Result<Answer<Contents>, Failure> {
    is_of_type(request.headers(), CONTENTS_TYPE)?;
    let body = tokio_util::io::StreamReader::<_, Bytes>::new(paced(request.into_body()));
    let count = state
        .cases
        .receive_contents(&ctx, &path.project, Box::pin(body))
        .await?;
    Ok(Answer(Contents { count }))
}
