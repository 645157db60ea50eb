//! Host names. Each is given once and never moves to another instance, also when that one is deleted: whoever holds an
//! old address must not end up at somebody else's application.

use ferrovia_core::host::{deployment_label, instance_label};
use ferrovia_core::id::{DeploymentId, DomainId, InstanceId};
use ferrovia_core::name::Name;
use uuid::Uuid;

use crate::{Conn, Error, Tx};

/// Letters and digits of a suffix: none that is easily taken for another.
const SUFFIX_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Length of a suffix: a thousand million of them.
const SUFFIX_LENGTH: usize = 6;
/// How many suffixes are tried before giving up.
const MAX_SUFFIXES: u32 = 16;

/// A host name that leads to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Where it leads.
    pub instance_id: InstanceId,
    /// In lower case, without port.
    pub host: String,
    /// How it came to be.
    pub kind: Kind,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// How a host name came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Made for the instance.
    Generated,
    /// Made for one deployment, and always leads to that.
    Deployment(DeploymentId),
    /// Given by people.
    Custom,
}

struct Row {
    id: Uuid,
    instance_id: Uuid,
    host: String,
    kind: String,
    deployment_id: Option<Uuid>,
    created_ms: i64,
    deleted_ms: Option<i64>,
}

impl TryFrom<Row> for Domain {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            instance_id,
            host,
            kind,
            deployment_id,
            created_ms,
            deleted_ms,
        } = row;
        let kind = match (kind.as_str(), deployment_id) {
            ("generated", None) => Kind::Generated,
            ("deployment", Some(deployment)) => Kind::Deployment(DeploymentId::from_uuid(deployment)),
            ("custom", None) => Kind::Custom,
            (other, _) => return Err(Error::corrupt("domain", format!("the kind `{other}` is unknown"))),
        };
        Ok(Self {
            id: DomainId::from_uuid(id),
            instance_id: InstanceId::from_uuid(instance_id),
            host,
            kind,
            created_ms,
            deleted_ms,
        })
    }
}

/// Gives an instance its host name under `apps_domain`: `SERVICE-ENVIRONMENT`, with a random suffix when that was ever
/// given to another.
///
/// # Errors
/// [`Error::Exhausted`] when no suffix was free either.
pub async fn generate(
    tx: &mut Tx,
    id: DomainId,
    instance: InstanceId,
    (service, environment): (&Name, &Name),
    apps_domain: &str,
    now_ms: i64,
) -> Result<Domain, Error> {
    for n in 0..=MAX_SUFFIXES {
        let suffix = (n > 0).then(random_suffix);
        let label = instance_label(service, environment, suffix.as_deref());
        let host = format!("{label}.{apps_domain}");
        if let Some(domain) = insert(tx, id, instance, &host, Kind::Generated, now_ms).await? {
            return Ok(domain);
        }
    }
    Err(Error::Exhausted { what: "host name" })
}

/// Gives a deployment its own host name under `apps_domain`.
///
/// # Errors
/// [`Error::Taken`] when another has it.
pub async fn generate_for_deployment(
    tx: &mut Tx,
    id: DomainId,
    (instance, deployment): (InstanceId, DeploymentId),
    service: &Name,
    apps_domain: &str,
    now_ms: i64,
) -> Result<Domain, Error> {
    let host = format!("{}.{apps_domain}", deployment_label(service, deployment));
    let kind = Kind::Deployment(deployment);
    let inserted = insert(tx, id, instance, &host, kind, now_ms).await?;
    inserted.ok_or(Error::Taken {
        what: "host name",
        key: host,
    })
}

/// Nothing when the host name is taken; unlike an error that leaves the transaction usable.
async fn insert(
    tx: &mut Tx,
    id: DomainId,
    instance: InstanceId,
    host: &str,
    kind: Kind,
    now_ms: i64,
) -> Result<Option<Domain>, Error> {
    let (kind, deployment) = match kind {
        Kind::Generated => ("generated", None),
        Kind::Deployment(deployment) => ("deployment", Some(deployment.uuid())),
        Kind::Custom => ("custom", None),
    };
    sqlx::query_as!(
        Row,
        "INSERT INTO domain (id, instance_id, host, kind, deployment_id, created_ms) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (host) DO NOTHING
         RETURNING id, instance_id, host, kind, deployment_id, created_ms, deleted_ms",
        id.uuid(),
        instance.uuid(),
        host,
        kind,
        deployment,
        now_ms
    )
    .fetch_optional(&mut **tx)
    .await?
    .map(Domain::try_from)
    .transpose()
}

/// The living host names of an instance: its own first, then those of deployments, newest first.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn of_instance(conn: &mut Conn, instance: InstanceId) -> Result<Vec<Domain>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, instance_id, host, kind, deployment_id, created_ms, deleted_ms FROM domain
         WHERE instance_id = $1 AND deleted_ms IS NULL
         ORDER BY kind = 'deployment', created_ms DESC, id",
        instance.uuid()
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Domain::try_from)
    .collect()
}

/// A living host name.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_host(conn: &mut Conn, host: &str) -> Result<Option<Domain>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, instance_id, host, kind, deployment_id, created_ms, deleted_ms FROM domain
         WHERE host = $1 AND deleted_ms IS NULL",
        host
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Domain::try_from)
    .transpose()
}

/// Marks every host name of an instance as deleted; they stay taken.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn delete_of_instance(tx: &mut Tx, instance: InstanceId, now_ms: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE domain SET deleted_ms = $2 WHERE instance_id = $1 AND deleted_ms IS NULL",
        instance.uuid(),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn random_suffix() -> String {
    let letter = || char::from(SUFFIX_ALPHABET[rand::random_range(0..SUFFIX_ALPHABET.len())]);
    (0..SUFFIX_LENGTH).map(|_| letter()).collect()
}
