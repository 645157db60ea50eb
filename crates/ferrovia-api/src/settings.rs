//! Settings of an instance, and the partial form in which they are changed.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Everything that can be set for a service in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// Where the application listens.
    pub port: PortSetting,
    /// Path that must answer below 400 for a replica to be healthy; null: a TCP connect is enough.
    pub health_path: Option<String>,
    /// How long a new version may take to become healthy, in milliseconds.
    pub start_deadline_ms: u32,
    /// How long an old version may finish what it has in hand, in milliseconds.
    pub drain_ms: u32,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub stop_grace_ms: u32,
    /// What happens when a replica ends.
    pub restart: RestartPolicy,
    /// Limits of one replica.
    pub resources: Resources,
    /// Command that replaces the image's own, run by `/bin/sh -c`.
    pub start_command: Option<String>,
    /// How the image is made.
    pub build: BuildSettings,
    /// Whether replicas also get the variables under Railway's names.
    pub railway_variables: bool,
}

/// Where an application listens: a port, `auto` (the image's only EXPOSE, else 8080) or `none` (no URL, no probe).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a port from 1 to 65535, `auto` or `none`")]
pub enum PortSetting {
    /// This port.
    Number(u16),
    /// A word.
    Word(PortWord),
}

/// A port that is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortWord {
    /// The image's only EXPOSE, else 8080.
    Auto,
    /// Nowhere: no URL, no probe.
    None,
}

/// What happens when a replica of a deployment that had succeeded ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartPolicy {
    /// Started again whatever its exit code.
    Always,
    /// Started again unless it exited with 0.
    OnFailure {
        /// Crashes in a row after which it stays down.
        #[schema(maximum = 1000)]
        max_tries: u32,
    },
    /// Never started again.
    Never,
}

/// Limits of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Memory, in bytes; past it the kernel kills the replica.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Share of the CPU against other replicas when there is not enough (1 to 1,000, 100 is usual).
    pub cpu_weight: u32,
    /// Hard limit in thousandths of a core; null: what is idle may be used.
    pub cpu_quota_millis: Option<u32>,
}

/// How an image is made from source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildSettings {
    /// Which builder; null: a `Dockerfile` if there is one, else detection.
    pub builder: Option<BuilderKind>,
    /// Directory of the tree that is built, relative, `/`-separated.
    pub root_directory: Option<String>,
    /// Path of the Dockerfile, relative to the root directory.
    pub dockerfile: Option<String>,
    /// Stage of the Dockerfile to build.
    pub target: Option<String>,
    /// Command that replaces the detected install step.
    pub install_command: Option<String>,
    /// Command that replaces the detected build step.
    pub build_command: Option<String>,
    /// Forces a provider of detection: `node`, `python`, `go`, `rust`, `java`, `static`, `procfile`.
    pub provider: Option<String>,
    /// Variables marked "not secret" that are handed to the build as build arguments.
    pub arguments: Vec<String>,
}

/// What makes an image from source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuilderKind {
    /// The tree's own Dockerfile.
    Dockerfile,
    /// Detection, a plan and a rendered Dockerfile.
    Auto,
}

/// Tells a field that is null from one that is absent.
fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A change of settings: what is absent stays, what is null goes back to its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsPatch {
    /// Where the application listens.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PortSetting>)]
    pub port: Option<Option<PortSetting>>,
    /// Path that must answer below 400 for a replica to be healthy.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^/", max_length = 1024)]
    pub health_path: Option<Option<String>>,
    /// How long a new version may take to become healthy, in milliseconds.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1000, maximum = 3600000)]
    pub start_deadline_ms: Option<Option<u32>>,
    /// How long an old version may finish what it has in hand, in milliseconds.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, maximum = 3600000)]
    pub drain_ms: Option<Option<u32>>,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, maximum = 600000)]
    pub stop_grace_ms: Option<Option<u32>>,
    /// What happens when a replica ends.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RestartPolicy>)]
    pub restart: Option<Option<RestartPolicy>>,
    /// Limits of one replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesPatch>,
    /// Command that replaces the image's own, run by `/bin/sh -c`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1)]
    pub start_command: Option<Option<String>>,
    /// How the image is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSettingsPatch>,
    /// Whether replicas also get the variables under Railway's names.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub railway_variables: Option<Option<bool>>,
}

/// A change of limits: what is absent stays, what is null goes back to its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourcesPatch {
    /// Memory, in bytes.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 6291456, maximum = 1099511627776_u64)]
    pub memory_bytes: Option<Option<u64>>,
    /// Processes and threads.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 65536)]
    pub pids: Option<Option<u32>>,
    /// Share of the CPU against other replicas.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub cpu_weight: Option<Option<u32>>,
    /// Hard limit in thousandths of a core.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 10, maximum = 1024000)]
    pub cpu_quota_millis: Option<Option<u32>>,
}

/// A change of how images are made: what is absent stays, what is null goes back to its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BuildSettingsPatch {
    /// Which builder.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BuilderKind>)]
    pub builder: Option<Option<BuilderKind>>,
    /// Directory of the tree that is built, relative, `/`-separated.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1024)]
    pub root_directory: Option<Option<String>>,
    /// Path of the Dockerfile, relative to the root directory.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1024)]
    pub dockerfile: Option<Option<String>>,
    /// Stage of the Dockerfile to build.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_.-]+$", max_length = 128)]
    pub target: Option<Option<String>>,
    /// Command that replaces the detected install step.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1)]
    pub install_command: Option<Option<String>>,
    /// Command that replaces the detected build step.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1)]
    pub build_command: Option<Option<String>>,
    /// Forces a provider of detection.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub provider: Option<Option<String>>,
    /// Variables marked "not secret" that are handed to the build as build arguments.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub arguments: Option<Option<Vec<String>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_two_things() {
        let patch: SettingsPatch = serde_json::from_str(r#"{"port":null,"drain_ms":5}"#).unwrap();
        assert_eq!(patch.port, Some(None));
        assert_eq!(patch.drain_ms, Some(Some(5)));
        assert_eq!(patch.health_path, None);
        assert_eq!(
            serde_json::to_string(&patch).unwrap(),
            r#"{"port":null,"drain_ms":5}"#
        );
    }

    #[test]
    fn ports() {
        let port = |text| serde_json::from_str::<PortSetting>(text).map_err(|error| error.to_string());
        assert_eq!(port("3000"), Ok(PortSetting::Number(3000)));
        assert_eq!(port("\"none\""), Ok(PortSetting::Word(PortWord::None)));
        assert!(port("70000").unwrap_err().starts_with("expected a port"));
    }
}
