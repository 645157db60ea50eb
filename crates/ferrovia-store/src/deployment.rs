//! Deployments: immutable attempts to run an instance, and how they end.

use ferrovia_core::error::Report;
use ferrovia_core::id::{BuildId, DeploymentId, InstanceId};
use ferrovia_core::injected::GitSource;
use ferrovia_core::outcome::{Durations, Outcome};
use ferrovia_core::settings::Settings;
use serde_json::Value;
use uuid::Uuid;

use crate::row::{count, from_json, to_json};
use crate::seal::Place;
use crate::{Conn, Error, Tx};

/// A deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its number in the instance, from 1.
    pub number: u32,
    /// What makes its image.
    pub build_id: BuildId,
    /// The settings it was made with.
    pub settings: Settings,
    /// The key that its variables are sealed with.
    pub data_key_id: Uuid,
    /// The variables snapshot, sealed.
    pub sealed_variables: Vec<u8>,
    /// Where its source came from.
    pub source: GitSource,
    /// How far it has come, or how it ended.
    pub outcome: Outcome,
    /// Why it ended without success.
    pub report: Option<Report>,
    /// What should be told although it went on.
    pub warnings: Vec<Report>,
    /// Somebody wants it to end.
    pub cancel_requested: bool,
    /// How long its steps took.
    pub durations: Durations,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it became `deploying`, in milliseconds since 1970.
    pub deploy_started_ms: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub finished_ms: Option<i64>,
}

/// What a new deployment is made of.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// Its id.
    pub id: DeploymentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its number, from [`crate::instance::take_deployment_number`].
    pub number: u32,
    /// What makes its image.
    pub build_id: BuildId,
    /// The settings it is made with.
    pub settings: Settings,
    /// The key that its variables are sealed with.
    pub data_key_id: Uuid,
    /// The variables snapshot, sealed for [`place`].
    pub sealed_variables: Vec<u8>,
    /// Where its source came from.
    pub source: GitSource,
    /// How long sending the source took, in milliseconds.
    pub upload_ms: Option<u64>,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    instance_id: Uuid,
    number: i32,
    build_id: Uuid,
    settings: Value,
    data_key_id: Uuid,
    sealed_variables: Vec<u8>,
    source: Value,
    outcome: String,
    report: Option<Value>,
    warnings: Value,
    cancel_requested: bool,
    durations: Value,
    created_ms: i64,
    deploy_started_ms: Option<i64>,
    finished_ms: Option<i64>,
}

/// The outcome of a word in the database.
pub(crate) fn outcome_from(word: &str) -> Result<Outcome, Error> {
    Outcome::from_word(word).ok_or_else(|| Error::corrupt("deployment", format!("`{word}` is no outcome")))
}

impl TryFrom<Row> for Deployment {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            instance_id,
            number,
            build_id,
            settings,
            data_key_id,
            sealed_variables,
            source,
            outcome,
            report,
            warnings,
            cancel_requested,
            durations,
            created_ms,
            deploy_started_ms,
            finished_ms,
        } = row;
        Ok(Self {
            id: DeploymentId::from_uuid(id),
            instance_id: InstanceId::from_uuid(instance_id),
            number: count("deployment", number)?,
            build_id: BuildId::from_uuid(build_id),
            settings: from_json("deployment", settings)?,
            data_key_id,
            sealed_variables,
            source: from_json("deployment", source)?,
            outcome: outcome_from(&outcome)?,
            report: report.map(|report| from_json("deployment", report)).transpose()?,
            warnings: from_json("deployment", warnings)?,
            cancel_requested,
            durations: from_json("deployment", durations)?,
            created_ms,
            deploy_started_ms,
            finished_ms,
        })
    }
}

/// Where a deployment's variables are sealed for.
pub fn place(id: DeploymentId) -> Place {
    Place::new("deployment", [id.uuid().as_bytes().as_slice()])
}

/// Makes a deployment; it is queued. The caller enqueues its build and its instance.
///
/// # Errors
/// [`Error::Reference`] when its instance or build is not there.
pub async fn insert(tx: &mut Tx, new: &NewDeployment) -> Result<(), Error> {
    let NewDeployment {
        id,
        instance_id,
        number,
        build_id,
        settings,
        data_key_id,
        sealed_variables,
        source,
        upload_ms,
        created_ms,
    } = new;
    let durations = Durations {
        upload: *upload_ms,
        ..Durations::default()
    };
    sqlx::query!(
        "INSERT INTO deployment (id, instance_id, number, build_id, settings, data_key_id, sealed_variables, source,
                                 outcome, durations, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9, $10)",
        id.uuid(),
        instance_id.uuid(),
        i32::try_from(*number).unwrap_or(i32::MAX),
        build_id.uuid(),
        to_json("deployment", settings)?,
        data_key_id,
        sealed_variables,
        to_json("deployment", source)?,
        to_json("deployment", &durations)?,
        created_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A deployment by its id.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: DeploymentId) -> Result<Option<Deployment>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, instance_id, number, build_id, settings, data_key_id, sealed_variables, source, outcome, report,
                warnings, cancel_requested, durations, created_ms, deploy_started_ms, finished_ms
         FROM deployment WHERE id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Deployment::try_from)
    .transpose()
}

/// A deployment by its id.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: DeploymentId) -> Result<Deployment, Error> {
    find(conn, id)
        .await?
        .ok_or_else(|| Error::not_found("deployment", id))
}

/// A deployment by its number in an instance.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_by_number(
    conn: &mut Conn,
    instance: InstanceId,
    number: u32,
) -> Result<Option<Deployment>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, instance_id, number, build_id, settings, data_key_id, sealed_variables, source, outcome, report,
                warnings, cancel_requested, durations, created_ms, deploy_started_ms, finished_ms
         FROM deployment WHERE instance_id = $1 AND number = $2",
        instance.uuid(),
        i32::try_from(number).unwrap_or(i32::MAX)
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Deployment::try_from)
    .transpose()
}

/// The deployments of an instance, the newest first, those below the number `before` (or all), at most `limit`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn list(
    conn: &mut Conn,
    instance: InstanceId,
    before: Option<u32>,
    limit: u32,
) -> Result<Vec<Deployment>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, instance_id, number, build_id, settings, data_key_id, sealed_variables, source, outcome, report,
                warnings, cancel_requested, durations, created_ms, deploy_started_ms, finished_ms
         FROM deployment WHERE instance_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        instance.uuid(),
        before.map_or(i32::MAX, |before| i32::try_from(before).unwrap_or(i32::MAX)),
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(Deployment::try_from)
    .collect()
}

/// Asks a deployment to end. Whether it had not ended.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn request_cancel(tx: &mut Tx, id: DeploymentId) -> Result<bool, Error> {
    let asked = sqlx::query!(
        "UPDATE deployment SET cancel_requested = true
         WHERE id = $1 AND outcome IN ('queued', 'building', 'deploying')",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(asked.rows_affected() == 1)
}

/// Asks every deployment of an instance that has not ended to end.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn request_cancel_of_instance(tx: &mut Tx, instance: InstanceId) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE deployment SET cancel_requested = true
         WHERE instance_id = $1 AND outcome IN ('queued', 'building', 'deploying')",
        instance.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Locks a deployment and checks that a step of its life is one that there is; `None` when it is there already.
async fn step(tx: &mut Tx, id: DeploymentId, to: Outcome) -> Result<Option<Deployment>, Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, instance_id, number, build_id, settings, data_key_id, sealed_variables, source, outcome, report,
                warnings, cancel_requested, durations, created_ms, deploy_started_ms, finished_ms
         FROM deployment WHERE id = $1 FOR UPDATE",
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or_else(|| Error::not_found("deployment", id))?;
    let deployment = Deployment::try_from(row)?;
    if deployment.outcome == to {
        return Ok(None);
    }
    match deployment.outcome.step(to) {
        Ok(_) => Ok(Some(deployment)),
        Err(_) => Err(Error::Stale {
            what: "deployment",
            key: id.to_string(),
        }),
    }
}

/// Notes that a deployment's build runs.
///
/// # Errors
/// [`Error::Stale`] when its life has no such step any more.
pub async fn set_building(tx: &mut Tx, id: DeploymentId) -> Result<(), Error> {
    if step(tx, id, Outcome::Building).await?.is_some() {
        sqlx::query!(
            "UPDATE deployment SET outcome = 'building' WHERE id = $1",
            id.uuid()
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Notes that a deployment's replicas are being started, and how long it waited for its build and was built.
///
/// # Errors
/// [`Error::Stale`] when its life has no such step any more.
pub async fn begin(
    tx: &mut Tx,
    id: DeploymentId,
    queue_ms: u64,
    build_ms: u64,
    now_ms: i64,
) -> Result<(), Error> {
    let Some(before) = step(tx, id, Outcome::Deploying).await? else {
        return Ok(());
    };
    let durations = Durations {
        queue: Some(queue_ms),
        build: Some(build_ms),
        ..before.durations
    };
    sqlx::query!(
        "UPDATE deployment SET outcome = 'deploying', durations = $2, deploy_started_ms = $3 WHERE id = $1",
        id.uuid(),
        to_json("deployment", &durations)?,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a deployment.
///
/// # Errors
/// [`Error::Stale`] when it has ended otherwise.
pub async fn end(
    tx: &mut Tx,
    id: DeploymentId,
    outcome: Outcome,
    report: Option<&Report>,
    warnings: &[Report],
    now_ms: i64,
) -> Result<(), Error> {
    let Some(before) = step(tx, id, outcome).await? else {
        return Ok(());
    };
    let span = |from_ms: i64| u64::try_from(now_ms.saturating_sub(from_ms)).unwrap_or(0);
    let durations = Durations {
        deploy: before.deploy_started_ms.map(span),
        total: Some(span(before.created_ms).saturating_add(before.durations.upload.unwrap_or(0))),
        ..before.durations
    };
    let warnings: Vec<&Report> = before.warnings.iter().chain(warnings).collect();
    sqlx::query!(
        "UPDATE deployment SET outcome = $2, report = $3, warnings = $4, durations = $5, finished_ms = $6 WHERE id = $1",
        id.uuid(),
        outcome.as_str(),
        report.map(|report| to_json("deployment", report)).transpose()?,
        to_json("deployment", &warnings)?,
        to_json("deployment", &durations)?,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds warnings to a deployment.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn add_warnings(tx: &mut Tx, id: DeploymentId, warnings: &[Report]) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE deployment SET warnings = warnings || $2 WHERE id = $1",
        id.uuid(),
        to_json("deployment", &warnings)?
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
