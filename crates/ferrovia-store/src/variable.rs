//! Variables, sealed with their project's data key. Those without an instance are shared by the environment.

use ferrovia_core::id::{EnvironmentId, InstanceId};
use ferrovia_core::secret::Secret;
use ferrovia_core::variable::Key;
use uuid::Uuid;

use crate::seal::{DataKey, Place};
use crate::{Conn, Error, Tx};

/// Whose a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Every service of the environment may refer to it.
    Shared(EnvironmentId),
    /// One service in the environment.
    Instance(EnvironmentId, InstanceId),
}

impl Owner {
    /// The environment that it is in.
    pub const fn environment(self) -> EnvironmentId {
        match self {
            Self::Shared(environment) | Self::Instance(environment, _) => environment,
        }
    }

    const fn instance(self) -> Option<InstanceId> {
        match self {
            Self::Shared(_) => None,
            Self::Instance(_, instance) => Some(instance),
        }
    }
}

/// A variable as it lies in the database.
#[derive(Clone)]
pub struct Variable {
    /// Whose it is.
    pub owner: Owner,
    /// Its name.
    pub key: Key,
    /// The key that it is sealed with.
    pub data_key_id: Uuid,
    /// Never readable again through any interface.
    pub write_only: bool,
    /// Marked as not secret: may be used as a build argument.
    pub public: bool,
    /// When it was last set, in milliseconds since 1970.
    pub updated_ms: i64,
    sealed: Vec<u8>,
}

impl Variable {
    /// Its value; `data_key` is the one of [`Variable::data_key_id`].
    ///
    /// # Errors
    /// [`Error::Seal`] when it was changed or moved, or the key is another.
    pub fn open(&self, data_key: &DataKey) -> Result<Secret, Error> {
        Ok(data_key.open(&self.sealed, &place(self.owner, &self.key))?)
    }
}

/// What is set.
#[derive(Debug, Clone)]
pub struct NewVariable {
    /// Whose it is.
    pub owner: Owner,
    /// Its name.
    pub key: Key,
    /// Its value, taken literally.
    pub value: Secret,
    /// Never readable again; stays so when it is set again, until it is unset.
    pub write_only: bool,
    /// Marked as not secret.
    pub public: bool,
    /// Now, in milliseconds since 1970.
    pub updated_ms: i64,
}

struct Row {
    environment_id: Uuid,
    instance_id: Option<Uuid>,
    key: String,
    data_key_id: Uuid,
    sealed: Vec<u8>,
    write_only: bool,
    public: bool,
    updated_ms: i64,
}

impl TryFrom<Row> for Variable {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            environment_id,
            instance_id,
            key,
            data_key_id,
            sealed,
            write_only,
            public,
            updated_ms,
        } = row;
        let environment = EnvironmentId::from_uuid(environment_id);
        Ok(Self {
            owner: match instance_id {
                None => Owner::Shared(environment),
                Some(instance) => Owner::Instance(environment, InstanceId::from_uuid(instance)),
            },
            key: key.parse().map_err(|error| Error::corrupt("variable", error))?,
            data_key_id,
            write_only,
            public,
            updated_ms,
            sealed,
        })
    }
}

/// Sets a variable, sealed with its project's data key.
///
/// # Errors
/// [`Error::Reference`] when its owner is not there, [`Error::Seal`].
pub async fn set(tx: &mut Tx, data_key: &DataKey, new: &NewVariable) -> Result<(), Error> {
    let NewVariable {
        owner,
        key,
        value,
        write_only,
        public,
        updated_ms,
    } = new;
    let sealed = data_key.seal(value, &place(*owner, key))?;
    sqlx::query!(
        "INSERT INTO variable AS old
             (environment_id, instance_id, key, data_key_id, sealed, write_only, public, updated_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (environment_id, instance_id, key) DO UPDATE SET
             data_key_id = excluded.data_key_id,
             sealed = excluded.sealed,
             write_only = old.write_only OR excluded.write_only,
             public = excluded.public,
             updated_ms = excluded.updated_ms",
        owner.environment().uuid(),
        owner.instance().map(InstanceId::uuid),
        key.as_str(),
        data_key.id(),
        sealed,
        write_only,
        public,
        updated_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps other transactions that do the same from the variables of an environment until this one ends: who looks at
/// them before changing them then changes what was looked at.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn lock_owner(tx: &mut Tx, owner: Owner) -> Result<(), Error> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('ferrovia variables ' || $1, 0))",
        owner.environment().to_string()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a variable away; says whether it was there.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn unset(tx: &mut Tx, owner: Owner, key: &Key) -> Result<bool, Error> {
    let gone = sqlx::query!(
        "DELETE FROM variable
         WHERE environment_id = $1 AND instance_id IS NOT DISTINCT FROM $2 AND key = $3",
        owner.environment().uuid(),
        owner.instance().map(InstanceId::uuid),
        key.as_str()
    )
    .execute(&mut **tx)
    .await?;
    Ok(gone.rows_affected() == 1)
}

/// The variables of one owner, by name.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_owner(conn: &mut Conn, owner: Owner) -> Result<Vec<Variable>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT environment_id, instance_id, key, data_key_id, sealed, write_only, public, updated_ms FROM variable
           WHERE environment_id = $1 AND instance_id IS NOT DISTINCT FROM $2 ORDER BY key COLLATE "C""#,
        owner.environment().uuid(),
        owner.instance().map(InstanceId::uuid)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Variable::try_from)
    .collect()
}

/// Every variable of an environment, the shared ones and those of living instances: what references may lead to.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_environment(conn: &mut Conn, environment: EnvironmentId) -> Result<Vec<Variable>, Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT variable.environment_id, instance_id, key, data_key_id, sealed, write_only, public, updated_ms
           FROM variable LEFT JOIN instance ON instance.id = variable.instance_id
           WHERE variable.environment_id = $1 AND instance.deleted_ms IS NULL
           ORDER BY instance_id NULLS FIRST, key COLLATE "C""#,
        environment.uuid()
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Variable::try_from)
    .collect()
}

fn place(owner: Owner, key: &Key) -> Place {
    let instance = owner.instance().map(InstanceId::uuid).unwrap_or_default();
    let environment = owner.environment().uuid();
    Place::new(
        "variable",
        [
            environment.as_bytes().as_slice(),
            instance.as_bytes(),
            key.as_str().as_bytes(),
        ],
    )
}
