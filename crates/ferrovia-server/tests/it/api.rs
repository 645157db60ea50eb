//! An API on a database of its own, called without a network or through a listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use ferrovia_api::system::{Component, Finding, Level};
use ferrovia_build::tree::TreeStore;
use ferrovia_control::Live;
use ferrovia_control::usecase::{Parts, PublicSite, UseCases};
use ferrovia_core::id::{BuildId, DeploymentId, InstanceId, ProjectId, TokenId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::permission::Scope;
use ferrovia_core::workload::ImageReference;
use ferrovia_server::http::auth::Peer;
use ferrovia_server::http::{Installation, State, router, serve};
use ferrovia_store::seal::Keyring;
use ferrovia_store::token::{self, NewToken};
use ferrovia_store::{BoxFuture, Error, Tx, team};
use ferrovia_testkit::{SettableClock, TestDb, database};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use uuid::Uuid;

/// An API with an owner's token.
pub struct Api {
    pub test: TestDb,
    pub cases: UseCases,
    pub clock: SettableClock,
    pub owner: String,
    pub directory: tempfile::TempDir,
    router: axum::Router,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    /// The answer, which must have this status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json
    }

    /// The answer, which must be a problem document with this status and code.
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.text
        );
        assert_eq!(self.json["code"], code, "{}", self.text);
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["type"], format!("urn:ferrovia:error:{code}"));
        assert_eq!(self.json["request_id"], self.header("x-request-id"));
        assert!(!self.json["detail"].as_str().unwrap().is_empty());
        self.json
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

struct Quiet;

#[async_trait::async_trait]
impl Installation for Quiet {
    async fn components(&self) -> Vec<Component> {
        vec![Component {
            name: "<database>".into(),
            ready: true,
            required: true,
            detail: None,
        }]
    }

    async fn examine(&self) -> Vec<Finding> {
        vec![Finding {
            level: Level::Good,
            subject: "test".into(),
            code: "ok".into(),
            message: "it is a test".into(),
            hint: None,
        }]
    }

    fn metrics(&self) -> String {
        "# nothing\n".to_owned()
    }
}

/// A request, built step by step.
pub struct Call<'a> {
    api: &'a Api,
    builder: http::request::Builder,
    body: Body,
    peer: Option<Peer>,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    pub fn text(mut self, kind: &str, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self.header("content-type", kind)
    }

    pub fn from(mut self, peer: Peer) -> Self {
        self.peer = Some(peer);
        self
    }

    pub async fn send(self) -> Answer {
        let mut request: Request<Body> = self.builder.body(self.body).unwrap();
        let peer = self.peer.unwrap_or_else(somewhere);
        request.extensions_mut().insert(peer);
        let response = self.api.router.clone().call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 * 1024 * 1024).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }
}

/// A place that no other request comes from, so that wrong tokens are not counted together.
fn somewhere() -> Peer {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Peer::Address(IpAddr::V4(Ipv4Addr::from(NEXT.fetch_add(1, Ordering::Relaxed))))
}

impl Api {
    pub async fn new() -> Self {
        let test = database().await;
        let directory = tempfile::tempdir().unwrap();
        let clock = SettableClock::default();
        let keyring = Keyring::open(&test.db, directory.path()).await.unwrap();
        let cases = UseCases::new(Parts {
            db: test.db.clone(),
            clock: clock.clock(),
            keyring: Arc::new(keyring),
            addresses: AddressPlan::default(),
            site: PublicSite {
                apps_domain: "localhost".into(),
                scheme: "http",
                port: 8080,
            },
            trees: TreeStore::new(directory.path().join("trees")),
            logs: directory.path().join("logs"),
            live: Arc::new(Live::new(Vec::new(), 1)),
            version: "0.0.0-test".into(),
        });
        cases.ensure_installation(Uuid::now_v7()).await.unwrap();
        let router = router(State::new(cases.clone(), Arc::new(Quiet)));
        let mut api = Self {
            test,
            cases,
            clock,
            owner: String::new(),
            directory,
            router,
        };
        api.owner = api.token("owner", Scope::Owner).await;
        api
    }

    pub async fn tx<T: Send + 'static>(
        &self,
        body: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, Error>> + Clone + Send + 'static,
    ) -> T {
        self.test.db.tx(body).await.unwrap()
    }

    /// A new token's text.
    pub async fn token(&self, name: &str, scope: Scope) -> String {
        let text = token::generate().unwrap();
        let team = team::find_first(&mut self.test.db.conn().await.unwrap())
            .await
            .unwrap()
            .unwrap();
        let new = NewToken {
            id: TokenId::from_uuid(Uuid::now_v7()),
            team_id: team.id,
            name: name.to_owned(),
            scope,
            created_ms: self.clock.now_ms(),
        };
        let secret = text.clone();
        self.tx(move |tx| Box::pin(async move { token::insert(tx, &new, &secret).await }))
            .await;
        text.expose().to_owned()
    }

    /// A new token for one project.
    pub async fn deploy_token(&self, project: &Value) -> String {
        let project_id = ProjectId::from_uuid(uuid_of(project));
        self.token("ci", Scope::Deploy { project_id }).await
    }

    /// A request without a token.
    pub fn bare(&self, method: Method, path: &str) -> Call<'_> {
        Call {
            api: self,
            builder: Request::builder().method(method).uri(path),
            body: Body::empty(),
            peer: None,
        }
    }

    /// A request of the owner.
    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        self.bare(method, path).bearer(&self.owner)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path).json(&body).send().await
    }

    pub async fn act(&self, path: &str) -> Answer {
        self.call(Method::POST, path).send().await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path).json(&body).send().await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).send().await
    }

    /// The project `shop` with the service `web` in `production`.
    pub async fn target(&self) -> Value {
        let wanted =
            json!({"project": "shop", "environment": "production", "service": "web", "create": true});
        self.post("/v1/targets", wanted).await.expect(200)
    }

    /// A deployment of an image to `shop/production/web`, which must exist.
    pub async fn deploy(&self) -> Value {
        let source = json!({"source": {"kind": "image", "reference": "nginx:1.27"}});
        self.post(&format!("{WEB}/deployments"), source).await.expect(202)
    }

    /// Makes a deployment the one that runs, as the reconcilers would.
    pub async fn succeed(&self, deployment: &Value) {
        use ferrovia_core::outcome::Outcome;
        use ferrovia_store::{build, deployment as rows, image, intent};
        let id = DeploymentId::from_uuid(uuid_of(deployment));
        let instance = InstanceId::from_uuid(deployment["instance_id"].as_str().unwrap().parse().unwrap());
        let build_id = BuildId::from_uuid(deployment["build_id"].as_str().unwrap().parse().unwrap());
        let now_ms = self.clock.now_ms();
        let made = image::Image {
            reference: ImageReference {
                repository: "127.0.0.1:7071/apps/x".into(),
                digest: format!("sha256:{}", "a".repeat(64)),
            },
            size_bytes: 1,
            config: json!({}),
            created_ms: 1,
            condemned_ms: None,
        };
        self.tx(move |tx| {
            Box::pin(async move {
                image::ensure(tx, &made).await?;
                build::succeed(tx, build_id, &made.reference, false, now_ms).await?;
                rows::begin(tx, id, 3, 4_100, now_ms).await?;
                rows::end(tx, id, Outcome::Succeeded, None, &[], now_ms + 620).await?;
                intent::set_target(tx, instance, Some(id)).await
            })
        })
        .await;
    }

    /// The API behind a listener, until the guard goes.
    pub async fn listen(&self) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = CancellationToken::new();
        tokio::spawn(serve::serve_tcp(listener, self.router.clone(), ended.clone()));
        (address, ended.drop_guard())
    }

    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }
}

/// Path of the instance that [`Api::target`] makes.
pub const WEB: &str = "/v1/projects/shop/environments/production/services/web";

pub fn uuid_of(object: &Value) -> Uuid {
    object["id"].as_str().unwrap().parse().unwrap()
}
