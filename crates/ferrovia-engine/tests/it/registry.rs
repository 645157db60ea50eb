//! A registry for tests: serves one image on loopback, with Basic auth, for as long as it is kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferrovia_core::workload::ImageReference;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::workload::login;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Where a blob's bytes are.
#[derive(Clone)]
enum Blob {
    Bytes(Bytes),
    File(PathBuf),
}

/// An image made of layers that are tar files.
pub struct Image {
    repository: String,
    blobs: HashMap<String, Blob>,
    manifest: Bytes,
    digest: String,
}

impl Image {
    /// Puts layers together; `config` is the `config` object of the image's configuration.
    pub fn new(repository: &str, layers: Vec<PathBuf>, config: &Value) -> Self {
        let mut blobs = HashMap::new();
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in layers {
            let digest = sha256_of_file(&layer);
            let size = std::fs::metadata(&layer).unwrap().len();
            diff_ids.push(digest.clone());
            descriptors.push(json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": size, "digest": digest,
            }));
            blobs.insert(digest, Blob::File(layer));
        }
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Bytes::from(config.to_string());
        let config_digest = sha256(&config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": config_digest,
            },
        });
        let manifest = Bytes::from(manifest.to_string());
        blobs.insert(config_digest, Blob::Bytes(config));
        Self {
            repository: repository.to_owned(),
            blobs,
            digest: sha256(&manifest),
            manifest,
        }
    }

    /// Its reference at a registry.
    pub fn reference(&self, registry: SocketAddr) -> ImageReference {
        ImageReference {
            repository: format!("{registry}/{}", self.repository),
            digest: self.digest.clone(),
        }
    }

    /// Serves it at an address until the answer is dropped.
    pub async fn serve(self, address: SocketAddr) -> io::Result<Registry> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let image = Arc::new(self);
        let reference = image.reference(address);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let image = image.clone();
                let serve = service_fn(move |request| {
                    let image = image.clone();
                    async move { Ok::<_, io::Error>(image.answer(&request)) }
                });
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A client that goes away is its own affair.
                    let _ = connection.serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Ok(Registry { reference, task })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let respond = |status: StatusCode, kind: &str, body: Bytes| {
            let response = Response::builder().status(status).header("Content-Type", kind);
            let response = response.header("Docker-Distribution-Api-Version", "registry/2.0");
            let response = response.header("WWW-Authenticate", "Basic realm=\"fvtest\"");
            response
                .header("Docker-Content-Digest", sha256(&body))
                .body(Full::new(body))
                .unwrap()
        };
        let login = format!("{}:{}", login().user, login().password.expose());
        let wanted = format!("Basic {}", STANDARD.encode(login));
        if request
            .headers()
            .get("Authorization")
            .is_none_or(|given| given.as_bytes() != wanted.as_bytes())
        {
            let error =
                json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] });
            return respond(
                StatusCode::UNAUTHORIZED,
                "application/json",
                error.to_string().into(),
            );
        }
        let path = request.uri().path();
        let rest = path.strip_prefix(&format!("/v2/{}/", self.repository));
        if path == "/v2/" {
            return respond(StatusCode::OK, "application/json", "{}".into());
        }
        if rest == Some(&format!("manifests/{}", self.digest)) {
            return respond(StatusCode::OK, MANIFEST, self.manifest.clone());
        }
        let blob = rest.and_then(|rest| self.blobs.get(rest.strip_prefix("blobs/")?));
        match blob {
            Some(Blob::Bytes(bytes)) => respond(StatusCode::OK, "application/octet-stream", bytes.clone()),
            Some(Blob::File(path)) => respond(
                StatusCode::OK,
                "application/octet-stream",
                std::fs::read(path).unwrap().into(),
            ),
            None => {
                let error =
                    json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
                respond(
                    StatusCode::NOT_FOUND,
                    "application/json",
                    error.to_string().into(),
                )
            }
        }
    }
}

/// A registry at work.
pub struct Registry {
    /// The image that it has.
    pub reference: ImageReference,
    task: JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    named(&context)
}

fn sha256_of_file(path: &PathBuf) -> String {
    let mut context = Context::new(&SHA256);
    let mut file = std::fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = io::Read::read(&mut file, &mut buffer).unwrap();
        if read == 0 {
            return named(&context);
        }
        context.update(&buffer[..read]);
    }
}

fn named(context: &Context) -> String {
    let digest = context.clone().finish();
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
