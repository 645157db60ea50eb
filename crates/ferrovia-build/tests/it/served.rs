//! A registry that listens on a port of its own for the time of a test.

use std::sync::Arc;

use ferrovia_build::registry::{Access, Grant, Limits, Scope, Serve, Store, router};

/// Serves without bounds on connections.
pub fn serve() -> Serve {
    Arc::new(|listener, app| Box::pin(async move { axum::serve(listener, app).await.unwrap() }))
}

/// A running registry.
pub struct Served {
    pub store: Arc<Store>,
    pub access: Access,
    /// `127.0.0.1:PORT`.
    pub host: String,
    pub directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    pub async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub async fn start_with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("registry"), limits)
            .await
            .unwrap();
        let access = Access::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let app = router(Arc::clone(&store), access.clone());
        let task = tokio::spawn(serve()(listener, app));
        Self {
            store,
            access,
            host,
            directory,
            task,
        }
    }

    /// A login that may push below `apps/`.
    pub fn pusher(&self) -> Grant {
        let scope = Scope::Repositories {
            push: vec!["apps/".into()],
            pull: vec![],
        };
        self.access.grant("test", scope)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }
}
