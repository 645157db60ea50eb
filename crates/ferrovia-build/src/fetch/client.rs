//! Asking registries: endpoints in order, signing in, redirects followed by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Response};
use serde::Deserialize;
use url::Url;

use super::address::{Endpoint, Hosts};
use super::guard::{Closed, GuardedResolver, check_literal};
use super::token::Challenge;
use super::{FetchError, ImageName};
use crate::digest::Digest;
use crate::registry::{Descriptor, Manifest, MediaType};

/// How long a connection may take to be made, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// How long an answer may stall, in milliseconds.
const STALL_MS: u64 = 60_000;
/// How long a manifest or a token may take altogether, in milliseconds.
const SMALL_TIMEOUT_MS: u64 = 30_000;
/// How long a registry may take to show that it answers, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 5_000;
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Largest manifest, in bytes.
const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Largest answer of a token service, in bytes.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// An image of one platform, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What kind its manifest is.
    pub media_type: MediaType,
    /// Its manifest, as it is upstream.
    pub bytes: Vec<u8>,
    /// What the manifest says.
    pub manifest: Manifest,
}

/// Asks registries.
#[derive(Clone)]
pub struct Client {
    hosts: Arc<Hosts>,
    architecture: String,
    /// For what the settings name.
    open: reqwest::Client,
    /// For everything else.
    guarded: reqwest::Client,
}

impl Client {
    /// A client for this architecture, in OCI's words.
    pub fn new(hosts: Hosts, architecture: &str, extra_ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let unusable = |error: &dyn std::fmt::Display| FetchError::Unreachable(error.to_string());
        let mut extra = Vec::new();
        if let Some(file) = extra_ca_file {
            let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
            extra = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
        }
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("ferrovia/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
                .read_timeout(Duration::from_millis(STALL_MS))
                .redirect(Policy::none())
                .tls_certs_merge(extra.clone())
        };
        Ok(Self {
            hosts: Arc::new(hosts),
            architecture: architecture.to_owned(),
            open: builder().build().map_err(|error| unusable(&error))?,
            guarded: builder()
                .dns_resolver(Arc::new(GuardedResolver))
                .build()
                .map_err(|error| unusable(&error))?,
        })
    }

    /// The image for this machine's architecture that a name stands for now.
    pub async fn resolve(&self, image: &ImageName) -> Result<Resolved, FetchError> {
        let reference = match (&image.digest, &image.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => return Err(FetchError::NotFound),
        };
        let found = self.manifest(image, &reference).await?;
        let Manifest::Index { manifests } = &found.manifest else {
            return Ok(found);
        };
        let chosen = choose(manifests, &self.architecture)?;
        self.manifest(image, &chosen.digest.to_string()).await
    }

    /// Whether a registry, or a mirror of it, answers as registries do.
    pub async fn answers(&self, host: &str) -> bool {
        for endpoint in self.hosts.endpoints(host) {
            let Ok(url) = Url::parse(&format!("{}/", endpoint.base.as_str().trim_end_matches('/'))) else {
                continue;
            };
            let headers = HeaderMap::new();
            let asked = self.follow(url, endpoint.is_trusted, &headers, None);
            let within = Duration::from_millis(PROBE_TIMEOUT_MS);
            if let Ok(Ok(response)) = tokio::time::timeout(within, asked).await
                && is_of_a_registry(&response)
            {
                return true;
            }
        }
        false
    }

    async fn manifest(&self, image: &ImageName, reference: &str) -> Result<Resolved, FetchError> {
        let mut headers = HeaderMap::new();
        for kind in MediaType::ALL {
            if let Ok(value) = kind.as_str().parse() {
                headers.append(header::ACCEPT, value);
            }
        }
        let path = format!("manifests/{reference}");
        let response = self.get(image, &path, &headers).await?;
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media_type = kind.and_then(MediaType::from_header).ok_or_else(|| {
            FetchError::Wrong(format!(
                "its manifest is of the kind `{}`",
                kind.unwrap_or("none")
            ))
        })?;
        let bytes = small_body(response, MAX_MANIFEST_BYTES).await?;
        let digest = Digest::of(&bytes);
        if reference.contains(':') && reference != digest.to_string() {
            return Err(FetchError::Wrong("its manifest has another digest".into()));
        }
        let manifest =
            Manifest::parse(media_type, &bytes).map_err(|error| FetchError::Wrong(error.to_string()))?;
        Ok(Resolved {
            digest,
            media_type,
            bytes: bytes.into(),
            manifest,
        })
    }

    /// A blob's content.
    pub(super) async fn blob(&self, image: &ImageName, blob: &Descriptor) -> Result<Response, FetchError> {
        self.get(image, &format!("blobs/{}", blob.digest), &HeaderMap::new())
            .await
    }

    /// Asks each endpoint in turn until one has it.
    async fn get(&self, image: &ImageName, path: &str, headers: &HeaderMap) -> Result<Response, FetchError> {
        let mut first = None;
        let mut last = FetchError::NotFound;
        for endpoint in self.hosts.endpoints(&image.host) {
            match self.get_from(&endpoint, image, path, headers).await {
                Ok(response) => return Ok(response),
                Err(error) if error.may_be_elsewhere() => {
                    tracing::debug!(endpoint = %endpoint.base, %image, %error, "an endpoint does not give an image");
                    if matches!(error, FetchError::Unreachable(_)) {
                        first = first.or(Some(error));
                    } else {
                        last = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // What a registry said tells more than what a mirror did not.
        match (last, first) {
            (FetchError::NotFound, Some(unreachable)) => Err(unreachable),
            (said, _) => Err(said),
        }
    }

    async fn get_from(
        &self,
        endpoint: &Endpoint,
        image: &ImageName,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response, FetchError> {
        let base = endpoint.base.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}/{}/{path}", image.repository))
            .map_err(|error| FetchError::Unreachable(error.to_string()))?;
        let response = self
            .follow(url.clone(), endpoint.is_trusted, headers, None)
            .await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return checked(response);
        }
        let challenge = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse)
            .ok_or(FetchError::Denied)?;
        let authorization = match (challenge, &endpoint.login) {
            (Challenge::Basic, Some(login)) => format!("Basic {}", login.basic().expose()),
            (Challenge::Basic, None) => return Err(FetchError::Denied),
            (Challenge::Bearer { realm, service }, _) => {
                let token = self.token(endpoint, image, &realm, service.as_deref()).await?;
                format!("Bearer {token}")
            }
        };
        checked(
            self.follow(url, endpoint.is_trusted, headers, Some(&authorization))
                .await?,
        )
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        image: &ImageName,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let wrong = |what: &str| FetchError::Unreachable(format!("its token service {what}"));
        let mut url = Url::parse(realm).map_err(|_| wrong("has no address"))?;
        url.query_pairs_mut()
            .extend_pairs(service.map(|service| ("service", service)))
            .append_pair("scope", &format!("repository:{}:pull", image.repository));
        // Where the registry itself is trusted, so is the service at the same host; another one is not.
        let same_host = url.host_str() == endpoint.base.host_str();
        if url.scheme() != "https" && !(same_host && endpoint.base.scheme() == "http") {
            return Err(wrong("does not use TLS"));
        }
        let basic = endpoint
            .login
            .as_ref()
            .map(|login| format!("Basic {}", login.basic().expose()));
        let is_trusted = endpoint.is_trusted && same_host;
        let response = self
            .follow(url, is_trusted, &HeaderMap::new(), basic.as_deref())
            .await?;
        let body = small_body(checked(response)?, MAX_TOKEN_BYTES).await?;
        let token: Token = serde_json::from_slice(&body).map_err(|_| wrong("gives no token"))?;
        token
            .token
            .or(token.access_token)
            .ok_or_else(|| wrong("gives no token"))
    }

    /// A GET whose redirects are looked at: each may lead somewhere else, and takes no login along.
    async fn follow(
        &self,
        mut url: Url,
        is_trusted: bool,
        headers: &HeaderMap,
        authorization: Option<&str>,
    ) -> Result<Response, FetchError> {
        let (host, scheme) = (url.host_str().map(str::to_owned), url.scheme().to_owned());
        for _ in 0..=MAX_REDIRECTS {
            let same_host = url.host_str() == host.as_deref();
            let trusted = is_trusted && same_host;
            if !trusted {
                check_literal(&url).map_err(|Closed(host)| FetchError::Closed(host))?;
            }
            let client = if trusted { &self.open } else { &self.guarded };
            let mut request = client.get(url.clone()).headers(headers.clone());
            if let (true, Some(value)) = (same_host, authorization) {
                request = request.header(header::AUTHORIZATION, value);
            }
            let response = request.send().await.map_err(unreachable)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|place| url.join(place).ok())
                .ok_or_else(|| FetchError::Unreachable("a redirect leads nowhere".into()))?;
            // Content is verified, but a login went with the first request, and a step back to HTTP shows the rest.
            if scheme == "https" && next.scheme() != "https" {
                return Err(FetchError::Unreachable("a redirect leads away from TLS".into()));
            }
            url = next;
        }
        Err(FetchError::Unreachable("it redirects without end".into()))
    }
}

/// A portal that asks for a password, or a proxy that refuses, answers too.
fn is_of_a_registry(response: &Response) -> bool {
    let has = |name: &str| response.headers().contains_key(name);
    match response.status() {
        StatusCode::OK => has("docker-distribution-api-version"),
        StatusCode::UNAUTHORIZED => has("docker-distribution-api-version") || has("www-authenticate"),
        _ => false,
    }
}

/// The manifest for an architecture among those of an index.
fn choose<'a>(manifests: &'a [Descriptor], architecture: &str) -> Result<&'a Descriptor, FetchError> {
    let fits = |manifest: &&Descriptor| {
        manifest.platform.as_ref().is_some_and(|platform| {
            platform.os == "linux"
                && platform.architecture == architecture
                // The newest that every machine of the kind has.
                && platform.variant.as_deref().is_none_or(|variant| matches!(variant, "v8" | "v1"))
        })
    };
    manifests.iter().find(fits).ok_or_else(|| {
        let platforms = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        let known = platforms.filter(|platform| platform.os != "unknown");
        FetchError::Architecture {
            wanted: format!("linux/{architecture}"),
            found: known
                .map(|platform| format!("`{}/{}`", platform.os, platform.architecture))
                .collect(),
        }
    })
}

fn checked(response: Response) -> Result<Response, FetchError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(FetchError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(FetchError::Denied),
        StatusCode::TOO_MANY_REQUESTS => Err(FetchError::TooOften),
        status => Err(FetchError::Unreachable(format!("it answers {status}"))),
    }
}

/// A body that is read whole, within bounds of size and time.
async fn small_body(response: Response, limit_bytes: usize) -> Result<Bytes, FetchError> {
    let read = async {
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(unreachable)?;
            if body.len() + chunk.len() > limit_bytes {
                return Err(FetchError::Wrong(format!(
                    "an answer is larger than {limit_bytes} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    };
    tokio::time::timeout(Duration::from_millis(SMALL_TIMEOUT_MS), read)
        .await
        .unwrap_or_else(|_| Err(FetchError::Unreachable("it answers too slowly".into())))
}

/// The last cause says what happened; the first only that something did.
pub(super) fn unreachable(error: reqwest::Error) -> FetchError {
    let mut cause: &dyn std::error::Error = &error;
    loop {
        if let Some(Closed(host)) = cause.downcast_ref::<Closed>() {
            return FetchError::Closed(host.clone());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    let what = match (error.is_connect(), error.is_timeout()) {
        (_, true) => "it does not answer in time".to_owned(),
        (true, false) => format!("no connection: {cause}"),
        (false, false) => cause.to_string(),
    };
    FetchError::Unreachable(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn the_platform_is_chosen_by_architecture() {
        let entry = |os: &str, architecture: &str, variant: Option<&str>| -> Descriptor {
            serde_json::from_value(serde_json::json!({
                "digest": Digest::of(format!("{os}{architecture}{variant:?}").as_bytes()), "size": 1,
                "platform": {"os": os, "architecture": architecture, "variant": variant},
            }))
            .unwrap()
        };
        let all = [
            entry("unknown", "unknown", None),
            entry("linux", "arm", Some("v7")),
            entry("linux", "arm64", Some("v8")),
            entry("linux", "amd64", None),
        ];
        assert_eq!(choose(&all, "amd64").unwrap(), &all[3]);
        assert_eq!(choose(&all, "arm64").unwrap(), &all[2]);
        match choose(&all, "riscv64") {
            Err(FetchError::Architecture { found, .. }) => assert_eq!(found[0], "`linux/arm`"),
            other => panic!("{other:?}"),
        }
    }
}
