//! Why a deployment failed, in a sentence that says what to do.

use std::net::Ipv4Addr;

use super::{Attempt, Readers};
use crate::error::Report;
use crate::observation::{Health, Observation, was_asked};
use crate::settings::Settings;
use crate::table::Audience;
use crate::workload::Exit;

const MIB: u64 = 1024 * 1024;

/// It ended, and was started again `restarts` times.
pub(super) fn ended(exit: &Exit, restarts: u32, settings: &Settings) -> Report {
    if exit.out_of_memory {
        let mib = settings.resources.memory_bytes / MIB;
        return Report::new(
            "app_out_of_memory",
            format!("the application was killed at its memory limit of {mib} MiB"),
        )
        .with_hint("raise the service's memory limit, or make the application use less");
    }
    if let Some(why) = &exit.error {
        return cannot_start(why);
    }
    let how = match exit.code {
        code @ 129..=192 => format!("was ended by signal {}", code - 128),
        code => format!("exited with code {code}"),
    };
    let again = match restarts {
        0 => String::new(),
        1 => ", also after a restart".to_owned(),
        more => format!(", also after {more} restarts"),
    };
    let report = Report::new("app_crashed", format!("the application {how}{again}"));
    match exit.code {
        0 => report
            .with_hint("a service must keep running: check that the start command runs in the foreground"),
        126 | 127 => {
            report.with_hint("check the start command: the program was not found or cannot be executed")
        }
        _ => report.with_hint("look at its last log lines: `ferrovia logs`"),
    }
}

/// The engine refuses to start it.
pub(super) fn cannot_start(why: &str) -> Report {
    Report::new(
        "app_cannot_start",
        format!("the container cannot be started: {why}"),
    )
    .with_hint("check the start command and that the program is in the image")
}

/// The image does not come.
pub(super) fn image(why: &str) -> Report {
    Report::new("image_unavailable", format!("the image cannot be fetched: {why}"))
        .with_hint("deploy again with a rebuild; `ferrovia doctor` tells whether the registry answers")
}

/// The image is still on its way at the deadline.
pub(super) fn image_slow(seconds: u32) -> Report {
    Report::new(
        "image_unavailable",
        format!("the image was not on the engine after {seconds} s"),
    )
    .with_hint("make the image smaller or raise the service's start deadline")
}

/// The engine does not do what is asked.
pub(super) fn engine(why: Option<&str>, seconds: u32) -> Report {
    let because = why.map_or_else(String::new, |why| format!(": {why}"));
    Report::new(
        "engine_unavailable",
        format!("the engine did not run the application within {seconds} s{because}"),
    )
    .with_hint("`ferrovia doctor` tells what is wrong with the engine; then deploy again")
}

/// It runs, and no node says how it does.
pub(super) fn unseen(seconds: u32) -> Report {
    Report::new(
        "node_unavailable",
        format!("the application runs, but no node told of its health within {seconds} s"),
    )
    .with_hint("see that `ferroviad node` runs; `ferrovia doctor` tells why not")
}

/// Edges or nodes did not take the tables.
pub(super) fn not_acknowledged(readers: &Readers, seconds: u32) -> Report {
    for (audience, code, process) in [
        (Audience::Node, "node_unavailable", "node"),
        (Audience::Edge, "edge_unavailable", "edge"),
    ] {
        if readers.audiences.contains(&audience) && !readers.live_cover(audience, 0) {
            return Report::new(code, format!("no {process} was connected for {seconds} s"))
                .with_hint(format!("see that `ferroviad {process}` runs, then deploy again"));
        }
    }
    let behind: Vec<&str> = readers
        .readers
        .iter()
        .filter(|reader| reader.connected)
        .map(|reader| reader.name.as_str())
        .collect();
    Report::new(
        "tables_not_acknowledged",
        format!(
            "not every edge and node took the new tables within {seconds} s; connected are: {}",
            behind.join(", ")
        ),
    )
    .with_hint("look at the logs of the edges and nodes, then deploy again")
}

/// It runs and does not answer as it should.
pub(super) fn not_healthy(seen: &Observation, attempt: &Attempt, address: Ipv4Addr, seconds: u32) -> Report {
    let last = match &seen.health {
        Health::Starting { last } => last.clone(),
        Health::Unhealthy { why } => Some(why.clone()),
        Health::Down | Health::Healthy { .. } => None,
    };
    let Some(port) = attempt.port else {
        return Report::new(
            "start_deadline",
            format!("the application was not ready after {seconds} s"),
        )
        .with_hint("look at its log, or raise the service's start deadline");
    };
    if let Some(last) = last.as_deref().filter(|last| was_asked(last)) {
        return refused_health(format!(
            "the health check did not succeed within {seconds} s: {last}"
        ));
    }
    if seen.listens_on.is_empty() {
        let met = last.map_or_else(String::new, |last| format!(": {last}"));
        return not_listening(format!("nothing listens on port {port} after {seconds} s{met}"));
    }
    elsewhere(&seen.listens_on, port, address)
}

/// Its health path does not answer as it should.
pub(super) fn refused_health(message: String) -> Report {
    Report::new("app_unhealthy", message)
        .with_hint("make the health path answer below 400, or set another one")
}

/// It listens nowhere.
pub(super) fn not_listening(message: String) -> Report {
    Report::new("app_not_listening", message)
        .with_hint("listen on 0.0.0.0:$PORT; for a service without a port, set the port to `none`")
}

/// It listens somewhere else.
pub(super) fn elsewhere(listens_on: &[String], port: u16, address: Ipv4Addr) -> Report {
    Report::new(
        "app_not_listening",
        format!(
            "listens on {}; nothing answers on port {port}",
            listens_on.join(", ")
        ),
    )
    .with_hint(wrong_place(listens_on, port, address))
}

/// The remedy for an application that listens somewhere else.
fn wrong_place(listens_on: &[String], port: u16, address: Ipv4Addr) -> String {
    let reachable =
        |host: &str| matches!(host, "0.0.0.0" | "*" | "[::]" | "::") || host == address.to_string();
    let other = listens_on.iter().find_map(|place| {
        let (host, other) = place.rsplit_once(':')?;
        (reachable(host) && other != port.to_string()).then_some(other)
    });
    match other {
        Some(other) => format!("listen on $PORT, or set the service's port to {other}"),
        None => "bind 0.0.0.0:$PORT: on 127.0.0.1 only the application itself can reach it".to_owned(),
    }
}

/// It serves, but its first page is an error.
pub(super) fn root_answers(status: u16) -> Report {
    Report::new("root_answers_5xx", format!("`GET /` answers {status}"))
        .with_hint("set a health path so that a version that answers errors does not take over")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_taken_is_told_from_one_that_was_not() {
        assert!(was_asked(&format!(
            "{} answered 500",
            crate::observation::asked("/health")
        )));
        assert!(!was_asked("connection refused"));
    }

    #[test]
    fn the_remedy_fits_where_it_listens() {
        let address = Ipv4Addr::new(10, 210, 0, 7);
        let remedy = |places: &[&str]| {
            let places: Vec<String> = places.iter().map(|place| (*place).to_owned()).collect();
            wrong_place(&places, 8080, address)
        };
        assert!(remedy(&["127.0.0.1:3000"]).starts_with("bind 0.0.0.0:$PORT"));
        assert!(remedy(&["0.0.0.0:3000"]).ends_with("port to 3000"));
        assert!(remedy(&["[::]:5000", "127.0.0.1:8080"]).ends_with("port to 5000"));
        assert!(remedy(&["127.0.0.1:8080"]).starts_with("bind 0.0.0.0"));
    }

    #[test]
    fn killed_by_memory_is_said_as_such() {
        let exit = Exit {
            code: 137,
            out_of_memory: true,
            at_ms: 0,
            error: None,
        };
        let report = ended(&exit, 3, &Settings::default());
        assert_eq!(report.code, "app_out_of_memory");
        assert!(report.message.contains("512 MiB"));
    }
}
