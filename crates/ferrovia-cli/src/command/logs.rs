//! `logs`: what the application wrote, or the build.

use ferrovia_api::client::{Client, Follow, InstancePath, LogQuery};
use ferrovia_api::log::{LogLine, LogPage};
use jiff::{Span, Timestamp};
use uuid::Uuid;

use super::Session;
use crate::args::Logs;
use crate::failure::{Exit, Failure};
use crate::printer::Printer;

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
        let instance = client.instance(&path).await?;
        let latest = instance.latest.ok_or_else(|| {
            Failure::new(
                "nothing_deployed",
                format!("`{}` was never deployed", path.service),
            )
            .hint("run `ferrovia up`")
        })?;
        Which::Build(latest.build_id)
    } else {
        Which::Instance(path)
    };
    let since = args
        .since
        .as_deref()
        .map(|text| since(text, Timestamp::now()))
        .transpose()?;
    let mut query = LogQuery {
        since: since.map(|at| at.to_string()),
        contains: args.filter.clone(),
        ..LogQuery::default()
    };
    let mut left = args.limit;
    let mut after = None;
    loop {
        query.limit = Some(left.min(1000));
        query.after.clone_from(&after);
        let page = which.page(&client, &query).await?;
        let count = u32::try_from(page.items.len()).unwrap_or(u32::MAX);
        page.items.iter().for_each(|line| print(line, session.printer));
        // Nothing was written yet: follow from the very beginning.
        after = page.next.or(after).or_else(|| Some("0".to_owned()));
        left = left.saturating_sub(count);
        // Without a beginning the newest lines were asked for, at once.
        if left == 0 || count == 0 || args.since.is_none() {
            break;
        }
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    query.limit = None;
    query.after = after;
    let mut lines = which.follow(&client, &query);
    loop {
        tokio::select! {
            line = lines.next::<LogLine>() => match line? {
                Some((_, line)) => print(&line, session.printer),
                None => return Ok(Exit::Done),
            },
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
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
