//! Why a replica that should run is not healthy, as soon as it is known: for whoever watches it.
//!
//! The sentences and codes are those with which a deployment fails at its deadline, without the time that has passed:
//! who watches is told each once, and again only when something else is the matter.

use std::net::Ipv4Addr;

use super::{ImageStanding, Problem, failure};
use crate::error::Report;
use crate::observation::{Health, Observation, was_asked};
use crate::settings::Settings;

/// A port that takes no connection is no news before this time after the start, in milliseconds.
pub const QUIET_START_MS: i64 = 2_000;

/// Why a replica is not healthy; none while it is, and while there is nothing to tell.
pub fn reason(
    seen: &Observation,
    settings: &Settings,
    port: Option<u16>,
    address: Ipv4Addr,
    now_ms: i64,
) -> Option<Report> {
    let (met, starting) = match &seen.health {
        Health::Healthy { .. } => return None,
        Health::Unhealthy { why } => (Some(why.as_str()), false),
        Health::Starting { last } => (last.as_deref(), true),
        Health::Down => (None, true),
    };
    if starting
        && seen.crashes > 0
        && let Some(exit) = &seen.last_exit
    {
        return Some(failure::ended(exit, seen.crashes - 1, settings));
    }
    let port = port?;
    if let Some(met) = met.filter(|met| was_asked(met)) {
        return Some(failure::refused_health(format!(
            "the health check does not succeed: {met}"
        )));
    }
    if !seen.listens_on.is_empty() {
        return Some(failure::elsewhere(&seen.listens_on, port, address));
    }
    let met = met?;
    let young = seen
        .started_at_ms
        .is_none_or(|started_ms| now_ms.saturating_sub(started_ms) < QUIET_START_MS);
    if starting && young {
        return None;
    }
    let text = if starting {
        "does not listen yet"
    } else {
        "does not answer any more"
    };
    Some(failure::not_listening(format!("the application {text}: {met}")))
}

/// Why a deployment has no replica that runs, as far as the engine said it.
pub fn reason_without_replica(image: &ImageStanding, problems: &[Problem]) -> Option<Report> {
    if let ImageStanding::Failed { why, .. } = image {
        return Some(failure::image(why));
    }
    problems.first().map(|problem| match problem {
        Problem::CannotStart { why, .. } => failure::cannot_start(why),
        Problem::Engine { why } => Report::new(
            "engine_unavailable",
            format!("the engine does not do what is asked: {why}"),
        )
        .with_hint("it is tried again; `ferrovia doctor` tells what is wrong with the engine"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DeploymentId, InstanceId, ReplicaId};
    use crate::observation::asked;
    use crate::workload::Exit;

    const NOW_MS: i64 = 100_000;

    fn seen(health: Health) -> Observation {
        let nil = uuid::Uuid::nil();
        Observation {
            replica_id: ReplicaId::from_uuid(nil),
            deployment_id: DeploymentId::from_uuid(nil),
            instance_id: InstanceId::from_uuid(nil),
            handle: "c".into(),
            started_at_ms: Some(NOW_MS - QUIET_START_MS),
            health,
            last_exit: None,
            crashes: 0,
            listens_on: Vec::new(),
            root_status: None,
            log_drained: false,
            seen_at_ms: NOW_MS,
        }
    }

    fn starting(last: &str) -> Observation {
        seen(Health::Starting {
            last: Some(last.into()),
        })
    }

    fn told(seen: &Observation) -> Option<(String, String)> {
        let address = Ipv4Addr::new(10, 210, 0, 7);
        let report = reason(seen, &Settings::default(), Some(8080), address, NOW_MS)?;
        Some((report.code, format!("{}; {}", report.message, report.hint?)))
    }

    #[test]
    fn nothing_is_told_of_the_healthy_and_of_the_just_started() {
        assert_eq!(told(&seen(Health::Healthy { since_ms: 1 })), None);
        assert_eq!(told(&seen(Health::Starting { last: None })), None);
        let mut young = starting("port 8080 refuses connections");
        young.started_at_ms = Some(NOW_MS - QUIET_START_MS + 1);
        assert_eq!(told(&young), None);
    }

    #[test]
    fn each_reason_has_its_remedy() {
        let exit = |code, out_of_memory| Exit {
            code,
            out_of_memory,
            at_ms: 0,
            error: None,
        };
        let refused = "port 8080 refuses connections";
        let mut loopback = starting(refused);
        loopback.listens_on = vec!["127.0.0.1:3000".into()];
        let mut crashed = starting(refused);
        (crashed.crashes, crashed.last_exit) = (2, Some(exit(7, false)));
        let mut killed = seen(Health::Down);
        (killed.crashes, killed.last_exit) = (1, Some(exit(137, true)));
        let mut silent = crashed.clone();
        silent.health = Health::Unhealthy { why: refused.into() };
        let refusing = starting(&format!("{} answered 503", asked("/health")));
        for (seen, code, part) in [
            (starting(refused), "app_not_listening", refused),
            (loopback, "app_not_listening", "bind 0.0.0.0:$PORT"),
            (crashed, "app_crashed", "exited with code 7, also after a restart"),
            (killed, "app_out_of_memory", "512 MiB"),
            (silent, "app_not_listening", "does not answer any more"),
            (refusing, "app_unhealthy", "`GET /health` answered 503"),
        ] {
            let (told_code, text) = told(&seen).unwrap();
            assert_eq!(told_code, code);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_worker_has_no_port_to_listen_on() {
        let address = Ipv4Addr::new(10, 210, 0, 7);
        let waiting = starting("port 8080 refuses connections");
        assert_eq!(
            reason(&waiting, &Settings::default(), None, address, NOW_MS),
            None
        );
    }
}
