//! `logs`: what the application wrote, or the build.

use std::collections::VecDeque;

use ferrovia_api::client::{Client, Follow, InstancePath, LogQuery};
use ferrovia_api::log::{LogLine, LogPage};
use jiff::{Span, Timestamp};
use uuid::Uuid;

use super::Session;
use crate::args::Logs;
use crate::failure::{Exit, Failure};
use crate::printer::Printer;

/// Lines when nothing says how many.
const DEFAULT_LINES: u32 = 100;
/// Lines of one request.
const PAGE_LINES: u32 = 1_000;
/// A cursor that is before no line.
const NO_CURSOR: &str = "9223372036854775807";

/// Which log.
enum Which {
    Instance(InstancePath),
    Build(Uuid),
}

impl Which {
    async fn page(&self, client: &Client, query: &LogQuery) -> Result<LogPage, Failure> {
        Ok(match self {
            Self::Instance(path) => client.log(path, query).await?,
            Self::Build(id) => client.build_log(*id, query).await?,
        })
    }

    fn follow(&self, client: &Client, query: &LogQuery) -> Follow {
        match self {
            Self::Instance(path) => client.follow_log(path, query),
            Self::Build(id) => client.follow_build_log(*id, query),
        }
    }
}

/// Prints lines, the oldest first, and with `--follow` those to come.
pub async fn logs(session: &Session<'_>, args: &Logs) -> Result<Exit, Failure> {
    let client = session.client()?;
    let path = session.here()?;
    let which = if args.build {
        build_log(&client, &path, session.printer).await?
    } else {
        Which::Instance(path)
    };
    let since = args
        .since
        .as_deref()
        .map(|text| since(text, Timestamp::now()))
        .transpose()?;
    let query = LogQuery {
        since: since.map(|at| at.to_string()),
        contains: args.filter.clone(),
        ..LogQuery::default()
    };
    let log = Log {
        which,
        client,
        query,
        printer: session.printer,
    };
    let after = match (args.lines, since) {
        (None, Some(_)) => log.all().await?,
        (lines, _) => log.newest(lines.unwrap_or(DEFAULT_LINES)).await?,
    };
    if args.follow {
        log.follow(after).await?;
    }
    Ok(Exit::Done)
}

/// The log of the newest deployment's build, or of the build whose image that took.
async fn build_log(client: &Client, path: &InstancePath, printer: &Printer) -> Result<Which, Failure> {
    let instance = client.instance(path).await?;
    let latest = instance.latest.ok_or_else(|| {
        Failure::new(
            "nothing_deployed",
            format!("`{}` was never deployed", path.service),
        )
        .hint("run `ferrovia up`")
    })?;
    let build = client.build(latest.build_id).await?;
    if let Some(made_by) = build.made_by {
        printer.say(format!(
            "v{} took the image of an earlier build; this is the log of that one",
            latest.number
        ));
        return Ok(Which::Build(made_by));
    }
    Ok(Which::Build(build.id))
}

/// A log that is read, in requests of [`PAGE_LINES`].
struct Log<'a> {
    which: Which,
    client: Client,
    query: LogQuery,
    printer: &'a Printer,
}

impl Log<'_> {
    async fn page(&self, change: impl FnOnce(&mut LogQuery)) -> Result<LogPage, Failure> {
        let mut query = self.query.clone();
        change(&mut query);
        self.which.page(&self.client, &query).await
    }

    /// Everything that is there now; the cursor after it. What is written meanwhile is for who follows.
    async fn all(&self) -> Result<Option<String>, Failure> {
        let newest = LogQuery {
            limit: Some(1),
            ..LogQuery::default()
        };
        let newest = self.which.page(&self.client, &newest).await?;
        let end = newest.items.last().map_or(0, place);
        let mut after: Option<String> = None;
        loop {
            let page = self
                .page(|query| {
                    query.limit = Some(PAGE_LINES);
                    query.after.clone_from(&after);
                })
                .await?;
            page.items.iter().for_each(|line| print(line, self.printer));
            after = page.next.or(after);
            if page.items.last().is_none_or(|line| place(line) >= end) {
                return Ok(after);
            }
        }
    }

    /// The newest lines; the cursor after them.
    async fn newest(&self, count: u32) -> Result<Option<String>, Failure> {
        let (mut lines, mut after) = (VecDeque::new(), None);
        let mut before = self.query.since.is_some().then(|| NO_CURSOR.to_owned());
        let mut left = count;
        while left > 0 {
            let page = self
                .page(|query| {
                    query.limit = Some(left.min(PAGE_LINES));
                    query.before.clone_from(&before);
                })
                .await?;
            after = after.or(page.next);
            let Some(first) = page.items.first() else {
                break;
            };
            before = Some(first.cursor.clone());
            left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
            for line in page.items.into_iter().rev() {
                lines.push_front(line);
            }
        }
        lines.iter().for_each(|line| print(line, self.printer));
        Ok(after)
    }

    async fn follow(self, after: Option<String>) -> Result<(), Failure> {
        let query = LogQuery {
            // Nothing was written yet: from the very beginning.
            after: after.or_else(|| Some("0".to_owned())),
            ..self.query
        };
        let mut lines = self.which.follow(&self.client, &query);
        loop {
            tokio::select! {
                line = lines.next::<LogLine>() => match line? {
                    Some((_, line)) => print(&line, self.printer),
                    None => return Ok(()),
                },
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

/// Where a line is in its log.
fn place(line: &LogLine) -> u64 {
    line.cursor.parse().unwrap_or(0)
}

fn print(line: &LogLine, printer: &Printer) {
    if printer.is_json() {
        printer.json(line);
        return;
    }
    let at = line.at.strftime("%FT%T%.3fZ");
    // Replicas are told apart by the end of their ids.
    let source = line
        .source
        .get(line.source.len().saturating_sub(4)..)
        .filter(|_| line.source.len() == 36);
    let source = source.unwrap_or(&line.source);
    if source.is_empty() {
        printer.line(format!("{at} {}", line.text));
    } else {
        printer.line(format!("{at} {source} | {}", line.text));
    }
}

/// A time, or how long ago.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    // Days and weeks have 24 hours here: logs know no calendar.
    let span = text.trim().parse::<Span>().ok();
    let ago = span.and_then(|span| {
        span.abs()
            .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
            .ok()
    });
    ago.and_then(|ago| now.checked_sub(ago).ok()).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no time"))
            .hint("give `10m`, `2h`, `1d` or `2026-01-31T12:00:00Z`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let at = |text| since(text, now).map(|at| at.to_string()).map_err(|f| f.exit);
        assert_eq!(at("10m"), Ok("2026-01-31T23:50:00Z".into()));
        assert_eq!(at("1d"), Ok("2026-01-31T00:00:00Z".into()));
        assert_eq!(at("2h30m"), Ok("2026-01-31T21:30:00Z".into()));
        assert_eq!(at("2026-01-01T00:00:00Z"), Ok("2026-01-01T00:00:00Z".into()));
        assert_eq!(at("yesterday"), Err(Exit::Usage));
    }
}
