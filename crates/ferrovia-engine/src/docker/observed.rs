//! What Docker says of a container, as the platform sees it. Only the fields that are used are read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ferrovia_core::workload::{EngineRestart, Exit, Observed, ReplicaStatus};
use serde::Deserialize;

use super::labels::{self, Labels};
use super::words;

/// A run that ended within this time ended early: what a command that was not found does, in milliseconds.
const EARLY_MS: i64 = 2_000;

/// A container as `inspect` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub id: String,
    pub name: String,
    created: String,
    pub path: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    pub state: State,
    #[serde(default)]
    restart_count: u32,
    log_path: Option<String>,
    config: Config,
    host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    pub status: String,
    #[serde(default)]
    pub pid: u32,
    #[serde(default)]
    exit_code: i32,
    #[serde(default, rename = "OOMKilled")]
    oom_killed: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    finished_at: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<Labels>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: Option<RestartPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<Ipam>,
}

#[derive(Debug, Deserialize)]
struct Ipam {
    #[serde(rename = "IPv4Address")]
    address: Option<Ipv4Addr>,
}

impl Inspected {
    /// Its labels.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it never ran, and Docker was not asked in vain either.
    pub(super) fn never_started(&self) -> bool {
        self.state.status == "created" && self.state.error.is_empty()
    }

    /// Whether its process is there.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.status.as_str(), "running" | "paused") && self.state.pid != 0
    }

    /// Where its log is written.
    pub(super) fn log_path(&self) -> Option<&str> {
        self.log_path.as_deref().filter(|path| !path.is_empty())
    }

    /// As the platform sees it; `None` when its labels are not those of a replica.
    pub(super) fn observed(&self) -> Option<Observed> {
        let labels = self.config.labels.as_ref()?;
        let networks = self.network_settings.networks.as_ref();
        let mut endpoints = networks.into_iter().flat_map(BTreeMap::values);
        Some(Observed {
            handle: self.id.clone(),
            name: self.name.trim_start_matches('/').to_owned(),
            replica_id: labels::get(labels, labels::REPLICA_ID)?,
            deployment_id: labels::get(labels, labels::DEPLOYMENT_ID)?,
            instance_id: labels::get(labels, labels::INSTANCE_ID)?,
            environment_id: labels::get(labels, labels::ENVIRONMENT_ID)?,
            ordinal: labels::get(labels, labels::ORDINAL)?,
            spec_hash: labels.get(labels::SPEC_HASH)?.clone(),
            status: self.status(),
            address: endpoints.find_map(|endpoint| endpoint.ipam.as_ref()?.address),
            started_at_ms: milliseconds(&self.state.started_at),
            last_exit: matches!(self.state.status.as_str(), "exited" | "restarting").then(|| self.exit()),
            engine_restarts: self.restart_count,
            restart: match self
                .host_config
                .restart_policy
                .as_ref()
                .map(|policy| policy.name.as_str())
            {
                Some("unless-stopped" | "always") => EngineRestart::UnlessStopped,
                _ => EngineRestart::No,
            },
        })
    }

    fn status(&self) -> ReplicaStatus {
        match self.state.status.as_str() {
            "created" if self.state.error.is_empty() => ReplicaStatus::Created,
            "created" | "exited" => ReplicaStatus::Exited(self.exit()),
            "running" | "stopping" => ReplicaStatus::Running,
            "paused" => ReplicaStatus::Paused,
            "restarting" => ReplicaStatus::Restarting,
            _ => ReplicaStatus::Dead,
        }
    }

    /// Docker marks a container as killed for its memory when any of its processes was, and only once its first
    /// process has ended; one that then ended with 0 by itself was not killed.
    fn exit(&self) -> Exit {
        let state = &self.state;
        let begun = milliseconds(&state.started_at);
        // Docker notes the end of a very short run before its start.
        let ended = milliseconds(&state.finished_at).max(begun);
        let at_ms = ended.or_else(|| milliseconds(&self.created)).unwrap_or(0);
        let error = if state.error.is_empty() {
            let ran_ms = begun.map_or(0, |begun| at_ms - begun);
            self.command()
                .filter(|_| ran_ms < EARLY_MS)
                .and_then(|command| words::early_exit(state.exit_code, command))
        } else {
            Some(words::cannot_start(&state.error).unwrap_or_else(|| state.error.clone()))
        };
        Exit {
            code: state.exit_code,
            out_of_memory: state.oom_killed && state.exit_code != 0,
            at_ms,
            error,
        }
    }

    fn command(&self) -> Option<&str> {
        self.path
            .as_deref()
            .or_else(|| self.args.first().map(String::as_str))
    }
}

/// A time of Docker's in milliseconds since 1970; `None` for its zero.
fn milliseconds(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_millisecond()).filter(|at_ms| *at_ms > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inspected(state: serde_json::Value) -> Inspected {
        let id = "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e";
        let value = json!({
            "Id": "ab", "Name": "/fv-a-b-c-v1-1", "Created": "2026-01-01T00:00:00.5Z", "Path": "/run", "Args": [],
            "State": state, "RestartCount": 2, "LogPath": "/l", "HostConfig": { "RestartPolicy": { "Name": "no" } },
            "Config": { "Labels": { "ferrovia.replica_id": id, "ferrovia.deployment_id": id, "ferrovia.spec_hash": "h",
                "ferrovia.instance_id": id, "ferrovia.environment_id": id, "ferrovia.ordinal": "1" } },
            "NetworkSettings": { "Networks": { "fv0": { "IPAMConfig": { "IPv4Address": "10.210.0.5" } } } },
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_container_that_ended_says_how() {
        let zero = "0001-01-01T00:00:00Z";
        let (begun, ended) = ("2026-01-01T00:00:01.25Z", "2026-01-01T00:00:02Z");
        let observed = |state| inspected(state).observed().unwrap();
        let created = observed(json!({ "Status": "created", "StartedAt": zero, "FinishedAt": zero }));
        assert_eq!(
            (created.status, created.started_at_ms),
            (ReplicaStatus::Created, None)
        );
        assert_eq!(created.address, Some(Ipv4Addr::new(10, 210, 0, 5)));
        let killed = observed(
            json!({ "Status": "exited", "ExitCode": 137, "OOMKilled": true, "Error": "",
            "StartedAt": begun, "FinishedAt": ended }),
        );
        let ReplicaStatus::Exited(exit) = killed.status else {
            panic!("{killed:?}")
        };
        assert_eq!(
            (exit.code, exit.out_of_memory, exit.at_ms, exit.error),
            (137, true, 1_767_225_602_000, None)
        );
        let missing =
            observed(json!({ "Status": "exited", "ExitCode": 127, "StartedAt": begun, "FinishedAt": ended }));
        assert!(
            matches!(missing.status, ReplicaStatus::Exited(Exit { error: Some(why), .. }) if why.contains("`/run`"))
        );
        let refused = observed(
            json!({ "Status": "created", "ExitCode": 127, "StartedAt": zero, "FinishedAt": zero,
            "Error": "unable to find user app: no matching entries in passwd file" }),
        );
        assert!(matches!(
            refused.status,
            ReplicaStatus::Exited(Exit {
                at_ms: 1_767_225_600_500,
                ..
            })
        ));
    }
}
