//! Settings, to the wire and as a change from it.

use std::sync::Arc;

use ferrovia_api::settings as api;
use ferrovia_control::usecase::SettingsChange;
use ferrovia_core::settings::{BuildSettings, BuilderKind, PortSetting, Resources, RestartPolicy, Settings};

/// The settings of an instance.
pub fn settings(settings: Settings) -> api::Settings {
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
        railway_variables,
    } = settings;
    api::Settings {
        port: wire_port(port),
        health_path,
        start_deadline_ms,
        drain_ms,
        stop_grace_ms,
        restart: match restart {
            RestartPolicy::Always => api::RestartPolicy::Always,
            RestartPolicy::OnFailure { max_tries } => api::RestartPolicy::OnFailure { max_tries },
            RestartPolicy::Never => api::RestartPolicy::Never,
        },
        resources: wire_resources(resources),
        start_command,
        build: wire_build(build),
        railway_variables,
    }
}

fn wire_port(port: PortSetting) -> api::PortSetting {
    match port {
        PortSetting::Auto => api::PortSetting::Word(api::PortWord::Auto),
        PortSetting::Number(number) => api::PortSetting::Number(number),
        PortSetting::None => api::PortSetting::Word(api::PortWord::None),
    }
}

fn wire_resources(resources: Resources) -> api::Resources {
    let Resources {
        memory_bytes,
        pids,
        cpu_weight,
        cpu_quota_millis,
    } = resources;
    api::Resources {
        memory_bytes,
        pids,
        cpu_weight,
        cpu_quota_millis,
    }
}

fn wire_build(build: BuildSettings) -> api::BuildSettings {
    let BuildSettings {
        builder,
        root_directory,
        dockerfile,
        target,
        install_command,
        build_command,
        provider,
        arguments,
    } = build;
    api::BuildSettings {
        builder: builder.map(|builder| match builder {
            BuilderKind::Dockerfile => api::BuilderKind::Dockerfile,
            BuilderKind::Auto => api::BuilderKind::Auto,
        }),
        root_directory,
        dockerfile,
        target,
        install_command,
        build_command,
        provider,
        arguments,
    }
}

/// A change of settings: what is absent stays, what is null goes back to its default.
pub fn settings_change(patch: api::SettingsPatch) -> SettingsChange {
    Arc::new(move |settings| apply(settings, patch.clone()))
}

/// Sets what is given; `null` is the default.
fn put<T>(place: &mut T, given: Option<Option<T>>, default: T) {
    match given {
        None => {}
        Some(None) => *place = default,
        Some(Some(value)) => *place = value,
    }
}

/// Sets what is given where nothing is a value of its own.
fn put_optional<T>(place: &mut Option<T>, given: Option<Option<T>>) {
    if let Some(value) = given {
        *place = value;
    }
}

fn apply(settings: &mut Settings, patch: api::SettingsPatch) {
    let default = Settings::default();
    let api::SettingsPatch {
        port,
        health_path,
        start_deadline_ms,
        drain_ms,
        stop_grace_ms,
        restart,
        resources,
        start_command,
        build,
        railway_variables,
    } = patch;
    put(
        &mut settings.port,
        port.map(|port| port.map(core_port)),
        default.port,
    );
    put_optional(&mut settings.health_path, health_path);
    put(
        &mut settings.start_deadline_ms,
        start_deadline_ms,
        default.start_deadline_ms,
    );
    put(&mut settings.drain_ms, drain_ms, default.drain_ms);
    put(&mut settings.stop_grace_ms, stop_grace_ms, default.stop_grace_ms);
    let restart = restart.map(|restart| {
        restart.map(|restart| match restart {
            api::RestartPolicy::Always => RestartPolicy::Always,
            api::RestartPolicy::OnFailure { max_tries } => RestartPolicy::OnFailure { max_tries },
            api::RestartPolicy::Never => RestartPolicy::Never,
        })
    });
    put(&mut settings.restart, restart, default.restart);
    if let Some(patch) = resources {
        apply_resources(&mut settings.resources, patch);
    }
    put_optional(&mut settings.start_command, start_command);
    if let Some(patch) = build {
        apply_build(&mut settings.build, patch);
    }
    put(
        &mut settings.railway_variables,
        railway_variables,
        default.railway_variables,
    );
}

fn core_port(port: api::PortSetting) -> PortSetting {
    match port {
        api::PortSetting::Number(number) => PortSetting::Number(number),
        api::PortSetting::Word(api::PortWord::Auto) => PortSetting::Auto,
        api::PortSetting::Word(api::PortWord::None) => PortSetting::None,
    }
}

fn apply_resources(resources: &mut Resources, patch: api::ResourcesPatch) {
    let default = Resources::default();
    let api::ResourcesPatch {
        memory_bytes,
        pids,
        cpu_weight,
        cpu_quota_millis,
    } = patch;
    put(&mut resources.memory_bytes, memory_bytes, default.memory_bytes);
    put(&mut resources.pids, pids, default.pids);
    put(&mut resources.cpu_weight, cpu_weight, default.cpu_weight);
    put_optional(&mut resources.cpu_quota_millis, cpu_quota_millis);
}

fn apply_build(build: &mut BuildSettings, patch: api::BuildSettingsPatch) {
    let api::BuildSettingsPatch {
        builder,
        root_directory,
        dockerfile,
        target,
        install_command,
        build_command,
        provider,
        arguments,
    } = patch;
    let builder = builder.map(|builder| {
        builder.map(|builder| match builder {
            api::BuilderKind::Dockerfile => BuilderKind::Dockerfile,
            api::BuilderKind::Auto => BuilderKind::Auto,
        })
    });
    put_optional(&mut build.builder, builder);
    put_optional(&mut build.root_directory, root_directory);
    put_optional(&mut build.dockerfile, dockerfile);
    put_optional(&mut build.target, target);
    put_optional(&mut build.install_command, install_command);
    put_optional(&mut build.build_command, build_command);
    put_optional(&mut build.provider, provider);
    put(&mut build.arguments, arguments, Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_stays_and_null_is_the_default() {
        let mut now = Settings {
            port: PortSetting::Number(3000),
            drain_ms: 5,
            health_path: Some("/h".into()),
            ..Settings::default()
        };
        let patch =
            serde_json::from_str(r#"{"port":null,"health_path":null,"resources":{"pids":9}}"#).unwrap();
        settings_change(patch)(&mut now);
        assert_eq!(now.port, PortSetting::Auto);
        assert_eq!(now.health_path, None);
        assert_eq!(now.drain_ms, 5);
        assert_eq!(now.resources.pids, 9);
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let shown = serde_json::to_value(settings(Settings::default())).unwrap();
        let patch: api::SettingsPatch = serde_json::from_value(shown).unwrap();
        let mut now = Settings::default();
        settings_change(patch)(&mut now);
        assert_eq!(now, Settings::default());
    }
}
