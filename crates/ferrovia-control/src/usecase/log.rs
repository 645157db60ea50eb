//! Logs, read and followed: of an instance, whatever runs of it, and of a build.

use std::path::PathBuf;
use std::time::Duration;

use ferrovia_core::id::{BuildId, DeploymentId};
use ferrovia_log::{Follower, Line, Order, Query, Reader, place};

use super::context::OpContext;
use super::error::Error;
use super::place::Place;
use super::{UseCases, code};

/// Most lines that are read at once.
pub const MAX_LINES: u32 = 1_000;
/// Longest text to look for, in bytes.
const MAX_CONTAINS_BYTES: usize = 1_024;
/// First pause before a quiet log is looked at again, in milliseconds; it doubles.
const FIRST_PAUSE_MS: u64 = 50;
/// Longest pause before a quiet log is looked at again, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 400;

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// Most lines.
    pub limit: Option<u32>,
    /// Lines after this number, the oldest first; without it (and without a beginning) the newest.
    pub after: Option<u64>,
    /// Lines before this number, the newest of them.
    pub before: Option<u64>,
    /// Written at or after, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Written before, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Text in the line.
    pub contains: Option<String>,
    /// Only of this deployment.
    pub deployment: Option<DeploymentId>,
}

/// Lines, the oldest first.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// The lines.
    pub items: Vec<Line>,
    /// Number of the last of them, or of where the log was looked at; none for a log without lines.
    pub next: Option<u64>,
}

impl LogRequest {
    fn query(&self) -> Result<Query, Error> {
        let Self {
            limit,
            after,
            before,
            since_ms,
            until_ms,
            contains,
            deployment,
        } = self.clone();
        if contains
            .as_ref()
            .is_some_and(|text| text.len() > MAX_CONTAINS_BYTES)
        {
            let text = format!("the text to look for has at most {MAX_CONTAINS_BYTES} bytes");
            return Err(Error::new(&code::FILTER_INVALID, text).field("contains"));
        }
        let order = match (after, before, since_ms) {
            (Some(_), _, _) | (None, None, Some(_)) => Order::Oldest,
            _ => Order::Newest,
        };
        Ok(Query {
            from_ms: since_ms,
            until_ms,
            after,
            before,
            contains: contains.filter(|text| !text.is_empty()),
            source: None,
            deployment,
            limit: limit.unwrap_or(100).clamp(1, MAX_LINES) as usize,
            order,
        })
    }
}

/// Lines as they come.
pub struct LogFollow {
    follower: Option<Follower>,
    query: Query,
    /// The build whose end is the log's end.
    build: Option<BuildId>,
    build_ended: bool,
}

impl UseCases {
    async fn read(&self, directory: PathBuf, request: &LogRequest) -> Result<LogPage, Error> {
        let query = request.query()?;
        let after = request.after;
        let read = tokio::task::spawn_blocking(move || {
            let reader = Reader::new(directory);
            // Before the lines: what is written meanwhile is for the next look.
            let end = reader.last_seq()?;
            let items = reader.read(&query)?;
            // Nothing matched: what comes later is looked for from here, and not from the beginning.
            let last = match items.last() {
                Some(line) => Some(line.seq),
                None if query.until_ms.is_some() || query.before.is_some() => after,
                None => Some(end).filter(|seq| *seq > 0).or(after),
            };
            Ok::<_, ferrovia_log::Error>(LogPage { items, next: last })
        });
        match read.await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Lines of an instance's log.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not; `log_unreadable`.
    pub async fn read_log(
        &self,
        ctx: &OpContext,
        at: &Place,
        request: &LogRequest,
    ) -> Result<LogPage, Error> {
        let id = self.instance_id(ctx, at).await?;
        self.read(place::of_instance(&self.logs, id), request).await
    }

    /// Lines of a build's log.
    ///
    /// # Errors
    /// `build_not_found`, `log_unreadable`.
    pub async fn read_build_log(
        &self,
        ctx: &OpContext,
        id: BuildId,
        request: &LogRequest,
    ) -> Result<LogPage, Error> {
        self.get_build(ctx, id).await?;
        self.read(place::of_build(&self.logs, id), request).await
    }

    /// Follows an instance's log.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not.
    pub async fn follow_log(
        &self,
        ctx: &OpContext,
        at: &Place,
        request: &LogRequest,
    ) -> Result<LogFollow, Error> {
        let id = self.instance_id(ctx, at).await?;
        follow(place::of_instance(&self.logs, id), request, None)
    }

    /// Follows a build's log to the build's end.
    ///
    /// # Errors
    /// `build_not_found`.
    pub async fn follow_build_log(
        &self,
        ctx: &OpContext,
        id: BuildId,
        request: &LogRequest,
    ) -> Result<LogFollow, Error> {
        self.get_build(ctx, id).await?;
        follow(place::of_build(&self.logs, id), request, Some(id))
    }

    /// The next lines; none after the end of a build. Waits for them.
    ///
    /// # Errors
    /// `log_unreadable`, or when the database does not answer.
    pub async fn next_lines(&self, follow: &mut LogFollow) -> Result<Option<Vec<Line>>, Error> {
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            let Some(mut follower) = follow.follower.take() else {
                return Ok(None);
            };
            // Asked before the log is looked at: what was written before the end is then seen.
            let ended = follow.build_ended;
            let polled = tokio::task::spawn_blocking(move || {
                let lines = follower.poll();
                (follower, lines)
            })
            .await;
            let (follower, lines) = polled.map_err(|error| unreadable(&error))?;
            let nothing = matches!(&lines, Ok(lines) if lines.is_empty());
            if !(nothing && ended) {
                follow.follower = Some(follower);
            }
            let lines = lines.map_err(|error| unreadable(&error))?;
            let wanted: Vec<Line> = lines
                .into_iter()
                .filter(|line| follow.query.matches(line))
                .collect();
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
            if nothing {
                if let Some(id) = follow.build
                    && !ended
                {
                    let build = ferrovia_store::build::get(&mut *self.db.conn().await?, id).await?;
                    follow.build_ended = build.outcome.is_final();
                    if follow.build_ended {
                        continue;
                    }
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
            }
        }
    }
}

fn follow(directory: PathBuf, request: &LogRequest, build: Option<BuildId>) -> Result<LogFollow, Error> {
    let query = request.query()?;
    let follower = Reader::new(directory).follow(request.after.unwrap_or(0));
    Ok(LogFollow {
        follower: Some(follower),
        query,
        build,
        build_ended: false,
    })
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Error {
    tracing::error!(error, "a log cannot be read");
    Error::new(&code::LOG_UNREADABLE, "the log cannot be read")
        .hint("`ferroviad doctor` on the server's host says more")
}
