//! Constant load of private connections from one service to another, over the stable address behind its name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::Failure;
use crate::http;

/// Callers at once.
const CALLERS: u32 = 4;
/// Every n-th call takes as long as a cut-over: it must keep its replica.
const SLOW_EVERY: u32 = 10;
/// How long such a one takes, in milliseconds.
const SLOW_MS: u32 = 2_500;

/// What callers have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls.
    pub made: u32,
    /// Versions that answered.
    pub versions: BTreeSet<String>,
    /// Calls that were not answered with 200, in words.
    pub lost: Vec<String>,
}

/// Running callers.
pub struct Callers {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Seen>,
}

impl Callers {
    /// Lets the application at `host` call `service` all the time, each time over a new connection.
    pub fn start(edge: SocketAddr, host: &str, service: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(
                edge,
                host.to_owned(),
                format!("http://{service}:8080"),
                stop.clone(),
            ));
        }
        Self { stop, callers }
    }

    /// Ends after the calls in hand.
    pub async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for seen in self.callers.join_all().await {
            all.made += seen.made;
            all.versions.extend(seen.versions);
            all.lost.extend(seen.lost);
        }
        all
    }
}

async fn call(edge: SocketAddr, host: String, service: String, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.made += 1;
        let path = match seen.made % SLOW_EVERY {
            0 => format!("/slow?ms={SLOW_MS}"),
            _ => "/".to_owned(),
        };
        match once(edge, &host, &format!("{service}{path}")).await {
            Ok(version) => _ = seen.versions.insert(version),
            Err(error) => seen.lost.push(error.to_string()),
        }
    }
    seen
}

/// The version that answered one private call.
///
/// # Errors
/// When the call was not answered with 200.
pub async fn once(edge: SocketAddr, host: &str, url: &str) -> Result<String, Failure> {
    let answer = http::get(edge, host, &format!("/fetch?url={url}")).await?;
    let met: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (met["status"].as_u64(), met["body"].as_str()) {
        (Some(200), Some(version)) => Ok(version.to_owned()),
        _ => Err(format!("{} {}", answer.status, answer.body).into()),
    }
}
