//! Instances, to the wire.

use ferrovia_api::instance as api;
use ferrovia_control::usecase::{InstanceView, ObservedReplica, ObservedState};
use ferrovia_core::injected::PRIVATE_SUFFIX;
use ferrovia_core::intent::Intent;
use ferrovia_core::outcome::State;

use super::{deployment, named_environment, named_project, named_service, reports, settings, time_of};

/// A service in an environment.
pub fn instance(view: InstanceView) -> api::Instance {
    let InstanceView {
        project,
        environment,
        service,
        instance,
        intent,
        observed,
        url,
        latest,
        running,
        notes,
    } = view;
    api::Instance {
        id: instance.id.uuid(),
        project: named_project(&project),
        environment: named_environment(&environment),
        private_domain: format!("{}.{PRIVATE_SUFFIX}", service.name),
        service: named_service(&service),
        settings: settings(instance.settings),
        intent: wire_intent(intent),
        observed: wire_observed(observed),
        url,
        latest: latest.map(deployment),
        running: running.map(deployment),
        notes: reports(notes),
    }
}

fn wire_intent(intent: Intent) -> api::Intent {
    let Intent {
        target,
        replicas,
        restart_nonce: _,
        asleep,
        held,
        generation,
    } = intent;
    api::Intent {
        target_deployment_id: target.map(|target| target.uuid()),
        replicas,
        asleep,
        held,
        generation,
    }
}

fn wire_observed(observed: ObservedState) -> api::Observed {
    let ObservedState {
        state: word,
        seen_at_ms,
        age_ms,
        replicas,
    } = observed;
    api::Observed {
        state: state(word),
        observed_at: time_of(seen_at_ms),
        age_ms,
        replicas: replicas.into_iter().map(wire_replica).collect(),
    }
}

fn wire_replica(replica: ObservedReplica) -> api::ObservedReplica {
    let ObservedReplica {
        id,
        deployment_id: _,
        deployment_number,
        ordinal,
        state: word,
        reason,
        started_at_ms,
        crashes,
        last_exit_code,
        out_of_memory,
    } = replica;
    api::ObservedReplica {
        id: id.uuid(),
        deployment_number,
        ordinal,
        state: state(word),
        why: reason.as_ref().map(|reason| reason.message.clone()),
        hint: reason.and_then(|reason| reason.hint),
        started_at: time_of(started_at_ms),
        crashes,
        last_exit_code,
        out_of_memory,
    }
}

/// A state.
pub(super) fn state(state: State) -> api::State {
    match state {
        State::Starting => api::State::Starting,
        State::Healthy => api::State::Healthy,
        State::Unhealthy => api::State::Unhealthy,
        State::CrashLooping => api::State::CrashLooping,
        State::Sleeping => api::State::Sleeping,
        State::Stopped => api::State::Stopped,
        State::Unknown => api::State::Unknown,
    }
}
