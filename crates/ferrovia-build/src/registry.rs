//! The platform's own image registry: the store of truth for every image that runs.
//!
//! It lives in control, on loopback, and speaks the OCI distribution protocol (1.1) to its only three clients: the
//! engine that pulls by digest, the BuildKit daemon that pushes, and the platform itself ([`Store`], without HTTP).
//! Blobs are kept once; a repository sees only the blobs that were pushed to it or mounted into it, so that knowing a
//! digest of another project gives nothing. What is on disk was verified against its digest and fsynced before it
//! got its name. ADR 0005 says why it was written here.
//!
//! Deliberately absent: a catalogue of repositories, referrers, schema 1 manifests, digests other than SHA-256, TLS
//! (it listens on loopback only) and token authentication (Docker takes Basic over plain HTTP to loopback).

mod access;
mod error;
mod garbage;
mod http;
mod manifest;
mod name;
mod store;
mod upload;

use std::sync::Arc;

use axum::Router;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

pub use access::{Access, Grant, Login, Scope};
pub use error::Error;
pub use garbage::Swept;
pub use http::router;
pub use manifest::{Descriptor, Manifest, MediaType};
pub use name::{Reference, Repository, Tag};
pub use store::{Limits, Store, StoredManifest};
pub use upload::Upload;

/// Serves the registry on a listener until it is dropped, and its connections with it. Who makes the builder gives it,
/// since bounds on connections belong to the process' one HTTP server.
pub type Serve = Arc<dyn Fn(TcpListener, Router) -> BoxFuture<'static, ()> + Send + Sync>;
