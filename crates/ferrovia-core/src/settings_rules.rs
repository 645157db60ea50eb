//! What settings may hold. One place, whoever sets them: a request, a file, a default.

use crate::settings::{BuildSettings, MAX_REPLICAS, PortSetting, Resources, RestartPolicy, Settings};
use crate::variable::{Key, MAX_VARIABLES};

/// Longest start deadline, in milliseconds.
pub const MAX_START_DEADLINE_MS: u32 = 3_600_000;
/// Shortest start deadline, in milliseconds.
pub const MIN_START_DEADLINE_MS: u32 = 1_000;
/// Longest drain, in milliseconds.
pub const MAX_DRAIN_MS: u32 = 3_600_000;
/// Longest time between SIGTERM and SIGKILL, in milliseconds.
pub const MAX_STOP_GRACE_MS: u32 = 600_000;
/// Least memory of a replica, in bytes: less, and no container starts.
pub const MIN_MEMORY_BYTES: u64 = 6 * 1024 * 1024;
/// Most memory of a replica, in bytes.
pub const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// Most processes and threads of a replica.
pub const MAX_PIDS: u32 = 65_536;
/// Least CPU quota, in thousandths of a core.
pub const MIN_CPU_QUOTA_MILLIS: u32 = 10;
/// Most CPU quota, in thousandths of a core.
pub const MAX_CPU_QUOTA_MILLIS: u32 = 1_024_000;
/// Longest command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 16 * 1024;
/// Longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// Providers that detection knows.
pub const PROVIDERS: [&str; 7] = ["node", "python", "go", "rust", "java", "static", "procfile"];

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct SettingError {
    /// Where it stands: `resources.memory_bytes`.
    pub field: &'static str,
    /// What it must be.
    pub why: String,
}

fn refuse(field: &'static str, why: impl Into<String>) -> Result<(), SettingError> {
    let why = why.into();
    Err(SettingError { field, why })
}

/// Whether so many replicas may be wanted.
///
/// # Errors
/// [`SettingError`] when there are too many.
pub fn check_replicas(replicas: u32) -> Result<(), SettingError> {
    if replicas > MAX_REPLICAS {
        return refuse("replicas", format!("must be from 0 to {MAX_REPLICAS}"));
    }
    Ok(())
}

/// Whether the settings may be.
///
/// # Errors
/// [`SettingError`] for the first one that may not.
pub fn check(settings: &Settings) -> Result<(), SettingError> {
    let Settings {
        port,
        health_path,
        start_deadline_ms,
        drain_ms,
        stop_grace_ms,
        restart,
        resources,
        start_command,
        build,
        railway_variables: _,
    } = settings;
    if *port == PortSetting::Number(0) {
        return refuse("port", "must be from 1 to 65535");
    }
    if let Some(path) = health_path {
        let good = path.starts_with('/')
            && path.len() <= MAX_PATH_BYTES
            && path.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            return refuse(
                "health_path",
                "must begin with `/` and hold printable ASCII without blanks",
            );
        }
    }
    in_range(
        "start_deadline_ms",
        *start_deadline_ms,
        MIN_START_DEADLINE_MS,
        MAX_START_DEADLINE_MS,
    )?;
    in_range("drain_ms", *drain_ms, 0, MAX_DRAIN_MS)?;
    in_range("stop_grace_ms", *stop_grace_ms, 0, MAX_STOP_GRACE_MS)?;
    if let RestartPolicy::OnFailure { max_tries } = restart {
        in_range("restart.max_tries", *max_tries, 0, 1_000)?;
    }
    check_resources(resources)?;
    command("start_command", start_command.as_deref())?;
    check_build(build)
}

fn check_resources(resources: &Resources) -> Result<(), SettingError> {
    let Resources {
        memory_bytes,
        pids,
        cpu_weight,
        cpu_quota_millis,
    } = resources;
    if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(memory_bytes) {
        return refuse(
            "resources.memory_bytes",
            format!("must be from {MIN_MEMORY_BYTES} to {MAX_MEMORY_BYTES}"),
        );
    }
    in_range("resources.pids", *pids, 1, MAX_PIDS)?;
    in_range("resources.cpu_weight", *cpu_weight, 1, 1_000)?;
    if let Some(quota) = cpu_quota_millis {
        in_range(
            "resources.cpu_quota_millis",
            *quota,
            MIN_CPU_QUOTA_MILLIS,
            MAX_CPU_QUOTA_MILLIS,
        )?;
    }
    Ok(())
}

fn check_build(build: &BuildSettings) -> Result<(), SettingError> {
    let BuildSettings {
        builder: _,
        root_directory,
        dockerfile,
        target,
        install_command,
        build_command,
        provider,
        arguments,
    } = build;
    relative("build.root_directory", root_directory.as_deref())?;
    relative("build.dockerfile", dockerfile.as_deref())?;
    if let Some(target) = target {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if target.is_empty() || target.len() > 128 || !target.bytes().all(good) {
            return refuse(
                "build.target",
                "must be the name of a stage: letters, digits, `-`, `_` and `.`",
            );
        }
    }
    command("build.install_command", install_command.as_deref())?;
    command("build.build_command", build_command.as_deref())?;
    if let Some(provider) = provider
        && !PROVIDERS.contains(&provider.as_str())
    {
        return refuse(
            "build.provider",
            format!("must be one of {}", PROVIDERS.join(", ")),
        );
    }
    if arguments.len() > MAX_VARIABLES {
        return refuse("build.arguments", format!("has at most {MAX_VARIABLES} names"));
    }
    match arguments.iter().find_map(|key| key.parse::<Key>().err()) {
        Some(error) => refuse("build.arguments", format!("holds a wrong name: {error}")),
        None => Ok(()),
    }
}

fn in_range(field: &'static str, value: u32, least: u32, most: u32) -> Result<(), SettingError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(field, format!("must be from {least} to {most}"))
}

fn command(field: &'static str, text: Option<&str>) -> Result<(), SettingError> {
    match text {
        Some(text) if text.trim().is_empty() => {
            refuse(field, "must not be empty; leave it out or set it to null")
        }
        Some(text) if text.contains('\0') => refuse(field, "must not contain a NUL character"),
        Some(text) if text.len() > MAX_COMMAND_BYTES => {
            refuse(field, format!("has at most {MAX_COMMAND_BYTES} bytes"))
        }
        _ => Ok(()),
    }
}

fn relative(field: &'static str, path: Option<&str>) -> Result<(), SettingError> {
    let Some(path) = path else { return Ok(()) };
    let inside = path.split('/').all(|part| part != "..") && !path.starts_with('/');
    if path.is_empty() || path.len() > MAX_PATH_BYTES || !inside || path.contains(['\0', '\\', '\n', '\r']) {
        return refuse(
            field,
            "must be a relative path inside the source, with `/` between its parts",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> &'static str {
        let mut settings = Settings::default();
        change(&mut settings);
        check(&settings).unwrap_err().field
    }

    #[test]
    fn defaults_are_good() {
        assert_eq!(check(&Settings::default()), Ok(()));
    }

    #[test]
    fn the_field_is_named() {
        assert_eq!(refused(|s| s.port = PortSetting::Number(0)), "port");
        assert_eq!(refused(|s| s.health_path = Some("health".into())), "health_path");
        assert_eq!(refused(|s| s.health_path = Some("/a b".into())), "health_path");
        assert_eq!(refused(|s| s.start_deadline_ms = 0), "start_deadline_ms");
        assert_eq!(refused(|s| s.drain_ms = u32::MAX), "drain_ms");
        assert_eq!(
            refused(|s| s.resources.memory_bytes = 1),
            "resources.memory_bytes"
        );
        assert_eq!(refused(|s| s.resources.pids = 0), "resources.pids");
        assert_eq!(refused(|s| s.start_command = Some(" ".into())), "start_command");
        assert_eq!(refused(|s| s.start_command = Some("a\0".into())), "start_command");
        assert_eq!(
            refused(|s| s.build.root_directory = Some("a/../..".into())),
            "build.root_directory"
        );
        assert_eq!(
            refused(|s| s.build.dockerfile = Some("/etc/x".into())),
            "build.dockerfile"
        );
        assert_eq!(
            refused(|s| s.build.provider = Some("cobol".into())),
            "build.provider"
        );
        assert_eq!(
            refused(|s| s.build.arguments = vec!["A-B".into()]),
            "build.arguments"
        );
        assert_eq!(refused(|s| s.build.target = Some("a b".into())), "build.target");
        assert!(check_replicas(101).is_err());
    }
}
