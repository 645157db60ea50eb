//! The rows that use cases make.

use ferrovia_control::work;
use ferrovia_core::id::{
    BuildId, DeploymentId, DomainId, EnvironmentId, Id, InstanceId, ProjectId, ServiceId, TeamId,
};
use ferrovia_core::injected::GitSource;
use ferrovia_core::name::Name;
use ferrovia_core::network::AddressPlan;
use ferrovia_core::secret::Secret;
use ferrovia_core::settings::Settings;
use ferrovia_store::build::NewBuild;
use ferrovia_store::deployment::NewDeployment;
use ferrovia_store::environment::NewEnvironment;
use ferrovia_store::instance::NewInstance;
use ferrovia_store::project::NewProject;
use ferrovia_store::queue;
use ferrovia_store::seal::Keyring;
use ferrovia_store::service::NewService;
use ferrovia_store::team::Team;
use ferrovia_store::{
    Clock, Db, Error, Tx, build, deployment, domain, environment, instance, intent, project, service, team,
};
use uuid::Uuid;

pub struct Rows {
    pub team: TeamId,
    pub project: ProjectId,
    pub environment: EnvironmentId,
    pub service: ServiceId,
    pub instance: InstanceId,
    pub data_key: Uuid,
    pub host: String,
}

pub fn new_id<K>() -> Id<K> {
    Id::from_uuid(Uuid::now_v7())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Rows {
    pub async fn make(db: &Db, keyring: &Keyring, clock: &Clock) -> Self {
        let (keyring, now_ms) = (keyring.clone(), clock.now_ms());
        db.tx::<_, Error>(move |tx| Box::pin(async move { Self::insert(tx, &keyring, now_ms).await }))
            .await
            .unwrap()
    }

    async fn insert(tx: &mut Tx, keyring: &Keyring, created_ms: i64) -> Result<Self, Error> {
        let team = new_id();
        let new = Team {
            id: team,
            name: "default".into(),
            created_ms,
        };
        team::insert(tx, &new).await?;
        let data_key = keyring.create(tx, Uuid::now_v7(), created_ms).await?.id();
        let new = NewProject {
            id: new_id(),
            team_id: team,
            name: name("shop"),
            data_key_id: data_key,
            created_ms,
        };
        let project = project::insert(tx, &new).await?.id;
        let new = NewEnvironment {
            id: new_id(),
            project_id: project,
            name: name("production"),
            bridge: 0,
            created_ms,
        };
        let environment = environment::insert(tx, &new).await?.id;
        let new = NewService {
            id: new_id(),
            project_id: project,
            name: name("web"),
            created_ms,
        };
        let service = service::insert(tx, &new).await?.id;
        let new = NewInstance {
            id: new_id(),
            service_id: service,
            environment_id: environment,
            settings: Settings::default(),
            created_ms,
        };
        let instance = instance::insert(tx, &new, &AddressPlan::default()).await?.id;
        let names = (&name("web"), &name("production"));
        let host = domain::generate(
            tx,
            new_id::<_>() as DomainId,
            instance,
            names,
            "localhost",
            created_ms,
        )
        .await?
        .host;
        Ok(Self {
            team,
            project,
            environment,
            service,
            instance,
            data_key,
            host,
        })
    }

    /// Another service of the same environment, with rows of its own.
    pub async fn another(&self, db: &Db, text: &str, created_ms: i64) -> Self {
        let (project, environment, text) = (self.project, self.environment, text.to_owned());
        let (service, instance, host) = db
            .tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    let new = NewService {
                        id: new_id(),
                        project_id: project,
                        name: name(&text),
                        created_ms,
                    };
                    let service = service::insert(tx, &new).await?.id;
                    let new = NewInstance {
                        id: new_id(),
                        service_id: service,
                        environment_id: environment,
                        settings: Settings::default(),
                        created_ms,
                    };
                    let instance = instance::insert(tx, &new, &AddressPlan::default()).await?.id;
                    let names = (&name(&text), &name("production"));
                    let id: DomainId = new_id();
                    let domain = domain::generate(tx, id, instance, names, "localhost", created_ms).await?;
                    Ok((service, instance, domain.host))
                })
            })
            .await
            .unwrap();
        Self {
            service,
            instance,
            host,
            ..*self
        }
    }

    /// The same service in another environment, with rows of its own.
    pub async fn elsewhere(&self, db: &Db, text: &str, created_ms: i64) -> Self {
        let (project, service, text) = (self.project, self.service, text.to_owned());
        let (environment, instance, host) = db
            .tx::<_, Error>(move |tx| {
                Box::pin(async move {
                    let new = NewEnvironment {
                        id: new_id(),
                        project_id: project,
                        name: name(&text),
                        bridge: 0,
                        created_ms,
                    };
                    let environment = environment::insert(tx, &new).await?.id;
                    let new = NewInstance {
                        id: new_id(),
                        service_id: service,
                        environment_id: environment,
                        settings: Settings::default(),
                        created_ms,
                    };
                    let instance = instance::insert(tx, &new, &AddressPlan::default()).await?.id;
                    let names = (&name("web"), &name(&text));
                    let id: DomainId = new_id();
                    let domain = domain::generate(tx, id, instance, names, "localhost", created_ms).await?;
                    Ok((environment, instance, domain.host))
                })
            })
            .await
            .unwrap();
        Self {
            environment,
            instance,
            host,
            ..*self
        }
    }

    pub async fn deploy(
        &self,
        db: &Db,
        keyring: &Keyring,
        clock: &Clock,
        tree: &str,
        variables: &[(&str, &str)],
        settings: Settings,
    ) -> DeploymentId {
        let (build_id, id): (BuildId, DeploymentId) = (new_id(), new_id());
        let key = keyring
            .get(&mut db.conn().await.unwrap(), self.data_key)
            .await
            .unwrap();
        let pairs: Vec<(String, Secret)> = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Secret::new(*value)))
            .collect();
        let new_build = NewBuild {
            id: build_id,
            project_id: self.project,
            service_id: self.service,
            tree_digest: Some(tree.to_owned()),
            image_reference: None,
            settings: settings.build.clone(),
            data_key_id: self.data_key,
            sealed_variables: key.seal_pairs(&[], &build::place(build_id)).unwrap(),
            rebuild: false,
            created_ms: clock.now_ms(),
        };
        let mut new = NewDeployment {
            id,
            instance_id: self.instance,
            number: 0,
            build_id,
            settings,
            data_key_id: self.data_key,
            sealed_variables: key.seal_pairs(&pairs, &deployment::place(id)).unwrap(),
            source: GitSource::default(),
            upload_ms: Some(12),
            created_ms: clock.now_ms(),
        };
        let (team, instance) = (self.team, self.instance);
        db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                build::insert(tx, &new_build).await?;
                new.number = instance::take_deployment_number(tx, instance).await?;
                deployment::insert(tx, &new).await?;
                let names = (instance, id);
                domain::generate_for_deployment(
                    tx,
                    new_id(),
                    names,
                    &name("web"),
                    "localhost",
                    new.created_ms,
                )
                .await?;
                queue::enqueue(tx, &work::build(build_id, team)).await?;
                queue::enqueue(tx, &work::instance(instance, team)).await
            })
        })
        .await
        .unwrap();
        id
    }

    /// A new deployment of a build that there is.
    pub async fn redeploy(
        &self,
        db: &Db,
        keyring: &Keyring,
        clock: &Clock,
        build_id: BuildId,
    ) -> DeploymentId {
        let id = new_id();
        let key = keyring
            .get(&mut db.conn().await.unwrap(), self.data_key)
            .await
            .unwrap();
        let mut new = NewDeployment {
            id,
            instance_id: self.instance,
            number: 0,
            build_id,
            settings: Settings::default(),
            data_key_id: self.data_key,
            sealed_variables: key.seal_pairs(&[], &deployment::place(id)).unwrap(),
            source: GitSource::default(),
            upload_ms: None,
            created_ms: clock.now_ms(),
        };
        let (team, instance) = (self.team, self.instance);
        db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                new.number = instance::take_deployment_number(tx, instance).await?;
                deployment::insert(tx, &new).await?;
                queue::enqueue(tx, &work::build(build_id, team)).await?;
                queue::enqueue(tx, &work::instance(instance, team)).await
            })
        })
        .await
        .unwrap();
        id
    }

    /// Changes the intent as a use case does.
    pub async fn change(
        &self,
        db: &Db,
        body: impl for<'t> FnOnce(&'t mut Tx, InstanceId) -> ferrovia_store::BoxFuture<'t, Result<(), Error>>
        + Clone
        + Send
        + 'static,
    ) {
        let (team, instance) = (self.team, self.instance);
        db.tx::<_, Error>(move |tx| {
            Box::pin(async move {
                body(tx, instance).await?;
                queue::enqueue(tx, &work::instance(instance, team)).await
            })
        })
        .await
        .unwrap();
    }

    pub async fn scale(&self, db: &Db, replicas: u32) {
        self.change(db, move |tx, id| Box::pin(intent::set_replicas(tx, id, replicas)))
            .await;
    }

    pub async fn restart(&self, db: &Db) {
        self.change(db, |tx, id| Box::pin(intent::restart(tx, id))).await;
    }

    pub async fn hold(&self, db: &Db, held: bool) {
        self.change(db, move |tx, id| Box::pin(intent::set_held(tx, id, held)))
            .await;
    }

    pub async fn down(&self, db: &Db) {
        self.change(db, |tx, id| {
            Box::pin(async move {
                intent::set_target(tx, id, None).await?;
                deployment::request_cancel_of_instance(tx, id).await
            })
        })
        .await;
    }

    pub async fn cancel(&self, db: &Db, deployment: DeploymentId) {
        self.change(db, move |tx, _| {
            Box::pin(async move { deployment::request_cancel(tx, deployment).await.map(|_| ()) })
        })
        .await;
    }

    /// Deletes the environment.
    pub async fn delete(&self, db: &Db, now_ms: i64) {
        let environment = self.environment;
        self.change(db, move |tx, _| {
            Box::pin(async move {
                let version = environment::get(tx, environment).await?.version;
                environment::delete(tx, environment, version, now_ms)
                    .await
                    .map(|_| ())
            })
        })
        .await;
    }
}
