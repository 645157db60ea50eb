//! Registries that the configuration names, with their passwords read from files.

use ferrovia_build::fetch::{Hosts, RegistryHost};
use ferrovia_build::registry::Login;
use ferrovia_core::secret::Secret;

use crate::command::Failure;
use crate::config::{Config, RegistryFile};

/// The registries with their logins.
///
/// # Errors
/// When a password's file cannot be read, naming the registry, or a user has no password.
pub fn read(config: &Config) -> Result<Hosts, Failure> {
    let mut hosts = Hosts::default();
    for (name, settings) in &config.file.registries {
        let host = RegistryHost {
            mirrors: settings.mirrors.clone(),
            login: login(name, settings)?,
            plain_http: settings.plain_http,
        };
        hosts.0.insert(name.clone(), host);
    }
    Ok(hosts)
}

fn login(name: &str, settings: &RegistryFile) -> Result<Option<Login>, Failure> {
    match (&settings.user, &settings.password_file) {
        (Some(user), Some(file)) => {
            let password = std::fs::read_to_string(file).map_err(|error| {
                let file = file.display();
                format!("`registries.\"{name}\".password_file`: `{file}` cannot be read: {error}")
            })?;
            Ok(Some(Login {
                user: user.clone(),
                password: Secret::new(password.trim_end_matches(['\r', '\n'])),
            }))
        }
        (None, None) => Ok(None),
        _ => Err(
            format!("`registries.\"{name}\"` needs both `user` and `password_file`, or none of them").into(),
        ),
    }
}
