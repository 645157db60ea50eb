//! The variables of a deployment: everything of its environment, references filled in, before anything is built.

use std::collections::BTreeMap;

use ferrovia_core::id::{DeploymentId, InstanceId};
use ferrovia_core::injected::{GitSource, injected};
use ferrovia_core::name::Name;
use ferrovia_core::secret::Secret;
use ferrovia_core::settings::{PortSetting, Settings};
use ferrovia_core::variable::{Key, ResolveError, Universe, resolve};
use ferrovia_store::domain::{self, Domain, Kind};
use ferrovia_store::seal::DataKey;
use ferrovia_store::variable::Owner as VariableOwner;
use ferrovia_store::{Conn, instance, service, variable};

use super::error::Error;
use super::place::Found;
use super::{UseCases, code};

/// Variables that the platform gives and that differ between deployments: nothing may refer to those of another.
const OF_ONE_DEPLOYMENT: [&str; 3] = ["_DEPLOYMENT_ID", "_DEPLOYMENT_NUMBER", "_GIT_"];

/// What a deployment is made with.
pub(super) struct Resolved {
    /// What people set, references filled in, by name.
    pub variables: Vec<(String, Secret)>,
    /// The settings, with the port that the variable `PORT` says when nothing else does.
    pub settings: Settings,
}

impl UseCases {
    /// Resolves the variables of an instance.
    ///
    /// # Errors
    /// `variable_unresolved` naming the variable; never its value.
    pub(super) async fn resolve(
        &self,
        conn: &mut Conn,
        found: &Found,
        settings: &Settings,
        data_key: &DataKey,
        source: &GitSource,
    ) -> Result<Resolved, Error> {
        let mut universe = Universe::default();
        let mut set_by_people: BTreeMap<Key, Secret> = BTreeMap::new();
        let mut names: BTreeMap<InstanceId, Name> = BTreeMap::new();
        for instance in instance::of_environment(conn, found.environment.id).await? {
            let service = service::get(conn, instance.service_id).await?;
            if service.deleted_ms.is_some() {
                continue;
            }
            let own = instance.id == found.instance.id;
            let shown = if own { settings } else { &instance.settings };
            let source = if own { source.clone() } else { GitSource::default() };
            let host =
                own_host(&domain::of_instance(conn, instance.id).await?).map(|host| self.site.address(&host));
            let mut place = found.clone();
            place.service = service.clone();
            place.instance = instance.clone();
            let owner = place.owner(DeploymentId::from_uuid(uuid::Uuid::nil()), 0);
            let port = match shown.port {
                PortSetting::Number(port) => Some(port),
                PortSetting::Auto | PortSetting::None => None,
            };
            let public = host.filter(|_| shown.port != PortSetting::None);
            let given = injected(&owner, port, public.as_ref(), &source, shown.railway_variables);
            universe
                .services
                .insert(service.name.clone(), referable(given, own));
            names.insert(instance.id, service.name);
        }
        for variable in variable::of_environment(conn, found.environment.id).await? {
            let value = variable.open(data_key)?;
            match variable.owner {
                VariableOwner::Shared(_) => {
                    universe.shared.insert(variable.key, value);
                }
                VariableOwner::Instance(_, id) => {
                    if id == found.instance.id {
                        let key = variable.key.as_str();
                        if !variable.public && settings.build.arguments.iter().any(|name| name == key) {
                            return Err(argument_is_secret(key));
                        }
                        set_by_people.insert(variable.key.clone(), value.clone());
                    }
                    if let Some(name) = names.get(&id) {
                        universe
                            .services
                            .entry(name.clone())
                            .or_default()
                            .insert(variable.key, value);
                    }
                }
            }
        }
        let resolved = resolve(&universe, &found.service.name).map_err(|error| refused(&error))?;
        let variables: Vec<(String, Secret)> = resolved
            .into_iter()
            .filter(|(key, _)| set_by_people.contains_key(key))
            .map(|(key, value)| (key.into(), value))
            .collect();
        let mut settings = settings.clone();
        if settings.port == PortSetting::Auto
            && let Some(port) = port_of(&variables)
        {
            settings.port = PortSetting::Number(port);
        }
        Ok(Resolved { variables, settings })
    }
}

/// The port that people set as a variable, as they do on Railway and Heroku.
fn port_of(variables: &[(String, Secret)]) -> Option<u16> {
    let (_, value) = variables.iter().find(|(key, _)| key == "PORT")?;
    value.expose().trim().parse().ok().filter(|port| *port != 0)
}

/// What the platform gives a service, as far as others (or a value of its own) may refer to it.
fn referable(given: Vec<(String, String)>, own: bool) -> BTreeMap<Key, Secret> {
    given
        .into_iter()
        .filter(|(key, _)| {
            let of_one = OF_ONE_DEPLOYMENT.iter().any(|part| key.contains(part));
            !of_one || (own && key.contains("_GIT_"))
        })
        .filter_map(|(key, value)| Some((key.parse().ok()?, Secret::new(value))))
        .collect()
}

/// The host name that is the instance's own.
pub(super) fn own_host(domains: &[Domain]) -> Option<String> {
    domains
        .iter()
        .find(|domain| domain.kind == Kind::Generated)
        .map(|domain| domain.host.clone())
}

fn refused(error: &ResolveError) -> Error {
    let hint = match error {
        ResolveError::Unresolved { .. } => {
            "set the variable that is referred to, or correct the reference; `ferrovia variables` lists what there is"
        }
        ResolveError::Cycle { .. } => "let one of them stand on its own",
        ResolveError::TooDeep { .. } | ResolveError::TooLong { .. } | ResolveError::TotalTooLong { .. } => {
            "make it shorter, or put it into a file of the image"
        }
    };
    Error::new(&code::VARIABLE_UNRESOLVED, error.to_string()).hint(hint)
}

/// Build arguments are told to everybody: they stand in the image's history and in the build's command lines.
fn argument_is_secret(name: &str) -> Error {
    let text = format!("`{name}` is among the build arguments and is not marked as not secret");
    Error::new(&code::SETTING_INVALID, text)
        .hint(format!(
            "mark it with `ferrovia variables set --public {name}=…`, or take it off the list: builds see variables as \
             secret mounts"
        ))
        .field("settings.build.arguments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_variable_is_a_port() {
        let port = |value: &str| port_of(&[("PORT".to_owned(), Secret::new(value))]);
        assert_eq!(port("3000"), Some(3000));
        assert_eq!(port("0"), None);
        assert_eq!(port("/tmp/socket"), None);
        assert_eq!(port_of(&[]), None);
    }
}
