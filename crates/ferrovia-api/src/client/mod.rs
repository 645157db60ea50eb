//! The typed client: over TCP with a token, or over the Unix socket of the same host.
//!
//! It knows no status codes: an answer is either what was asked for or a [`Problem`], and who calls decides by its
//! `code` and `class`. What cannot be told apart by looking is told apart here: [`Error::Unreachable`] means that
//! nothing was sent, [`Error::Lost`] that the request may have taken effect. Every POST carries an `Idempotency-Key`:
//! it is sent again after contact was lost under it, and takes effect once.

mod calls;
mod events;
mod send;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::secret::Secret;
use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use crate::problem::{Problem, ProblemClass};

pub use calls::{InstancePath, LogQuery, PageQuery};
pub use events::{Event, Events, Follow};
pub use send::AGAIN_MS;
use send::IDEMPOTENCY_KEY;

/// Longest time to make a connection, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Longest time without a byte of the answer, in milliseconds: over three heartbeats of a stream.
pub const READ_TIMEOUT_MS: u64 = 3 * crate::STREAM_HEARTBEAT_MS + 2_000;
/// Longest time that a stream looks for a server that was lost, in milliseconds.
pub const PATIENCE_MS: u64 = 60_000;
/// Code of a server that works on as much as it may.
const BUSY: &str = "too_many_requests";
/// Longest answer that is read whole, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where the API is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// At a URL, with a token if there is one.
    Url {
        /// Scheme, host and port; a path is a prefix.
        url: Url,
        /// The token.
        token: Option<Secret>,
    },
    /// On this host: who may open the socket is known by it.
    Socket(PathBuf),
}

/// A call that did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused or failed, and says why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// No connection: nothing was sent.
    #[error("`{to}` cannot be reached: {why}")]
    Unreachable {
        /// The address.
        to: String,
        /// The system's words.
        why: String,
    },
    /// The connection broke or nothing came for too long: the request may have taken effect.
    #[error("contact with `{to}` was lost: {why}")]
    Lost {
        /// The address.
        to: String,
        /// The system's words.
        why: String,
    },
    /// What came is not an answer of this API.
    #[error("`{to}` answered something that is not Ferrovia's API: {why}")]
    Unexpected {
        /// The address.
        to: String,
        /// What came.
        why: String,
    },
}

impl Error {
    /// The problem's code, if the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(&problem.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => {
                let passes = matches!(problem.class, ProblemClass::Transient | ProblemClass::Unavailable);
                passes || problem.code == BUSY
            }
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Unexpected { .. } => false,
        }
    }
}

/// A client of one endpoint. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
    shown: String,
    patience: Duration,
    notice: Option<Notice>,
}

/// Whether a URL is of this host.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Is told what is waited for when an answer takes long.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.shown).finish()
    }
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the system's certificates cannot be read or the URL cannot be one of an API.
    pub fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ferrovia/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .read_timeout(Duration::from_millis(READ_TIMEOUT_MS))
            .redirect(reqwest::redirect::Policy::none());
        let (base, token, shown) = match endpoint {
            Endpoint::Url { url, token } => {
                let shown = url.to_string().trim_end_matches('/').to_owned();
                // What goes to this host, or unencrypted, must not go through a third one: it holds the token.
                if is_here(&url) || url.scheme() == "http" {
                    builder = builder.no_proxy();
                }
                (url, token, shown)
            }
            #[cfg(unix)]
            Endpoint::Socket(path) => {
                let shown = path.display().to_string();
                builder = builder.unix_socket(path).no_proxy();
                (local_base(&shown)?, None, shown)
            }
            #[cfg(not(unix))]
            Endpoint::Socket(path) => {
                let to = path.display().to_string();
                let why = "Unix sockets do not exist on this system".to_owned();
                return Err(Error::Unreachable { to, why });
            }
        };
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            let why = "the URL must begin with `http://` or `https://`".to_owned();
            return Err(Error::Unreachable { to: shown, why });
        }
        let http = builder.build().map_err(|error| Error::Unreachable {
            to: shown.clone(),
            why: chain(&error),
        })?;
        Ok(Self {
            http,
            base,
            token,
            shown,
            patience: Duration::from_millis(PATIENCE_MS),
            notice: None,
        })
    }

    /// The same client, whose streams look for a lost server for another time than [`PATIENCE_MS`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same client, which says what it waits for when an answer takes longer than a second.
    #[must_use]
    pub fn with_notice(mut self, notice: Notice) -> Self {
        self.notice = Some(notice);
        self
    }

    fn notice(&self, text: &str) {
        if let Some(notice) = &self.notice {
            notice(text);
        }
    }

    /// The address, for people.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// The URL of a path given by its segments; each is escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut request = self.http.request(method.clone(), self.url(segments));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if method == Method::POST && segments.last() != Some(&"contents") {
            request = request.header(IDEMPOTENCY_KEY, Uuid::now_v7().to_string());
        }
        request
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let body = self.answer(request).await?;
        serde_json::from_slice(&body).map_err(|error| self.unexpected(error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, segments: &[&str], query: &impl Serialize) -> Result<T, Error> {
        self.json(self.request(Method::GET, segments).query(query)).await
    }

    async fn post<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T, Error> {
        self.json(self.request(Method::POST, segments).json(body)).await
    }

    async fn act<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, Error> {
        self.json(self.request(Method::POST, segments)).await
    }

    async fn patch<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T, Error> {
        self.json(self.request(Method::PATCH, segments).json(body)).await
    }

    async fn delete(&self, segments: &[&str]) -> Result<(), Error> {
        self.answer(self.request(Method::DELETE, segments))
            .await
            .map(drop)
    }

    fn failure(&self, error: &reqwest::Error) -> Error {
        let to = self.shown.clone();
        let why = chain(error);
        if error.is_connect() || error.is_builder() {
            Error::Unreachable { to, why }
        } else {
            Error::Lost { to, why }
        }
    }

    fn unexpected(&self, why: String) -> Error {
        let to = self.shown.clone();
        Error::Unexpected { to, why }
    }
}

#[cfg(unix)]
fn local_base(shown: &str) -> Result<Url, Error> {
    Url::parse("http://localhost/").map_err(|error| Error::Unreachable {
        to: shown.to_owned(),
        why: error.to_string(),
    })
}

/// The innermost words of an error: reqwest's own say only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
