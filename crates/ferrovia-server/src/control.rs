//! `ferroviad control`: API, reconcilers, builds and the registry, in one process.
//!
//! Nobody's request depends on it: it may end at any moment and start again. It waits for the database as long as it
//! must, and ends by itself only on SIGTERM.

pub mod builds;
mod database;
mod installation;
mod registries;
mod registry_address;

use std::sync::Arc;
use std::time::Duration;

use ferrovia_api::client::{Client, Endpoint};
use ferrovia_build::Builder;
use ferrovia_build::registry::{self, Access, Scope, Store};
use ferrovia_build::simulated::SimulatedBuilder;
use ferrovia_build::tree::TreeStore;
use ferrovia_control::disk::{RegistrySweep, TreeSweep};
use ferrovia_control::usecase::{self, PublicSite, UseCases};
use ferrovia_control::{Control, Options, Parts, Site, Sweep};
use ferrovia_core::table::Audience;
use ferrovia_engine::{Engine, RegistryLogin};
use ferrovia_store::{Clock, Db};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::command::Failure;
use crate::config::{Config, EngineKind};
use crate::http::{State, router, serve};
use crate::process::lock::Lock;
use crate::process::user;
use crate::{engine, installation as identity};

/// Passes over instances that are under way at the same time.
const CONTROL_SLOTS: u32 = 16;
/// A build waits while less memory than this is available on the host, in bytes.
const BUILD_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// How long the API may take to say whether it is ready, in milliseconds.
const READINESS_MS: u64 = 1_000;
/// What the API is served over; TLS comes with certificates.
const SCHEME: &str = "http";

/// Runs until SIGTERM.
///
/// # Errors
/// When another control lives, a listener cannot be made, or the database is not one that can be used.
pub async fn run(config: Config) -> Result<(), Failure> {
    let _lock = Lock::take(&config.paths.run, "control", &config.hash())?;
    let id = identity::ensure(&config.paths.data)?;
    registry_address::hold(&config.paths.data, config.registry_listen).await?;
    let tables = ferrovia_table::listen(&config.paths.tables_socket())?;
    let (db, keyring) = database::open(&config).await?;
    let store = Store::open(config.paths.registry(), registry::Limits::default()).await?;
    let access = Access::default();
    let grant = access.grant("engine", Scope::PullAll);
    let listener = listen(config.registry_listen).await?;
    let router = registry::router(store.clone(), access.clone());
    // To this process' end: engines may still pull while requests to the API come to theirs.
    let always = CancellationToken::new();
    tokio::spawn(serve::serve_bounded(listener, router, serve::REGISTRY, always));
    let common = Common {
        id,
        db: db.clone(),
        keyring: Arc::new(keyring),
        trees: TreeStore::new(config.paths.trees()),
        tables,
        login: RegistryLogin {
            user: grant.login().user.clone(),
            password: grant.login().password.clone(),
        },
    };
    match config.engine {
        EngineKind::Docker => {
            let engine = Arc::new(engine::docker(&config, &id.to_string()));
            let builder = builds::open(&config, &common.db, &common.trees, &store, access)?;
            // Names are answered on the bridges, so that they must be there before the first replica or step is.
            if let Err(error) = engine.ensure_bridge(0).await {
                tracing::warn!("the bridge of replicas cannot be made yet: {error}");
            }
            if let Err(error) = builder.kit().ensure_bridge().await {
                tracing::warn!("the bridge of builds cannot be made yet: {error}");
            }
            let sweeps: Vec<Arc<dyn Sweep>> = vec![
                Arc::new(TreeSweep {
                    db: db.clone(),
                    trees: common.trees.clone(),
                }),
                Arc::new(RegistrySweep {
                    db,
                    store,
                    builder: builder.clone(),
                    registry_host: config.registry_listen.to_string(),
                }),
            ];
            let preparing = tokio::spawn(builds::prepare(builder.clone()));
            let ended = work(&config, common, engine, builder.clone(), sweeps).await;
            preparing.abort();
            if let Err(error) = builder.kit().stop().await {
                tracing::warn!("BuildKit was not ended: {error}");
            }
            ended
        }
        EngineKind::Fake => {
            let engine = Arc::new(engine::fake(&config));
            let builder = Arc::new(SimulatedBuilder::new(config.registry_listen));
            let sweeps: Vec<Arc<dyn Sweep>> = vec![Arc::new(TreeSweep {
                db,
                trees: common.trees.clone(),
            })];
            work(&config, common, engine, builder, sweeps).await
        }
    }
}

/// What does not depend on the engine.
struct Common {
    id: uuid::Uuid,
    db: Db,
    keyring: Arc<ferrovia_store::seal::Keyring>,
    trees: TreeStore,
    tables: tokio::net::UnixListener,
    login: RegistryLogin,
}

async fn work<E: Engine + 'static, B: Builder + 'static>(
    config: &Config,
    common: Common,
    engine: Arc<E>,
    builder: Arc<B>,
    sweeps: Vec<Arc<dyn Sweep>>,
) -> Result<(), Failure> {
    let clock = Clock::system();
    let parts = Parts {
        db: common.db.clone(),
        clock: clock.clone(),
        keyring: common.keyring.clone(),
        engine,
        builder,
        sweeps,
    };
    let control = Control::new(parts, options(config, common.login)?).await?;
    let cases = UseCases::new(usecase::Parts {
        db: common.db.clone(),
        clock,
        keyring: common.keyring,
        addresses: config.addresses.clone(),
        site: PublicSite {
            apps_domain: config.apps_domain.clone(),
            scheme: SCHEME,
            port: config.http_listen.port(),
        },
        trees: common.trees,
        logs: config.paths.logs(),
        live: control.live(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    cases.ensure_installation(common.id).await?;
    let running = installation::Running {
        config: config.clone(),
        db: common.db,
        live: control.live(),
        status: control.status(),
    };
    let router = router(State::new(cases, Arc::new(running)));
    let api = listen(config.api_listen).await?;
    let socket = serve::bind_unix(&config.paths.api_socket())?;

    let ended = CancellationToken::new();
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let signalled = async {
        terminate.recv().await;
        stop.send_replace(true);
        ended.cancel();
        std::future::pending::<()>().await;
    };
    let services = async {
        let (worked, (), ()) = tokio::join!(
            control.run(common.tables, stopped),
            serve::serve_tcp(api, router.clone(), ended.clone()),
            serve::serve_unix(socket, router, ended.clone()),
        );
        worked
    };
    tokio::select! {
        worked = services => Ok(worked?),
        () = signalled => Ok(()),
    }
}

fn options(config: &Config, registry: RegistryLogin) -> Result<Options, Failure> {
    Ok(Options {
        addresses: config.addresses.clone(),
        site: Site {
            scheme: SCHEME,
            port: config.http_listen.port(),
        },
        registry,
        registry_host: config.registry_listen.to_string(),
        logs: config.paths.logs(),
        node_socket: config.paths.node_socket(),
        peers: user::peers(config)?,
        audiences: vec![Audience::Edge, Audience::Node],
        control_slots: CONTROL_SLOTS,
        build_slots: config.file.build.slots,
        build_memory_bytes: BUILD_MEMORY_BYTES,
        build_timeout_ms: u64::from(config.file.build.timeout_s) * 1_000,
    })
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("{address} cannot be listened on: {error}").into())
}

/// Whether the API accepts work.
pub async fn answers(config: &Config) -> bool {
    let asked = async {
        let client = Client::new(Endpoint::Socket(config.paths.api_socket())).ok()?;
        client.readiness().await.ok()
    };
    let limit = Duration::from_millis(READINESS_MS);
    matches!(tokio::time::timeout(limit, asked).await, Ok(Some(readiness)) if readiness.ready)
}
