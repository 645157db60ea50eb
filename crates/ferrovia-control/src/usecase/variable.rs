//! Variables of an instance and shared ones of an environment: list, set, unset. The next deployment has them.

use aws_lc_rs::digest;
use ferrovia_core::permission::Action;
use ferrovia_core::secret::Secret;
use ferrovia_core::variable::{Key, MAX_TOTAL_BYTES, MAX_VARIABLES, check_value};
use ferrovia_store::seal::DataKey;
use ferrovia_store::variable::{self, NewVariable, Owner, Variable};
use ferrovia_store::{Conn, Tx};

use super::context::OpContext;
use super::error::Error;
use super::place::Place;
use super::project::changed_meanwhile;
use super::{UseCases, code, find};

/// Names that people cannot give: they say what is, and not what somebody wishes.
const RESERVED_PREFIX: &str = "FERROVIA_";

/// Whose variables.
#[derive(Debug, Clone)]
pub enum VariableOwner {
    /// One service in one environment.
    Instance(Place),
    /// Shared by an environment.
    Shared {
        /// The project.
        project: String,
        /// The environment.
        environment: String,
    },
}

/// A variable as people may see it.
#[derive(Debug, Clone)]
pub struct VariableView {
    /// Its name.
    pub key: Key,
    /// Its value, unless it is sealed.
    pub value: Option<Secret>,
    /// Never readable again.
    pub sealed: bool,
    /// Marked as not secret.
    pub public: bool,
    /// When it was last set, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// All variables of one owner.
#[derive(Debug, Clone)]
pub struct Variables {
    /// By name.
    pub items: Vec<VariableView>,
    /// Changes with every change of any of them.
    pub version: String,
}

/// A change, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct VariableChange {
    /// Set.
    pub set: Vec<VariableSetting>,
    /// Taken away.
    pub unset: Vec<String>,
}

/// A variable to be set.
#[derive(Debug, Clone)]
pub struct VariableSetting {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Secret,
    /// Never readable again.
    pub sealed: bool,
    /// Marked as not secret.
    pub public: bool,
}

struct FoundOwner {
    owner: Owner,
    label: String,
    data_key_id: uuid::Uuid,
}

impl UseCases {
    async fn variable_owner(
        &self,
        conn: &mut Conn,
        ctx: &OpContext,
        owner: &VariableOwner,
        action: Action,
    ) -> Result<FoundOwner, Error> {
        match owner {
            VariableOwner::Instance(place) => {
                let found = place.find(conn, ctx, action).await?;
                Ok(FoundOwner {
                    owner: Owner::Instance(found.environment.id, found.instance.id),
                    label: found.label(),
                    data_key_id: found.project.data_key_id,
                })
            }
            VariableOwner::Shared { project, environment } => {
                let project = find::project(conn, ctx, project, action).await?;
                let environment = find::environment(conn, project.id, environment).await?;
                Ok(FoundOwner {
                    owner: Owner::Shared(environment.id),
                    label: format!("{}/{}", project.name, environment.name),
                    data_key_id: project.data_key_id,
                })
            }
        }
    }

    /// The variables of an owner.
    ///
    /// # Errors
    /// When the owner is not there or the actor may not.
    pub async fn list_variables(&self, ctx: &OpContext, owner: &VariableOwner) -> Result<Variables, Error> {
        let mut conn = self.db.conn().await?;
        let found = self
            .variable_owner(&mut conn, ctx, owner, Action::ReadVariables)
            .await?;
        let data_key = self.keyring.get(&mut conn, found.data_key_id).await?;
        let variables = variable::of_owner(&mut conn, found.owner).await?;
        let version = version(&variables);
        let items = variables
            .iter()
            .map(|variable| view(variable, &data_key))
            .collect::<Result<_, _>>()?;
        Ok(Variables { items, version })
    }

    /// Changes variables. `versions` are those on which the change may be made.
    ///
    /// # Errors
    /// `variable_invalid` and `variable_reserved` with the place in the request, `too_many_variables`,
    /// `changed_meanwhile`.
    pub async fn change_variables(
        &self,
        ctx: &OpContext,
        owner: &VariableOwner,
        change: VariableChange,
        versions: Option<&[String]>,
    ) -> Result<Variables, Error> {
        let Checked { set, unset } = checked(change)?;
        let mut conn = self.db.conn().await?;
        let found = self
            .variable_owner(&mut conn, ctx, owner, Action::Configure)
            .await?;
        let data_key = self.keyring.get(&mut conn, found.data_key_id).await?;
        drop(conn);
        let versions = versions.map(<[String]>::to_vec);
        let now_ms = self.clock.now_ms();
        let of = found.owner;
        self.change(ctx, "variables.change", found.label, move |tx| {
            Box::pin(async move {
                variable::lock_owner(tx, of).await?;
                if let Some(versions) = &versions
                    && !versions.contains(&version(&variable::of_owner(tx, of).await?))
                {
                    return Err(changed_meanwhile());
                }
                for key in &unset {
                    variable::unset(tx, of, key).await?;
                }
                for (key, setting) in set {
                    let new = NewVariable {
                        owner: of,
                        key,
                        value: setting.value,
                        write_only: setting.sealed,
                        public: setting.public,
                        updated_ms: now_ms,
                    };
                    variable::set(tx, &data_key, &new).await?;
                }
                check_bounds(tx, of, &data_key).await
            })
        })
        .await?;
        self.list_variables(ctx, owner).await
    }
}

fn view(variable: &Variable, data_key: &DataKey) -> Result<VariableView, Error> {
    let value = if variable.write_only {
        None
    } else {
        Some(variable.open(data_key)?)
    };
    Ok(VariableView {
        key: variable.key.clone(),
        value,
        sealed: variable.write_only,
        public: variable.public,
        updated_ms: variable.updated_ms,
    })
}

/// Sixteen hexadecimal digits over names and times: no value, so that it tells nothing of them.
fn version(variables: &[Variable]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for variable in variables {
        let flags = [u8::from(variable.write_only), u8::from(variable.public)];
        for part in [
            variable.key.as_str().as_bytes(),
            &variable.updated_ms.to_be_bytes(),
            &flags,
        ] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    hex::encode(&context.finish().as_ref()[..8])
}

/// A change whose keys and values can be.
#[derive(Debug, Clone)]
struct Checked {
    set: Vec<(Key, VariableSetting)>,
    unset: Vec<Key>,
}

/// Keys and values that can be; the place in the request of the first that cannot.
fn checked(change: VariableChange) -> Result<Checked, Error> {
    let VariableChange { set, unset } = change;
    if set.len() > MAX_VARIABLES || unset.len() > MAX_VARIABLES {
        return Err(too_many());
    }
    let key = |text: &str, field: String| {
        text.parse::<Key>()
            .map_err(|error| Error::new(&code::VARIABLE_INVALID, error.to_string()).field(field))
    };
    let mut checked = Vec::with_capacity(set.len());
    for (n, setting) in set.into_iter().enumerate() {
        let name = key(&setting.key, format!("set[{n}].key"))?;
        if name.as_str().starts_with(RESERVED_PREFIX) {
            let text = format!(
                "`{name}` belongs to the platform: it gives every variable that begins with `{RESERVED_PREFIX}`"
            );
            return Err(Error::new(&code::VARIABLE_RESERVED, text)
                .hint("choose another name")
                .field(format!("set[{n}].key")));
        }
        check_value(setting.value.expose()).map_err(|error| {
            Error::new(&code::VARIABLE_INVALID, format!("`{name}`: {error}")).field(format!("set[{n}].value"))
        })?;
        if setting.sealed && setting.public {
            let text = format!("`{name}` cannot be sealed and public at once");
            return Err(Error::new(&code::VARIABLE_INVALID, text).field(format!("set[{n}].public")));
        }
        checked.push((name, setting));
    }
    let unset = unset
        .iter()
        .enumerate()
        .map(|(n, text)| key(text, format!("unset[{n}]")))
        .collect::<Result<_, _>>()?;
    Ok(Checked { set: checked, unset })
}

fn too_many() -> Error {
    Error::new(
        &code::TOO_MANY_VARIABLES,
        format!("there may be {MAX_VARIABLES} variables of {MAX_TOTAL_BYTES} bytes together"),
    )
    .hint("put large contents into a file of the image or a volume")
    .field("set")
}

async fn check_bounds(tx: &mut Tx, owner: Owner, data_key: &DataKey) -> Result<(), Error> {
    let variables = variable::of_owner(tx, owner).await?;
    let mut bytes = 0;
    for variable in &variables {
        bytes += variable.key.as_str().len() + variable.open(data_key)?.expose().len() + 2;
    }
    if variables.len() > MAX_VARIABLES || bytes > MAX_TOTAL_BYTES {
        return Err(too_many());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str, sealed: bool, public: bool) -> (String, String) {
        let setting = VariableSetting {
            key: key.to_owned(),
            value: Secret::new(value),
            sealed,
            public,
        };
        let change = VariableChange {
            set: vec![setting],
            unset: vec![],
        };
        let error = checked(change).unwrap_err();
        (
            error.report().code.clone(),
            error.wrong_field().unwrap().to_owned(),
        )
    }

    #[test]
    fn the_place_of_what_is_wrong_is_told() {
        assert_eq!(
            refused("A-B", "", false, false),
            ("variable_invalid".into(), "set[0].key".into())
        );
        assert_eq!(
            refused("A", "x\0", false, false),
            ("variable_invalid".into(), "set[0].value".into())
        );
        assert_eq!(
            refused("A", "x", true, true),
            ("variable_invalid".into(), "set[0].public".into())
        );
        assert_eq!(
            refused("FERROVIA_X", "x", false, false),
            ("variable_reserved".into(), "set[0].key".into())
        );
        let change = VariableChange {
            set: vec![],
            unset: vec!["A".into(), "".into()],
        };
        assert_eq!(checked(change).unwrap_err().wrong_field(), Some("unset[1]"));
    }
}
