//! The Docker API as far as it is used: one request at a time with a deadline, or a stream of JSON lines.
//!
//! Written by hand, not with a client crate: bodies carry variables and must not be printed, whatever the log level;
//! connections are used again; the hardware address has a place in requests below version 1.44; and answers are read
//! only where they are used, so that a field or word which a newer engine adds breaks nothing.
//!
//! The version is negotiated with the first request, and again when the engine was away or refuses it (it may have
//! been upgraded): [`PREFERRED`], lower for an older engine, higher for one that asks for more.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::form_urlencoded;

use crate::socket::{Failure, Socket, lines};
use crate::{Error, RegistryLogin};

/// The oldest version that has what the platform needs (Docker 20.10).
const OLDEST: Version = Version(1, 41);
/// The version that is spoken where it is understood (Docker 25 and later; the oldest that Docker 29 takes).
const PREFERRED: Version = Version(1, 44);
/// From here on the hardware address belongs to the endpoint.
pub(super) const ENDPOINT_MAC: Version = Version(1, 44);
/// How long the version may take, in milliseconds.
const VERSION_TIMEOUT_MS: u64 = 10_000;

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// What to speak with an engine that understands `lowest` to `highest`; `None` when there is nothing in common.
    fn choose(lowest: Self, highest: Self) -> Option<Self> {
        (highest >= OLDEST).then(|| PREFERRED.min(highest).max(lowest))
    }
}

/// What can come back instead of an answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No answer.
    Failed(Failure),
    /// An error of the engine's own.
    Status { code: u16, message: String },
    /// An answer that cannot be read.
    Garbled(String),
}

impl Refusal {
    /// As an error of the trait, where nothing more is known about this status.
    pub(super) fn into_error(self, call: &'static str) -> Error {
        match self {
            Self::Failed(Failure::Unreachable(why)) => Error::Unavailable(why),
            Self::Failed(Failure::Lost { after_ms }) => Error::Unknown {
                call,
                timeout_ms: after_ms,
            },
            Self::Status { message, .. } => Error::Refused { call, why: message },
            Self::Garbled(why) => Error::Refused {
                call,
                why: format!("an answer that cannot be read: {why}"),
            },
        }
    }

    /// The HTTP status, when there is one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The engine's own words, when there are any.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Status { message, .. } => message,
            _ => "",
        }
    }
}

/// One request.
pub(super) struct Ask<'a> {
    method: Method,
    path: String,
    body: Option<Value>,
    login: Option<&'a RegistryLogin>,
    timeout_ms: u64,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: impl Into<String>, timeout_ms: u64) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            login: None,
            timeout_ms,
        }
    }

    pub(super) fn post(path: impl Into<String>, timeout_ms: u64) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path, timeout_ms)
        }
    }

    pub(super) fn delete(path: impl Into<String>, timeout_ms: u64) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(path, timeout_ms)
        }
    }

    pub(super) fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.path.push('?');
        self.path.push_str(&query);
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn login(mut self, login: &'a RegistryLogin) -> Self {
        self.login = Some(login);
        self
    }

    /// A question without an answer has changed nothing, whether it arrived or not.
    fn harmless(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Lost { after_ms } if self.method == Method::GET => {
                Failure::Unreachable(format!("no answer after {after_ms} ms"))
            }
            other => other,
        }
    }

    fn request(&self, version: Option<Version>) -> Result<Request<Full<Bytes>>, Refusal> {
        let garbled = |error: &dyn fmt::Display| Refusal::Garbled(error.to_string());
        let base = version.map_or(String::new(), |version| format!("/v{version}"));
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("http://docker{base}{}", self.path));
        if let Some(login) = self.login {
            let (user, password) = (&login.user, login.password.expose());
            let login = serde_json::json!({ "username": user, "password": password }).to_string();
            request = request.header("X-Registry-Auth", URL_SAFE.encode(login));
        }
        let body = match &self.body {
            Some(body) => {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body).map_err(|error| garbled(&error))?)
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| garbled(&error))
    }
}

/// The engine at a socket, spoken to in a version that both know.
pub(super) struct Api {
    socket: Socket,
    version: Mutex<Option<Version>>,
}

impl Api {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            version: Mutex::new(None),
        }
    }

    /// The version in use, asked for when it is not known.
    pub(super) async fn version(&self) -> Result<Version, Refusal> {
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = known {
            return Ok(version);
        }
        let told: ServerVersion = read(
            &self
                .exchange(&Ask::get("/version", VERSION_TIMEOUT_MS), None)
                .await?,
        )?;
        let bounds = Version::parse(&told.api_version).and_then(|highest| {
            Some((
                told.min_api_version
                    .as_deref()
                    .map_or(Some(OLDEST), Version::parse)?,
                highest,
            ))
        });
        let version = bounds
            .and_then(|(lowest, highest)| Version::choose(lowest, highest))
            .ok_or_else(|| {
                Refusal::Garbled(format!(
                    "it speaks API version {}, {OLDEST} (Docker 20.10) or later is needed; upgrade Docker",
                    told.api_version
                ))
            })?;
        self.set_version(Some(version));
        Ok(version)
    }

    /// Sends a request and hands out the answer's body; a status of 304 is success.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Bytes, Refusal> {
        let version = self.version().await?;
        let answer = self.exchange(&ask, Some(version)).await;
        match &answer {
            Err(Refusal::Failed(_)) => self.set_version(None),
            Err(Refusal::Status { code: 400, message }) if message.contains("client version") => {
                self.set_version(None);
                let version = self.version().await?;
                return self.exchange(&ask, Some(version)).await;
            }
            _ => {}
        }
        answer
    }

    /// Sends a request and reads the answer.
    pub(super) async fn ask_for<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Refusal> {
        read(&self.ask(ask).await?)
    }

    /// Sends a request whose answer is a stream of lines; the timeout is for its head.
    pub(super) async fn stream(
        &self,
        ask: Ask<'_>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Refusal> {
        let version = self.version().await?;
        let request = ask.request(Some(version))?;
        let response = self
            .socket
            .open(request, ask.timeout_ms)
            .await
            .map_err(|failure| Refusal::Failed(ask.harmless(failure)))?;
        if response.status().is_success() {
            return Ok(lines(response.into_body()));
        }
        let status = response.status();
        let collect = response.into_body().collect();
        let body = tokio::time::timeout(std::time::Duration::from_millis(VERSION_TIMEOUT_MS), collect).await;
        let body = body
            .ok()
            .and_then(Result::ok)
            .map(http_body_util::Collected::to_bytes);
        Err(refused(status, &body.unwrap_or_default()))
    }

    async fn exchange(&self, ask: &Ask<'_>, version: Option<Version>) -> Result<Bytes, Refusal> {
        let request = ask.request(version)?;
        let answer = self.socket.call(request, ask.timeout_ms).await;
        let (status, body) = answer.map_err(|failure| Refusal::Failed(ask.harmless(failure)))?;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            Ok(body)
        } else {
            Err(refused(status, &body))
        }
    }

    fn set_version(&self, version: Option<Version>) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServerVersion {
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Garbled(error.to_string()))
}

fn refused(status: StatusCode, body: &[u8]) -> Refusal {
    let message = serde_json::from_slice::<ErrorBody>(body).map_or_else(
        |_| String::from_utf8_lossy(body).trim().to_owned(),
        |body| body.message,
    );
    Refusal::Status {
        code: status.as_u16(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_fits_every_engine_from_20_10() {
        let choose = |lowest: &str, highest: &str| {
            Version::choose(Version::parse(lowest)?, Version::parse(highest)?)
                .map(|version| version.to_string())
        };
        assert_eq!(choose("1.12", "1.41").as_deref(), Some("1.41"));
        assert_eq!(choose("1.24", "1.47").as_deref(), Some("1.44"));
        assert_eq!(choose("1.44", "1.53").as_deref(), Some("1.44"));
        assert_eq!(choose("1.50", "1.60").as_deref(), Some("1.50"));
        assert_eq!(choose("1.12", "1.40"), None);
    }

    #[test]
    fn queries_are_encoded_and_logins_are_url_safe() {
        let login = RegistryLogin {
            user: "u".into(),
            password: ferrovia_core::secret::Secret::new("a>?~~?>"),
        };
        let ask = Ask::get("/images/json", 1)
            .query(&[("filters", "{\"label\":[\"a=b\"]}")])
            .login(&login);
        let request = ask.request(Some(Version(1, 41))).unwrap();
        assert_eq!(
            request.uri(),
            "http://docker/v1.41/images/json?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D"
        );
        let header = request.headers()["X-Registry-Auth"].to_str().unwrap();
        assert!(!header.contains(['+', '/']), "{header}");
    }
}
