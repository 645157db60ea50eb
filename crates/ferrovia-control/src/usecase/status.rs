//! What is seen of an instance, put beside what is wanted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ferrovia_core::cutover::{Phase, Replica, STATE_STALE_MS, reason, standing};
use ferrovia_core::error::Report;
use ferrovia_core::id::{DeploymentId, InstanceId, ReplicaId};
use ferrovia_core::intent::Intent;
use ferrovia_core::name::Name;
use ferrovia_core::observation::{Health, Observation};
use ferrovia_core::outcome::{Outcome, State};
use ferrovia_core::permission::Action;
use ferrovia_core::settings::START_TRIES;
use ferrovia_store::{Conn, build, deployment, instance, replica, service};

use super::context::OpContext;
use super::error::Error;
use super::page::{Page, PageRequest};
use super::place::{Found, Place};
use super::view::InstanceView;
use super::{UseCases, find};

/// Older observations say nothing of now, in milliseconds.
pub const OBSERVATION_OLD_MS: i64 = STATE_STALE_MS;

/// What was last seen of an instance.
#[derive(Debug, Clone)]
pub struct ObservedState {
    /// The sum.
    pub state: State,
    /// When the newest observation behind it was made, in milliseconds since 1970.
    pub seen_at_ms: Option<i64>,
    /// How long ago that was, in milliseconds.
    pub age_ms: Option<u64>,
    /// Each replica that is meant to run or still does.
    pub replicas: Vec<ObservedReplica>,
}

/// What was last seen of one replica.
#[derive(Debug, Clone)]
pub struct ObservedReplica {
    /// Its id.
    pub id: ReplicaId,
    /// Its deployment.
    pub deployment_id: DeploymentId,
    /// Number of its deployment.
    pub deployment_number: u32,
    /// Place among the deployment's copies, from 1.
    pub ordinal: u32,
    /// What it does.
    pub state: State,
    /// Why it is not healthy, as far as is known.
    pub reason: Option<Report>,
    /// Start of its current run, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// Runs that ended since it was last healthy for a minute.
    pub crashes: u32,
    /// Exit code of its last run.
    pub last_exit_code: Option<i32>,
    /// Whether the kernel killed its last run for its memory limit.
    pub out_of_memory: bool,
}

impl ObservedState {
    /// Why a deployment of the instance is not healthy: what its first replica with a reason says.
    pub(super) fn reason_of(&self, id: DeploymentId) -> Option<Report> {
        self.replicas
            .iter()
            .filter(|replica| replica.deployment_id == id)
            .find_map(|replica| replica.reason.clone())
    }

    /// The state of one deployment of the instance.
    pub(super) fn of_deployment(&self, id: DeploymentId, outcome: Outcome) -> State {
        let states: Vec<State> = self
            .replicas
            .iter()
            .filter(|replica| replica.deployment_id == id)
            .map(|replica| replica.state)
            .collect();
        // From the worst to the best: a deployment is as well as its worst replica.
        let by_badness = [
            State::CrashLooping,
            State::Unhealthy,
            State::Unknown,
            State::Starting,
            State::Healthy,
        ];
        let worst = by_badness.into_iter().find(|state| states.contains(state));
        match worst {
            Some(state) => state,
            None if self.state == State::Sleeping && outcome == Outcome::Succeeded => State::Sleeping,
            None if outcome == Outcome::Deploying => State::Starting,
            None => State::Stopped,
        }
    }
}

impl UseCases {
    pub(super) async fn observe(
        &self,
        conn: &mut Conn,
        found: &Found,
        intent: &Intent,
    ) -> Result<ObservedState, Error> {
        let now_ms = self.clock.now_ms();
        let rows = replica::of_instance(conn, found.instance.id).await?;
        let seen = self.live.observations_of(found.instance.id);
        // Only while control hears a node it knows what is; what it heard before its start it does not know.
        let node_seen_ms = if self.live.sees() { now_ms } else { i64::MIN };
        let whole = standing(intent, &rows, &seen, node_seen_ms, now_ms);
        let stale = now_ms.saturating_sub(node_seen_ms) > STATE_STALE_MS;
        let mut replicas = Vec::with_capacity(rows.len());
        let mut known = HashMap::new();
        for row in &rows {
            let (deployment, port) = match known.entry(row.deployment_id) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(place) => {
                    let deployment = deployment::get(conn, row.deployment_id).await?;
                    let build = build::get(conn, deployment.build_id).await?;
                    let port = self.port_of(conn, &deployment, build.image.as_ref()).await?;
                    place.insert((deployment, port))
                }
            };
            let last = seen
                .iter()
                .filter(|seen| seen.replica_id == row.id)
                .max_by_key(|seen| seen.seen_at_ms);
            let mut replica = observed(row, last, deployment.number, stale);
            if !stale && row.phase.is_alive() {
                replica.reason =
                    last.and_then(|seen| reason(seen, &deployment.settings, *port, row.address, now_ms));
            }
            replicas.push(replica);
        }
        let age_ms = whole
            .seen_at_ms
            .and_then(|at_ms| u64::try_from(now_ms.saturating_sub(at_ms)).ok());
        Ok(ObservedState {
            state: whole.state,
            seen_at_ms: whole.seen_at_ms,
            age_ms,
            replicas,
        })
    }

    /// One instance: intent, deployments, and what was seen.
    ///
    /// # Errors
    /// When it is not there or the actor may not.
    pub async fn get_instance(&self, ctx: &OpContext, place: &Place) -> Result<InstanceView, Error> {
        let mut conn = self.db.conn().await?;
        let found = place.find(&mut conn, ctx, Action::ReadProject).await?;
        self.instance_view(&mut conn, found).await
    }

    /// The instances of an environment, by the service's name.
    ///
    /// # Errors
    /// When the environment is not there or the actor may not; `cursor_invalid`.
    pub async fn list_instances(
        &self,
        ctx: &OpContext,
        project: &str,
        environment: &str,
        page: &PageRequest,
    ) -> Result<Page<InstanceView>, Error> {
        let after = page.after::<Name>()?;
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, project, Action::ReadProject).await?;
        let environment = find::environment(&mut conn, project.id, environment).await?;
        let mut all = Vec::new();
        for instance in instance::of_environment(&mut conn, environment.id).await? {
            let service = service::get(&mut conn, instance.service_id).await?;
            if service.deleted_ms.is_none() && after.as_ref().is_none_or(|after| service.name > *after) {
                all.push((service, instance));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        all.truncate(page.fetch() as usize);
        let mut views = Vec::with_capacity(all.len());
        for (service, instance) in all {
            let found = Found {
                project: project.clone(),
                environment: environment.clone(),
                service,
                instance,
            };
            views.push(self.instance_view(&mut conn, found).await?);
        }
        Ok(page.page(views, |view| view.service.name.to_string()))
    }

    /// Instances that are known, for reading logs: id only.
    pub(super) async fn instance_id(&self, ctx: &OpContext, place: &Place) -> Result<InstanceId, Error> {
        let found = place
            .find(&mut *self.db.conn().await?, ctx, Action::ReadProject)
            .await?;
        Ok(found.instance.id)
    }
}

fn observed(
    row: &Replica,
    last: Option<&Observation>,
    deployment_number: u32,
    stale: bool,
) -> ObservedReplica {
    let state = match last.map(|seen| (&seen.health, seen.crashes)) {
        _ if stale => State::Unknown,
        None if row.phase.is_alive() => State::Starting,
        None => State::Stopped,
        Some((Health::Healthy { .. }, _)) => State::Healthy,
        Some((_, crashes)) if crashes >= START_TRIES => State::CrashLooping,
        Some((Health::Unhealthy { .. }, _)) => State::Unhealthy,
        Some((Health::Starting { .. }, _)) => State::Starting,
        // In the routes and down, as its instance says it: for good, or until the engine starts it again.
        Some((Health::Down, _)) if row.phase == Phase::Serving => State::Unhealthy,
        Some((Health::Down, _)) if row.phase.is_alive() => State::Starting,
        Some((Health::Down, _)) => State::Stopped,
    };
    let exit = last.and_then(|seen| seen.last_exit.as_ref());
    ObservedReplica {
        id: row.id,
        deployment_id: row.deployment_id,
        deployment_number,
        ordinal: row.ordinal,
        state,
        reason: None,
        started_at_ms: last.and_then(|seen| seen.started_at_ms),
        crashes: last.map_or(0, |seen| seen.crashes),
        last_exit_code: exit.map(|exit| exit.code),
        out_of_memory: exit.is_some_and(|exit| exit.out_of_memory),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use uuid::Uuid;

    use super::*;

    fn row(phase: Phase) -> Replica {
        Replica {
            id: ReplicaId::from_uuid(Uuid::nil()),
            deployment_id: DeploymentId::from_uuid(Uuid::nil()),
            ordinal: 1,
            address: Ipv4Addr::LOCALHOST,
            restart_nonce: 0,
            phase,
            phase_revision: 1,
            phase_ms: 0,
            started_at_ms: None,
            tries: 0,
            next_try_ms: None,
        }
    }

    fn seen(health: Health, crashes: u32) -> Observation {
        Observation {
            replica_id: ReplicaId::from_uuid(Uuid::nil()),
            deployment_id: DeploymentId::from_uuid(Uuid::nil()),
            instance_id: InstanceId::from_uuid(Uuid::nil()),
            handle: "c".into(),
            started_at_ms: Some(1),
            health,
            last_exit: None,
            crashes,
            listens_on: Vec::new(),
            root_status: None,
            log_drained: true,
            seen_at_ms: 2,
        }
    }

    #[test]
    fn what_ended_in_the_routes_does_not_start() {
        let state = |phase, crashes| {
            let last = seen(Health::Down, crashes);
            observed(&row(phase), Some(&last), 1, false).state
        };
        assert_eq!(state(Phase::Serving, 1), State::Unhealthy);
        assert_eq!(state(Phase::Serving, START_TRIES), State::CrashLooping);
        assert_eq!(state(Phase::Starting, 1), State::Starting);
        assert_eq!(state(Phase::Stopping, 1), State::Stopped);
    }

    #[test]
    fn of_what_nobody_sees_nothing_is_said() {
        let healthy = seen(Health::Healthy { since_ms: 1 }, 0);
        for phase in Phase::ALL {
            for last in [None, Some(&healthy)] {
                assert_eq!(observed(&row(phase), last, 1, true).state, State::Unknown);
            }
        }
        let unseen = |phase| observed(&row(phase), None, 1, false).state;
        assert_eq!(
            (unseen(Phase::Admitting), unseen(Phase::Leaving)),
            (State::Starting, State::Stopped)
        );
    }

    #[test]
    fn a_deployment_is_as_well_as_its_worst_replica() {
        let state = |state: State, stale| {
            let of = |last: Option<&Observation>| observed(&row(Phase::Serving), last, 1, stale);
            let (healthy, down) = (seen(Health::Healthy { since_ms: 1 }, 0), seen(Health::Down, 1));
            let whole = ObservedState {
                state,
                seen_at_ms: None,
                age_ms: None,
                replicas: vec![of(Some(&healthy)), of(Some(&down).filter(|_| !stale))],
            };
            whole.of_deployment(DeploymentId::from_uuid(Uuid::nil()), Outcome::Succeeded)
        };
        assert_eq!(state(State::Unhealthy, false), State::Unhealthy);
        assert_eq!(state(State::Unknown, true), State::Unknown);
    }
}
