//! Logs of instances and builds, by page and as streams.

use axum::Json as Answer;
use axum::extract::State as FromState;
use axum::response::Response;
use ferrovia_api::StreamEvent;
use ferrovia_api::log::{LogLine, LogPage, LogStream};
use ferrovia_control::usecase::{self, LogFollow, LogRequest, MAX_LINES, UseCases};
use ferrovia_core::id::DeploymentId;
use ferrovia_log::{Line, Stream};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deployment::BuildPath;
use super::{InstancePath, id};
use crate::http::code;
use crate::http::convert::{check_limit, time};
use crate::http::extract::{Ctx, In, Params, header_text};
use crate::http::failure::Failure;
use crate::http::state::State;
use crate::http::stream::{Events, stream};

/// Which lines.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// Most lines in the answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// A cursor: lines after it, the oldest first. Without it and without `since` the newest lines.
    #[param(pattern = "^[0-9]{1,19}$")]
    pub after: Option<String>,
    /// A cursor: lines before it, the newest of them; with `since` back to that time.
    #[param(pattern = "^[0-9]{1,19}$")]
    pub before: Option<String>,
    /// Written at or after.
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Written before.
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Text in the line; letters of ASCII match in either case.
    #[param(max_length = 1024)]
    pub contains: Option<String>,
    /// Only lines of this deployment.
    #[param(value_type = Option<String>, format = Uuid)]
    pub deployment: Option<uuid::Uuid>,
}

impl LogParams {
    fn request(self) -> Result<LogRequest, Failure> {
        let Self {
            limit,
            after,
            before,
            since,
            until,
            contains,
            deployment,
        } = self;
        if let Some(limit) = limit {
            check_limit(limit, MAX_LINES)?;
        }
        Ok(LogRequest {
            limit,
            after: after.as_deref().map(|text| cursor(text, "after")).transpose()?,
            before: before.as_deref().map(|text| cursor(text, "before")).transpose()?,
            since_ms: since.map(Timestamp::as_millisecond),
            until_ms: until.map(Timestamp::as_millisecond),
            contains,
            deployment: deployment.map(DeploymentId::from_uuid),
        })
    }

    /// The same for a stream: where the client was cut off counts more than where it began.
    fn resumed(self, headers: &HeaderMap) -> Result<LogRequest, Failure> {
        let mut request = self.request()?;
        if let Some(last) = header_text(headers, &HeaderName::from_static("last-event-id")) {
            request.after = Some(cursor(last, "last-event-id")?);
        }
        Ok(request)
    }
}

fn cursor(text: &str, field: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        Failure::new(
            &code::PARAMETER_INVALID,
            format!("`{field}` is no cursor of a log"),
        )
        .hint("give the `cursor` of a line as it is")
        .field(field)
    })
}

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(read))
        .routes(routes!(read_build))
}

/// The routes that are streams.
pub fn streams() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(follow))
        .routes(routes!(follow_build))
}

fn line(line: Line) -> LogLine {
    let Line {
        seq,
        at_ms,
        stream,
        source,
        deployment,
        text,
        continues,
    } = line;
    LogLine {
        cursor: seq.to_string(),
        at: time(at_ms),
        stream: match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        },
        source,
        deployment_id: deployment.map(|deployment| deployment.uuid()),
        text,
        continues,
    }
}

fn page(page: usecase::LogPage) -> LogPage {
    let usecase::LogPage { items, next } = page;
    LogPage {
        items: items.into_iter().map(line).collect(),
        next: next.map(|next| next.to_string()),
    }
}

/// Lines of a service's log in an environment
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}/logs", tag = "logs",
    operation_id = "read_log", params(InstancePath, LogParams),
    responses((status = 200, description = "Lines, the oldest first.", body = LogPage)))]
async fn read(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    Params(params): Params<LogParams>,
) -> Result<Answer<LogPage>, Failure> {
    let lines = state
        .cases
        .read_log(&ctx, &path.into(), &params.request()?)
        .await?;
    Ok(Answer(page(lines)))
}

/// Lines of a build's log
#[utoipa::path(get, path = "/builds/{build}/logs", tag = "logs", operation_id = "read_build_log",
    params(BuildPath, LogParams),
    responses((status = 200, description = "Lines, the oldest first.", body = LogPage)))]
async fn read_build(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<BuildPath>,
    Params(params): Params<LogParams>,
) -> Result<Answer<LogPage>, Failure> {
    let id = id(&path.build, "build")?;
    let lines = state.cases.read_build_log(&ctx, id, &params.request()?).await?;
    Ok(Answer(page(lines)))
}

/// Follow a service's log in an environment: an event `line` for each line, without end
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/services/{service}/logs/stream",
    tag = "logs", operation_id = "follow_log", params(InstancePath, LogParams),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream",
        body = StreamEvent)))]
async fn follow(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<InstancePath>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let request = params.resumed(&headers)?;
    let follow = state.cases.follow_log(&ctx, &path.into(), &request).await?;
    let cases = state.cases.clone();
    stream(&state, move |events| lines(cases, follow, events))
}

/// Follow a build's log: an event `line` for each line, `end` after the build's end
#[utoipa::path(get, path = "/builds/{build}/logs/stream", tag = "logs", operation_id = "follow_build_log",
    params(BuildPath, LogParams),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream",
        body = StreamEvent)))]
async fn follow_build(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<BuildPath>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (id, request) = (id(&path.build, "build")?, params.resumed(&headers)?);
    let follow = state.cases.follow_build_log(&ctx, id, &request).await?;
    let cases = state.cases.clone();
    stream(&state, move |events| lines(cases, follow, events))
}

async fn lines(cases: UseCases, mut follow: LogFollow, events: Events) {
    loop {
        match cases.next_lines(&mut follow).await {
            Ok(Some(lines)) => {
                for found in lines {
                    let found = line(found);
                    if !events.send("line", &found.cursor, &found).await {
                        return;
                    }
                }
            }
            Ok(None) => return events.end().await,
            // The client connects again and is told why.
            Err(_) => return,
        }
    }
}
