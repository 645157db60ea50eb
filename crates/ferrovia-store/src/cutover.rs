//! Everything that cut-over needs to know of one instance, read at one moment.
//!
//! Run it in [`crate::Db::snapshot`]: intent, deployments and replicas belong together.

use ferrovia_core::cutover::{Attempt, BuildStanding, ImageStanding, Place, Replica};
use ferrovia_core::error::Report;
use ferrovia_core::id::{BuildId, DeploymentId, EnvironmentId, InstanceId, ProjectId, ServiceId, TeamId};
use ferrovia_core::injected::GitSource;
use ferrovia_core::intent::Intent;
use ferrovia_core::name::Name;
use ferrovia_core::settings::Settings;
use ferrovia_core::workload::ImageReference;
use uuid::Uuid;

use crate::deployment::outcome_from;
use crate::row::{address, count, from_json, name};
use crate::{Conn, Error, image, intent, replica, table};

/// An instance with everything around it.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Whose turn its work takes.
    pub team_id: TeamId,
    /// Its project.
    pub project_id: ProjectId,
    /// The project's name.
    pub project: Name,
    /// The environment's name.
    pub environment: Name,
    /// Its service.
    pub service_id: ServiceId,
    /// The bridge that its replicas are on.
    pub bridge: u32,
    /// Where it stands in the tables.
    pub place: Place,
    /// Its generated host name.
    pub host: Option<String>,
    /// What should run.
    pub intent: Intent,
    /// The deployments that matter: the target, those that have not ended, those with replicas, and the newest.
    pub deployments: Vec<DeploymentFacts>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// Its rows in the tables.
    pub published: Vec<table::Published>,
}

/// A deployment that matters.
#[derive(Debug, Clone)]
pub struct DeploymentFacts {
    /// What the planner needs of it.
    pub attempt: Attempt,
    /// Its build.
    pub build_id: BuildId,
    /// Its image, once there is one.
    pub image: Option<ImageReference>,
    /// Codes of the warnings that it has.
    pub warned: Vec<String>,
    /// The key that its variables are sealed with.
    pub data_key_id: Uuid,
    /// Its variables, sealed.
    pub sealed_variables: Vec<u8>,
    /// Where its source came from.
    pub source: GitSource,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When its build began, in milliseconds since 1970.
    pub build_started_ms: Option<i64>,
    /// When its build ended, in milliseconds since 1970.
    pub build_finished_ms: Option<i64>,
}

/// Reads an instance; `None` when there is none.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Corrupt`].
pub async fn find(conn: &mut Conn, instance: InstanceId) -> Result<Option<Situation>, Error> {
    let Some(row) = sqlx::query!(
        r#"SELECT instance.environment_id, instance.service_id, host(instance.virtual_address) AS "virtual_address!",
                  environment.name AS environment, environment.mark, environment.bridge, service.name AS service,
                  project.id AS project_id, project.name AS project, project.team_id,
                  (instance.deleted_ms IS NOT NULL OR environment.deleted_ms IS NOT NULL
                   OR service.deleted_ms IS NOT NULL OR project.deleted_ms IS NOT NULL) AS "deleted!"
           FROM instance
           JOIN environment ON environment.id = instance.environment_id
           JOIN service ON service.id = instance.service_id
           JOIN project ON project.id = service.project_id
           WHERE instance.id = $1"#,
        instance.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(None);
    };
    let intent = intent::get(conn, instance).await?;
    let deployments = deployments(conn, instance, intent.target).await?;
    let replicas = replica::of_instance(conn, instance).await?;
    let hosts = hosts(conn, instance, &replicas).await?;
    let published = table::of_instance(conn, instance).await?;
    let project = name("project", &row.project)?;
    let environment = name("environment", &row.environment)?;
    let service = name("service", &row.service)?;
    Ok(Some(Situation {
        team_id: TeamId::from_uuid(row.team_id),
        project_id: ProjectId::from_uuid(row.project_id),
        service_id: ServiceId::from_uuid(row.service_id),
        bridge: count("environment", row.bridge)?,
        host: hosts.generated,
        place: Place {
            instance_id: instance,
            environment_id: EnvironmentId::from_uuid(row.environment_id),
            mark: count("environment", row.mark)?,
            label: format!("{project}/{environment}/{service}"),
            service,
            virtual_address: address("instance", &row.virtual_address)?,
            deleted: row.deleted,
            hosts: hosts.instance,
            deployment_hosts: hosts.deployments,
        },
        project,
        environment,
        intent,
        deployments,
        replicas,
        published,
    }))
}

/// The instances that are not as their rows want them, or are on their way: those that must be looked at though
/// nothing was enqueued for them. Held ones are left alone.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn unsettled(conn: &mut Conn) -> Result<Vec<InstanceId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar!(
        r#"WITH state AS (
               SELECT instance.id, intent.target_deployment AS target, intent.restart_nonce AS nonce,
                      instance_life.deleted_ms IS NOT NULL AS deleted,
                      CASE WHEN intent.asleep OR intent.target_deployment IS NULL THEN 0 ELSE intent.replicas END AS wanted
               FROM instance
               JOIN intent ON intent.instance_id = instance.id
               JOIN instance_life ON instance_life.instance_id = instance.id
               WHERE NOT intent.held)
           SELECT id AS "id!" FROM state
           WHERE EXISTS (SELECT FROM deployment WHERE instance_id = state.id
                         AND outcome IN ('queued', 'building', 'deploying'))
              OR (SELECT count(*) FROM replica WHERE instance_id = state.id
                  AND deployment_id = state.target AND restart_nonce = state.nonce AND phase = 'serving')
                 <> CASE WHEN deleted THEN 0 ELSE wanted END
              OR (SELECT count(*) FROM replica WHERE instance_id = state.id)
                 <> CASE WHEN deleted THEN 0 ELSE wanted END
              OR deleted AND EXISTS (SELECT FROM table_row WHERE instance_id = state.id AND value IS NOT NULL)"#
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(ids.into_iter().map(InstanceId::from_uuid).collect())
}

/// Which of these instances have rows.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn known(conn: &mut Conn, instances: &[InstanceId]) -> Result<Vec<InstanceId>, Error> {
    let ids: Vec<Uuid> = instances.iter().map(|id| id.uuid()).collect();
    let known: Vec<Uuid> = sqlx::query_scalar!("SELECT id FROM instance WHERE id = ANY($1)", &ids)
        .fetch_all(&mut *conn)
        .await?;
    Ok(known.into_iter().map(InstanceId::from_uuid).collect())
}

#[derive(Default)]
struct Hosts {
    generated: Option<String>,
    instance: Vec<String>,
    deployments: Vec<(DeploymentId, String)>,
}

/// Host names of the instance, and of those deployments that have replicas: the others answer nowhere.
async fn hosts(conn: &mut Conn, instance: InstanceId, replicas: &[Replica]) -> Result<Hosts, Error> {
    let running: Vec<Uuid> = replicas
        .iter()
        .map(|replica| replica.deployment_id.uuid())
        .collect();
    let rows = sqlx::query!(
        "SELECT host, kind, deployment_id FROM domain
         WHERE instance_id = $1 AND deleted_ms IS NULL AND (kind <> 'deployment' OR deployment_id = ANY($2))
         ORDER BY created_ms, host",
        instance.uuid(),
        &running
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut hosts = Hosts::default();
    for row in rows {
        match row.deployment_id {
            Some(deployment) if row.kind == "deployment" => {
                hosts
                    .deployments
                    .push((DeploymentId::from_uuid(deployment), row.host));
            }
            _ => {
                if row.kind == "generated" && hosts.generated.is_none() {
                    hosts.generated = Some(row.host.clone());
                }
                hosts.instance.push(row.host);
            }
        }
    }
    Ok(hosts)
}

async fn deployments(
    conn: &mut Conn,
    instance: InstanceId,
    target: Option<DeploymentId>,
) -> Result<Vec<DeploymentFacts>, Error> {
    let rows = sqlx::query!(
        r#"SELECT deployment.id, deployment.number, deployment.build_id, deployment.settings, deployment.data_key_id,
                  deployment.sealed_variables, deployment.source, deployment.outcome, deployment.warnings,
                  deployment.cancel_requested, deployment.created_ms, deployment.deploy_started_ms,
                  build.outcome AS build_outcome, build.report AS build_report, build.repository AS "repository?",
                  build.digest AS "digest?", build.started_ms AS build_started_ms,
                  build.finished_ms AS build_finished_ms, image.config AS "config?"
           FROM deployment
           JOIN build ON build.id = deployment.build_id
           LEFT JOIN image ON image.repository = build.repository AND image.digest = build.digest
           WHERE deployment.instance_id = $1 AND (
               deployment.id = $2 OR deployment.outcome IN ('queued', 'building', 'deploying')
               OR deployment.id IN (SELECT deployment_id FROM replica WHERE replica.instance_id = $1)
               OR deployment.number = (SELECT max(number) FROM deployment AS newest WHERE newest.instance_id = $1))
           ORDER BY deployment.number"#,
        instance.uuid(),
        target.map(DeploymentId::uuid)
    )
    .fetch_all(&mut *conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let settings: Settings = from_json("deployment", row.settings)?;
            let warnings: Vec<Report> = from_json("deployment", row.warnings)?;
            let report = row
                .build_report
                .map(|report| from_json("build", report))
                .transpose()?;
            let image = row
                .repository
                .zip(row.digest)
                .map(|(repository, digest)| ImageReference { repository, digest });
            Ok(DeploymentFacts {
                attempt: Attempt {
                    id: DeploymentId::from_uuid(row.id),
                    number: count("deployment", row.number)?,
                    outcome: outcome_from(&row.outcome)?,
                    port: row
                        .config
                        .as_ref()
                        .and_then(|config| image::port(config, settings.port)),
                    settings,
                    build: standing(&row.build_outcome, report),
                    image: ImageStanding::Unknown,
                    cancel_requested: row.cancel_requested,
                    deploy_started_ms: row.deploy_started_ms,
                },
                build_id: BuildId::from_uuid(row.build_id),
                image,
                warned: warnings.into_iter().map(|warning| warning.code).collect(),
                data_key_id: row.data_key_id,
                sealed_variables: row.sealed_variables,
                source: from_json("deployment", row.source)?,
                created_ms: row.created_ms,
                build_started_ms: row.build_started_ms,
                build_finished_ms: row.build_finished_ms,
            })
        })
        .collect()
}

/// A build that succeeded and whose image is gone has succeeded too: whoever begins with it finds that out and has it
/// start over.
fn standing(outcome: &str, report: Option<Report>) -> BuildStanding {
    match outcome {
        "building" => BuildStanding::Running,
        "succeeded" => BuildStanding::Succeeded,
        "failed" => {
            BuildStanding::Failed(report.unwrap_or_else(|| Report::new("build_failed", "the build failed")))
        }
        "cancelled" => BuildStanding::Cancelled,
        _ => BuildStanding::Waiting,
    }
}
