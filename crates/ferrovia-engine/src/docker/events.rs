//! Docker's events as hints. Docker sends nothing while nothing happens, so silence is no failure by itself: after a
//! while of it the engine is asked whether it lives, and the stream ends when it does not answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use serde::Deserialize;

use super::api::{Api, Ask, Refusal, read};
use super::labels;
use crate::{Error, Hint};

/// Silence after which the engine is asked whether it lives, in milliseconds.
const SILENCE_MS: u64 = 30_000;
/// How long the engine may take to say that it lives, in milliseconds.
const PING_TIMEOUT_MS: u64 = 10_000;
/// How long the stream may take to begin, in milliseconds. Docker answers at once.
const OPEN_TIMEOUT_MS: u64 = 30_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    actor: Actor,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    attributes: Option<BTreeMap<String, String>>,
}

/// The hints of an installation's replicas from now on.
pub(super) async fn open(
    api: Arc<Api>,
    installation: &str,
) -> Result<BoxStream<'static, Result<Hint, Error>>, Error> {
    let filters = serde_json::json!({
        "type": ["container"],
        "event": ["create", "start", "die", "oom", "destroy", "pause", "unpause", "update"],
        "label": labels::filter(installation, crate::Scope::All),
    });
    let ask = Ask::get("/events", OPEN_TIMEOUT_MS).query(&[("filters", &filters.to_string())]);
    let lines = api
        .stream(ask)
        .await
        .map_err(|refusal| refusal.into_error("events"))?;
    Ok(unfold(Some((api, lines)), next).boxed())
}

type Lines = BoxStream<'static, io::Result<Bytes>>;

async fn next(state: Option<(Arc<Api>, Lines)>) -> Option<(Result<Hint, Error>, Option<(Arc<Api>, Lines)>)> {
    let (api, mut lines) = state?;
    loop {
        match tokio::time::timeout(Duration::from_millis(SILENCE_MS), lines.next()).await {
            Ok(Some(Ok(line))) => {
                if let Some(hint) = hint(&line) {
                    return Some((Ok(hint), Some((api, lines))));
                }
            }
            Ok(Some(Err(error))) => return Some((Err(Error::Unavailable(error.to_string())), None)),
            Ok(None) => return None,
            Err(_) => {
                if let Err(refusal) = ping(&api).await {
                    return Some((Err(refusal.into_error("ping")), None));
                }
            }
        }
    }
}

async fn ping(api: &Api) -> Result<(), Refusal> {
    api.ask(Ask::get("/_ping", PING_TIMEOUT_MS)).await.map(|_| ())
}

fn hint(line: &[u8]) -> Option<Hint> {
    let event: Event = read(line).ok()?;
    let instance_id = labels::get(&event.actor.attributes?, labels::INSTANCE_ID)?;
    Some(Hint { instance_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_whose_it_is() {
        let line = r#"{"Type":"container","Action":"die","Actor":{"ID":"1","Attributes":{"exitCode":"1",
            "ferrovia.instance_id":"0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e"}},"time":1}"#;
        assert_eq!(hint(line.as_bytes()).unwrap().instance_id.short(), "3f6a1c2b4d5e");
        assert_eq!(hint(b"{}"), None);
    }
}
