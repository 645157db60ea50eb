//! Deployments and builds, to the wire; a deployment to be made, from it.

use ferrovia_api::build as api_build;
use ferrovia_api::deployment as api;
use ferrovia_control::usecase::{BuildView, DeploymentRequest, DeploymentSource, DeploymentView};
use ferrovia_core::injected::GitSource;
use ferrovia_core::outcome::{Durations, Outcome};
use ferrovia_store::build::{Build, Outcome as BuildOutcome};
use ferrovia_store::deployment::Deployment;

use super::instance::state;
use super::{
    named_environment, named_project, named_service, report, reports, settings_change, time, time_of,
};

/// An attempt to run an instance.
pub fn deployment(view: DeploymentView) -> api::Deployment {
    let DeploymentView {
        project,
        environment,
        service,
        deployment,
        image,
        state: seen,
        waits_for,
        reason,
        url,
    } = view;
    let Deployment {
        id,
        instance_id,
        number,
        build_id,
        settings: _,
        data_key_id: _,
        sealed_variables: _,
        source,
        outcome: word,
        report: error,
        warnings,
        cancel_requested,
        durations,
        created_ms,
        deploy_started_ms: _,
        finished_ms,
    } = deployment;
    api::Deployment {
        id: id.uuid(),
        number,
        instance_id: instance_id.uuid(),
        project: named_project(&project),
        environment: named_environment(&environment),
        service: named_service(&service),
        build_id: build_id.uuid(),
        outcome: outcome(word),
        error: error.map(report),
        warnings: reports(warnings),
        state: state(seen),
        waits_for,
        reason: reason.map(report),
        url,
        image,
        git: git(source),
        durations_ms: wire_durations(durations),
        cancel_requested,
        created_at: time(created_ms),
        finished_at: time_of(finished_ms),
    }
}

fn outcome(outcome: Outcome) -> api::Outcome {
    match outcome {
        Outcome::Queued => api::Outcome::Queued,
        Outcome::Building => api::Outcome::Building,
        Outcome::Deploying => api::Outcome::Deploying,
        Outcome::Succeeded => api::Outcome::Succeeded,
        Outcome::Failed => api::Outcome::Failed,
        Outcome::Cancelled => api::Outcome::Cancelled,
        Outcome::Superseded => api::Outcome::Superseded,
    }
}

fn wire_durations(durations: Durations) -> api::Durations {
    let Durations {
        upload,
        queue,
        build,
        deploy,
        total,
    } = durations;
    api::Durations {
        upload,
        queue,
        build,
        deploy,
        total,
    }
}

fn git(source: GitSource) -> api::GitInfo {
    let GitSource {
        commit_sha,
        branch,
        author,
        message,
    } = source;
    api::GitInfo {
        commit_sha,
        branch,
        author,
        message,
    }
}

/// A deployment to be made.
pub fn deployment_request(new: api::NewDeployment) -> DeploymentRequest {
    let api::NewDeployment {
        source,
        settings,
        git,
        upload_ms,
        rebuild,
    } = new;
    let api::GitInfo {
        commit_sha,
        branch,
        author,
        message,
    } = git;
    DeploymentRequest {
        source: match source {
            api::DeploymentSource::Tree { digest } => DeploymentSource::Tree(digest),
            api::DeploymentSource::Image { reference } => DeploymentSource::Image(reference),
        },
        settings: settings.map(settings_change),
        git: GitSource {
            commit_sha,
            branch,
            author,
            message,
        },
        upload_ms: upload_ms.map(u64::from),
        rebuild,
    }
}

/// A build. One that is neither from a tree nor from elsewhere cannot be: the table says so.
pub fn build(view: BuildView) -> api_build::Build {
    let BuildView {
        build,
        queue_position,
        made_by,
    } = view;
    let Build {
        id,
        project_id,
        service_id,
        tree_digest,
        image_reference,
        builder,
        plan,
        image_key: _,
        settings: _,
        data_key_id: _,
        sealed_variables: _,
        rebuild: _,
        outcome,
        report: error,
        warnings,
        image,
        reused,
        created_ms,
        started_ms,
        finished_ms,
    } = build;
    let source = match tree_digest {
        Some(digest) => api::DeploymentSource::Tree { digest },
        None => api::DeploymentSource::Image {
            reference: image_reference.unwrap_or_default(),
        },
    };
    api_build::Build {
        id: id.uuid(),
        project_id: project_id.uuid(),
        service_id: service_id.uuid(),
        source,
        builder,
        plan,
        outcome: match outcome {
            BuildOutcome::Queued => api_build::BuildOutcome::Queued,
            BuildOutcome::Building => api_build::BuildOutcome::Building,
            BuildOutcome::Succeeded => api_build::BuildOutcome::Succeeded,
            BuildOutcome::Failed => api_build::BuildOutcome::Failed,
            BuildOutcome::Cancelled => api_build::BuildOutcome::Cancelled,
        },
        error: error.map(report),
        warnings: reports(warnings),
        image: image.map(|image| image.digest),
        reused,
        made_by: made_by.map(|id| id.uuid()),
        queue_position,
        created_at: time(created_ms),
        started_at: time_of(started_ms),
        finished_at: time_of(finished_ms),
    }
}
