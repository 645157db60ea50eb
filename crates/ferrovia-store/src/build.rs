//! Builds: source tree and plan, or an image elsewhere, turned into an image of the platform's registry.

use ferrovia_core::error::Report;
use ferrovia_core::id::{BuildId, DeploymentId, InstanceId, ProjectId, ServiceId};
use ferrovia_core::settings::BuildSettings;
use ferrovia_core::workload::ImageReference;
use serde_json::Value;
use uuid::Uuid;

use crate::row::{from_json, to_json};
use crate::seal::Place;
use crate::{Conn, Error, Tx};

/// How far a build has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for its turn.
    Queued,
    /// It runs.
    Building,
    /// There is an image.
    Succeeded,
    /// There is none; the report says why.
    Failed,
    /// Somebody stopped it, or nobody waited for it any more.
    Cancelled,
}

impl Outcome {
    /// The word used in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    pub(crate) fn from_word(word: &str) -> Result<Self, Error> {
        let all = [
            Self::Queued,
            Self::Building,
            Self::Succeeded,
            Self::Failed,
            Self::Cancelled,
        ];
        all.into_iter()
            .find(|outcome| outcome.as_str() == word)
            .ok_or_else(|| Error::corrupt("build", format!("`{word}` is no outcome")))
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Its project.
    pub project_id: ProjectId,
    /// The service whose caches it uses.
    pub service_id: ServiceId,
    /// Digest of its source tree; `None` when it takes an image from elsewhere.
    pub tree_digest: Option<String>,
    /// The image elsewhere, as it was given.
    pub image_reference: Option<String>,
    /// `dockerfile`, `auto` or `image`, once planned.
    pub builder: Option<String>,
    /// The plan, once there is one.
    pub plan: Option<Value>,
    /// Equal keys in one project, equal images.
    pub image_key: Option<String>,
    /// How it is built.
    pub settings: BuildSettings,
    /// The key that its variables are sealed with.
    pub data_key_id: Uuid,
    /// The variables that it sees, sealed.
    pub sealed_variables: Vec<u8>,
    /// An equal image does not count: it is built in any case.
    pub rebuild: bool,
    /// How far it has come.
    pub outcome: Outcome,
    /// Why it failed.
    pub report: Option<Report>,
    /// What should be told although it went on.
    pub warnings: Vec<Report>,
    /// Its image, once there is one and as long as it is kept.
    pub image: Option<ImageReference>,
    /// Whether an equal image was found instead.
    pub reused: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it began, in milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub finished_ms: Option<i64>,
}

/// What a new build is made of.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// Its id.
    pub id: BuildId,
    /// Its project.
    pub project_id: ProjectId,
    /// The service whose caches it uses.
    pub service_id: ServiceId,
    /// Digest of its source tree; this or an image.
    pub tree_digest: Option<String>,
    /// The image elsewhere; this or a tree.
    pub image_reference: Option<String>,
    /// How it is built.
    pub settings: BuildSettings,
    /// The key that its variables are sealed with.
    pub data_key_id: Uuid,
    /// The variables that it sees, sealed for [`place`].
    pub sealed_variables: Vec<u8>,
    /// Build in any case.
    pub rebuild: bool,
    /// Now, in milliseconds since 1970.
    pub created_ms: i64,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    service_id: Uuid,
    tree_digest: Option<String>,
    image_reference: Option<String>,
    builder: Option<String>,
    plan: Option<Value>,
    image_key: Option<String>,
    settings: Value,
    data_key_id: Uuid,
    sealed_variables: Vec<u8>,
    rebuild: bool,
    outcome: String,
    report: Option<Value>,
    warnings: Value,
    repository: Option<String>,
    digest: Option<String>,
    reused: bool,
    created_ms: i64,
    started_ms: Option<i64>,
    finished_ms: Option<i64>,
}

impl TryFrom<Row> for Build {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let Row {
            id,
            project_id,
            service_id,
            tree_digest,
            image_reference,
            builder,
            plan,
            image_key,
            settings,
            data_key_id,
            sealed_variables,
            rebuild,
            outcome,
            report,
            warnings,
            repository,
            digest,
            reused,
            created_ms,
            started_ms,
            finished_ms,
        } = row;
        Ok(Self {
            id: BuildId::from_uuid(id),
            project_id: ProjectId::from_uuid(project_id),
            service_id: ServiceId::from_uuid(service_id),
            tree_digest,
            image_reference,
            builder,
            plan,
            image_key,
            settings: from_json("build", settings)?,
            data_key_id,
            sealed_variables,
            rebuild,
            outcome: Outcome::from_word(&outcome)?,
            report: report.map(|report| from_json("build", report)).transpose()?,
            warnings: from_json("build", warnings)?,
            image: repository
                .zip(digest)
                .map(|(repository, digest)| ImageReference { repository, digest }),
            reused,
            created_ms,
            started_ms,
            finished_ms,
        })
    }
}

/// Where a build's variables are sealed for.
pub fn place(id: BuildId) -> Place {
    Place::new("build", [id.uuid().as_bytes().as_slice()])
}

/// Makes a build; it is queued. The caller enqueues its key.
///
/// # Errors
/// [`Error::Reference`] when its project or service is not there.
pub async fn insert(tx: &mut Tx, new: &NewBuild) -> Result<(), Error> {
    let NewBuild {
        id,
        project_id,
        service_id,
        tree_digest,
        image_reference,
        settings,
        data_key_id,
        sealed_variables,
        rebuild,
        created_ms,
    } = new;
    sqlx::query!(
        "INSERT INTO build (id, project_id, service_id, tree_digest, image_reference, settings, data_key_id,
                            sealed_variables, rebuild, outcome, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'queued', $10)",
        id.uuid(),
        project_id.uuid(),
        service_id.uuid(),
        tree_digest.as_deref(),
        image_reference.as_deref(),
        to_json("build", settings)?,
        data_key_id,
        sealed_variables,
        rebuild,
        created_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A build by its id.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, id: BuildId) -> Result<Option<Build>, Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, project_id, service_id, tree_digest, image_reference, builder, plan, image_key, settings,
                data_key_id, sealed_variables, rebuild, outcome, report, warnings, repository, digest, reused,
                created_ms, started_ms, finished_ms
         FROM build WHERE id = $1",
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .map(Build::try_from)
    .transpose()
}

/// A build by its id.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(conn: &mut Conn, id: BuildId) -> Result<Build, Error> {
    find(conn, id).await?.ok_or_else(|| Error::not_found("build", id))
}

/// Builds that wait and were made before this one, and those that run.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn queue_position(conn: &mut Conn, id: BuildId) -> Result<u32, Error> {
    let before = sqlx::query_scalar!(
        r#"SELECT count(*) AS "before!" FROM build
           WHERE outcome IN ('queued', 'building') AND (outcome = 'building' OR id < $1)"#,
        id.uuid()
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(u32::try_from(before).unwrap_or(u32::MAX))
}

/// Whether a build should end: every deployment that waited for it has ended or shall end.
///
/// That is all that ends a build early: nobody cancels the build itself. Its row has a column `cancel_requested` that
/// nothing reads or writes; it stays until migrations may take columns away.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn is_unwanted(conn: &mut Conn, id: BuildId) -> Result<bool, Error> {
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM deployment WHERE build_id = build.id
               AND outcome IN ('queued', 'building', 'deploying') AND NOT deployment.cancel_requested) AS "unwanted!"
           FROM build WHERE id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(|| Error::not_found("build", id))
}

/// The deployments that have not ended and wait for a build, with their instances.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn waiting(conn: &mut Conn, id: BuildId) -> Result<Vec<(DeploymentId, InstanceId)>, Error> {
    let rows = sqlx::query!(
        "SELECT id, instance_id FROM deployment
         WHERE build_id = $1 AND outcome IN ('queued', 'building', 'deploying')",
        id.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                DeploymentId::from_uuid(row.id),
                InstanceId::from_uuid(row.instance_id),
            )
        })
        .collect())
}

/// The newest usable image of a project under a key.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_image_by_key(
    conn: &mut Conn,
    project: ProjectId,
    image_key: &str,
) -> Result<Option<ImageReference>, Error> {
    let row = sqlx::query!(
        r#"SELECT image.repository, image.digest FROM build
           JOIN image ON image.repository = build.repository AND image.digest = build.digest
           WHERE build.project_id = $1 AND build.image_key = $2 AND build.outcome = 'succeeded'
             AND image.condemned_ms IS NULL
           ORDER BY build.finished_ms DESC LIMIT 1"#,
        project.uuid(),
        image_key
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(row.map(|row| ImageReference {
        repository: row.repository,
        digest: row.digest,
    }))
}

/// The build that made an image which a later build of the same project took over, while it is remembered.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find_maker(
    conn: &mut Conn,
    project: ProjectId,
    image: &ImageReference,
) -> Result<Option<BuildId>, Error> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM build
         WHERE project_id = $1 AND repository = $2 AND digest = $3 AND outcome = 'succeeded' AND NOT reused
         ORDER BY finished_ms DESC LIMIT 1",
        project.uuid(),
        image.repository,
        image.digest
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(id.map(BuildId::from_uuid))
}

/// Notes that a build begins. One that began before a crash keeps its first time.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn begin(tx: &mut Tx, id: BuildId, now_ms: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE build SET outcome = 'building', started_ms = coalesce(started_ms, $2)
         WHERE id = $1 AND outcome IN ('queued', 'building')",
        id.uuid(),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps what is going to be built.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn set_plan(
    tx: &mut Tx,
    id: BuildId,
    builder: &str,
    plan: &Value,
    image_key: &str,
    warnings: &[Report],
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE build SET builder = $2, plan = $3, image_key = $4, warnings = $5 WHERE id = $1",
        id.uuid(),
        builder,
        plan,
        image_key,
        to_json("build", &warnings)?
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a build with an image. Whether it had not ended before.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn succeed(
    tx: &mut Tx,
    id: BuildId,
    image: &ImageReference,
    reused: bool,
    now_ms: i64,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        "UPDATE build SET outcome = 'succeeded', repository = $2, digest = $3, reused = $4, report = NULL,
                          started_ms = coalesce(started_ms, $5), finished_ms = $5
         WHERE id = $1 AND outcome IN ('queued', 'building')",
        id.uuid(),
        image.repository,
        image.digest,
        reused,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Ends a build without an image. Whether it had not ended before.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn end(
    tx: &mut Tx,
    id: BuildId,
    outcome: Outcome,
    report: Option<&Report>,
    now_ms: i64,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        "UPDATE build SET outcome = $2, report = $3, finished_ms = $4
         WHERE id = $1 AND outcome IN ('queued', 'building')",
        id.uuid(),
        outcome.as_str(),
        report.map(|report| to_json("build", report)).transpose()?,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Has a build that had succeeded start over, as if it were new: its image is gone.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn start_over(tx: &mut Tx, id: BuildId, now_ms: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE build SET outcome = 'queued', repository = NULL, digest = NULL, reused = false, created_ms = $2,
                          started_ms = NULL, finished_ms = NULL
         WHERE id = $1 AND outcome = 'succeeded'",
        id.uuid(),
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
