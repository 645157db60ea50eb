//! What Docker is asked to make for a replica. Pure: a workload in, a request's body out.
//!
//! The profile is the same for every application: the few capabilities that official images of nginx, PostgreSQL and
//! Redis need to take their files over and to drop privileges, no way to gain more, Docker's default seccomp filter,
//! an init process that reaps and forwards signals, memory without swap. The image's own health check is turned off:
//! `node` probes from outside, and a check inside would cost every idle application a process each half minute.

use std::net::Ipv4Addr;

use ferrovia_core::network::Bridge;
use ferrovia_core::table::hardware_address;
use ferrovia_core::workload::Workload;
use serde_json::{Value, json};

use super::labels::Labels;

/// Capabilities that a replica keeps.
pub(super) const CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];
/// Applications are killed before the platform when the host's memory ends.
const OOM_SCORE: i32 = 500;
/// Size at which a log file is rotated, for Docker.
const LOG_FILE_SIZE: &str = "16m";
/// Log files that are kept: what the log reader may be behind, 64 MiB.
const LOG_FILES: &str = "4";
/// Docker's shares for a weight of 100.
const USUAL_CPU_SHARES: u64 = 1024;
/// Fewest shares that Docker takes.
const LEAST_CPU_SHARES: u64 = 2;
/// Longest `NAME=VALUE` that Linux hands to a process, with the NUL at its end, in bytes (32 pages).
const MAX_VARIABLE_BYTES: usize = 128 << 10;
/// Most bytes that all variables may have: Linux gives a quarter of the stack (2 MiB of 8), the image's own variables
/// and the arguments share it.
const MAX_VARIABLES_BYTES: usize = 1536 << 10;
/// The variable that names the replica.
const REPLICA_VARIABLE: &str = "FERROVIA_REPLICA_ID";

/// Everything that a replica's container is made from.
pub(super) struct Plan<'a> {
    pub workload: &'a Workload,
    pub name: &'a str,
    pub labels: Labels,
    pub bridge: &'a Bridge,
    pub address: Ipv4Addr,
    /// File on the host that becomes `/etc/resolv.conf`.
    pub resolver_file: &'a str,
    /// Whether the engine takes the hardware address with the endpoint (API 1.44) or with the container.
    pub mac_at_endpoint: bool,
}

impl Plan<'_> {
    /// The body of the request that creates it.
    pub(super) fn body(&self) -> Value {
        let workload = self.workload;
        let resources = &workload.resources;
        let mac = hardware_address(self.address);
        let mut endpoint = json!({ "IPAMConfig": { "IPv4Address": self.address } });
        let mut body = json!({
            "Image": workload.image.to_string(),
            "Hostname": workload.owner.service.as_str(),
            "Env": self.environment(),
            "Labels": self.labels,
            "Healthcheck": { "Test": ["NONE"] },
            "StopTimeout": workload.stop_grace_ms.div_ceil(1000),
            "HostConfig": {
                "NetworkMode": self.bridge.interface,
                "RestartPolicy": { "Name": "no" },
                "Init": true,
                "CapDrop": ["ALL"],
                "CapAdd": CAPABILITIES,
                "SecurityOpt": ["no-new-privileges:true"],
                "PidsLimit": resources.pids,
                "Memory": resources.memory_bytes,
                "MemorySwap": resources.memory_bytes,
                "CpuShares": (u64::from(resources.cpu_weight) * USUAL_CPU_SHARES / 100).max(LEAST_CPU_SHARES),
                "NanoCpus": resources.cpu_quota_millis.map_or(0, |millis| u64::from(millis) * 1_000_000),
                "OomScoreAdj": OOM_SCORE,
                "LogConfig": {
                    "Type": "json-file",
                    "Config": { "max-size": LOG_FILE_SIZE, "max-file": LOG_FILES, "compress": "false" },
                },
                "Mounts": self.mounts(),
            },
        });
        if let Some(command) = workload.command.as_ref().filter(|command| !command.is_empty()) {
            body["Entrypoint"] = json!(command);
        }
        if self.mac_at_endpoint {
            endpoint["MacAddress"] = json!(mac);
        } else {
            body["MacAddress"] = json!(mac);
        }
        body["NetworkingConfig"] = json!({ "EndpointsConfig": { self.bridge.interface.as_str(): endpoint } });
        body
    }

    /// Why the variables cannot be handed to a process. Docker does not say it: with an init process in between, the
    /// container starts and ends at once.
    pub(super) fn too_large(&self) -> Option<String> {
        let size = |name: &str, value: usize| name.len() + value + 2;
        let variables = &self.workload.variables;
        let sizes = variables
            .iter()
            .map(|(name, value)| (name, size(name, value.expose().len())));
        if let Some((name, bytes)) = sizes.clone().find(|(_, bytes)| *bytes > MAX_VARIABLE_BYTES) {
            return Some(format!(
                "the variable `{name}` has {bytes} bytes with its name; Linux takes {MAX_VARIABLE_BYTES} at most"
            ));
        }
        let all: usize = sizes.map(|(_, bytes)| bytes).sum();
        (all > MAX_VARIABLES_BYTES).then(|| {
            format!(
                "all variables together have {all} bytes; a process can take {MAX_VARIABLES_BYTES} of them"
            )
        })
    }

    /// `NAME=VALUE` with each name once, the last value of it.
    fn environment(&self) -> Vec<String> {
        let given = &self.workload.variables;
        let hidden = |at: usize, name: &str| {
            name == REPLICA_VARIABLE || given[at + 1..].iter().any(|(later, _)| later == name)
        };
        let kept = given
            .iter()
            .enumerate()
            .filter(|(at, (name, _))| !hidden(*at, name));
        let mut environment: Vec<String> = kept
            .map(|(_, (name, value))| format!("{name}={}", value.expose()))
            .collect();
        environment.push(format!("{REPLICA_VARIABLE}={}", self.name));
        environment
    }

    fn mounts(&self) -> Vec<Value> {
        let bind = |source: &str, target: &str, read_only: bool| json!({ "Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only });
        let mut mounts = vec![bind(self.resolver_file, "/etc/resolv.conf", true)];
        mounts.extend(
            self.workload
                .mounts
                .iter()
                .map(|mount| bind(&mount.source, &mount.target, false)),
        );
        mounts
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_core::network::AddressPlan;
    use ferrovia_core::secret::Secret;

    use super::*;
    use crate::sample;

    fn body(workload: &Workload, mac_at_endpoint: bool) -> Value {
        plan(workload, mac_at_endpoint, |plan| plan.body())
    }

    fn plan<T>(workload: &Workload, mac_at_endpoint: bool, look: impl FnOnce(&Plan<'_>) -> T) -> T {
        let bridge = AddressPlan::default().bridge(0).unwrap();
        let slot = &workload.replicas[0];
        let plan = Plan {
            workload,
            name: "fv-shop-production-web-v1-1",
            labels: super::super::labels::of_replica("i", workload, slot),
            bridge: &bridge,
            address: slot.address.unwrap(),
            resolver_file: "/f/resolv",
            mac_at_endpoint,
        };
        look(&plan)
    }

    #[test]
    fn values_are_taken_literally_and_once() {
        let mut workload = sample::workload(1, 1);
        let value = "a=$b \"c\"\nd \u{1F980}";
        let pairs = [
            ("A", "old"),
            ("B", value),
            ("A", "new"),
            ("FERROVIA_REPLICA_ID", "forged"),
        ];
        workload.variables = pairs
            .map(|(name, value)| (name.to_owned(), Secret::new(value)))
            .to_vec();
        let environment = body(&workload, false)["Env"].clone();
        assert_eq!(
            environment,
            json!([
                format!("B={value}"),
                "A=new",
                "FERROVIA_REPLICA_ID=fv-shop-production-web-v1-1"
            ])
        );
    }

    #[test]
    fn what_linux_does_not_take_is_said_before() {
        let mut workload = sample::workload(1, 1);
        let mut too_large = |count: usize, bytes: usize| {
            workload.variables = (0..count)
                .map(|n| (format!("V{n:03}"), Secret::new("x".repeat(bytes))))
                .collect();
            plan(&workload, true, |plan| plan.too_large())
        };
        assert_eq!(too_large(1, (128 << 10) - 6), None);
        assert!(
            too_large(1, (128 << 10) - 5)
                .unwrap()
                .contains("`V000` has 131073 bytes")
        );
        assert_eq!(too_large(15, 100 << 10), None);
        assert!(
            too_large(16, 100 << 10)
                .unwrap()
                .starts_with("all variables together")
        );
    }

    #[test]
    fn the_hardware_address_stands_where_the_version_wants_it() {
        let workload = sample::workload(1, 1);
        let old = body(&workload, false);
        assert_eq!(old["MacAddress"], "02:fe:0a:d2:00:11");
        let new = body(&workload, true);
        assert_eq!(new["MacAddress"], Value::Null);
        assert_eq!(
            new["NetworkingConfig"]["EndpointsConfig"]["fv0"]["MacAddress"],
            "02:fe:0a:d2:00:11"
        );
    }

    #[test]
    fn limits_are_docker_s() {
        let mut workload = sample::workload(1, 1);
        workload.resources.cpu_quota_millis = Some(1500);
        workload.command = Some(vec!["/bin/sh".into(), "-c".into(), "echo $HOME".into()]);
        workload.stop_grace_ms = 1;
        let body = body(&workload, false);
        let host = &body["HostConfig"];
        assert_eq!(
            (&host["CpuShares"], &host["NanoCpus"]),
            (&json!(1024), &json!(1_500_000_000_u64))
        );
        assert_eq!(host["Memory"], host["MemorySwap"]);
        assert_eq!(
            (&body["StopTimeout"], &body["Entrypoint"][2]),
            (&json!(1), &json!("echo $HOME"))
        );
    }
}
