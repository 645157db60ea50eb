//! A project with everything that other objects hang on.

use std::path::Path;
use std::sync::Arc;

use ferrovia_core::id::{EnvironmentId, Id, InstanceId, ProjectId, ServiceId, TeamId};
use ferrovia_core::name::Name;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::settings::Settings;
use ferrovia_store::environment::{self, Environment, NewEnvironment};
use ferrovia_store::instance::{self, Instance, NewInstance};
use ferrovia_store::project::{self, NewProject, Project};
use ferrovia_store::seal::{DataKey, Keyring};
use ferrovia_store::service::{self, NewService, Service};
use ferrovia_store::team::{self, Team};
use ferrovia_store::{BoxFuture, Error, Tx};
use ferrovia_testkit::{TestDb, database};
use uuid::Uuid;

/// When everything here was made.
pub const NOW_MS: i64 = 1_767_225_600_000;

pub struct Fixture {
    pub test: TestDb,
    pub dir: tempfile::TempDir,
    pub data_key: Arc<DataKey>,
    pub team: Team,
    pub project: Project,
    pub environment: Environment,
    pub service: Service,
    pub instance: Instance,
}

pub fn id<K>() -> Id<K> {
    Id::from_uuid(Uuid::now_v7())
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Fixture {
    pub async fn new() -> Self {
        let test = database().await;
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(&test.db, dir.path()).await.unwrap();
        let team = Team {
            id: id(),
            name: "default".to_owned(),
            created_ms: NOW_MS,
        };
        let made = team.clone();
        let (data_key, project, environment, service, instance) = test
            .db
            .tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    team::insert(tx, &made).await?;
                    let data_key = keyring.create(tx, Uuid::now_v7(), NOW_MS).await?;
                    let project = project::insert(tx, &new_project(made.id, "shop", data_key.id())).await?;
                    let environment =
                        environment::insert(tx, &new_environment(project.id, "production")).await?;
                    let service = service::insert(tx, &new_service(project.id, "web")).await?;
                    let new = new_instance(service.id, environment.id);
                    let instance = instance::insert(tx, &new, &AddressPlan::default()).await?;
                    Ok((data_key, project, environment, service, instance))
                })
            })
            .await
            .unwrap();
        Self {
            test,
            dir,
            data_key,
            team,
            project,
            environment,
            service,
            instance,
        }
    }

    /// A transaction that must succeed.
    pub async fn tx<T: Send + 'static>(
        &self,
        body: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, Error>> + Clone + Send + 'static,
    ) -> T {
        self.test.db.tx(body).await.unwrap()
    }

    /// A connection for reading.
    pub async fn conn(&self) -> ferrovia_store::PooledConn {
        self.test.db.conn().await.unwrap()
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }
}

pub fn new_project(team_id: TeamId, text: &str, data_key_id: Uuid) -> NewProject {
    NewProject {
        id: id(),
        team_id,
        name: name(text),
        data_key_id,
        created_ms: NOW_MS,
    }
}

pub fn new_environment(project_id: ProjectId, text: &str) -> NewEnvironment {
    NewEnvironment {
        id: id(),
        project_id,
        name: name(text),
        bridge: 0,
        created_ms: NOW_MS,
    }
}

pub fn new_service(project_id: ProjectId, text: &str) -> NewService {
    NewService {
        id: id(),
        project_id,
        name: name(text),
        created_ms: NOW_MS,
    }
}

pub fn new_instance(service_id: ServiceId, environment_id: EnvironmentId) -> NewInstance {
    let id: InstanceId = id();
    NewInstance {
        id,
        service_id,
        environment_id,
        settings: Settings::default(),
        created_ms: NOW_MS,
    }
}
