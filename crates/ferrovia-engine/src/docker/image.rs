//! Images on the engine: a cache of the platform's registry, always by digest.
//!
//! An image that is there is not pulled again: the digest is its identity. A pull has no time of its own that would
//! fit every image, so its stream of progress must not stand still, and it must end at all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ferrovia_core::workload::ImageReference;
use futures_util::StreamExt;
use serde::Deserialize;

use super::api::{Api, Ask, Refusal, read};
use crate::{Error, ImageInfo, RegistryLogin};

/// How long a question about images may take, in milliseconds.
const QUESTION_TIMEOUT_MS: u64 = 30_000;
/// How long a removal may take, in milliseconds.
const REMOVE_TIMEOUT_MS: u64 = 120_000;
/// How long a pull may be silent, in milliseconds.
pub const PULL_SILENCE_TIMEOUT_MS: u64 = 120_000;
/// How long a pull may take, in milliseconds.
pub const PULL_TIMEOUT_MS: u64 = 1_800_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    size: Option<u64>,
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    cmd: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    repo_digests: Option<Vec<String>>,
}

/// A line of a pull's progress; only its failure counts.
#[derive(Deserialize)]
struct Progress {
    error: Option<String>,
}

/// What the engine knows of an image.
pub(super) async fn find(api: &Api, image: &ImageReference) -> Result<Option<ImageInfo>, Error> {
    match api
        .ask_for(Ask::get(format!("/images/{image}/json"), QUESTION_TIMEOUT_MS))
        .await
    {
        Ok(inspected) => Ok(Some(info(inspected))),
        Err(refusal) if refusal.code() == Some(404) => Ok(None),
        Err(refusal) => Err(refusal.into_error("inspect image")),
    }
}

/// Fetches an image unless it is there.
pub(super) async fn ensure(
    api: &Api,
    image: &ImageReference,
    login: &RegistryLogin,
) -> Result<ImageInfo, Error> {
    if let Some(info) = find(api, image).await? {
        return Ok(info);
    }
    pull(api, image, login).await?;
    let missing = || failed(image, "the engine does not hold it after a pull that ended well");
    find(api, image).await?.ok_or_else(missing)
}

/// The images of repositories that begin with a prefix.
pub(super) async fn list(api: &Api, prefix: &str) -> Result<Vec<ImageReference>, Error> {
    let ask = Ask::get("/images/json", QUESTION_TIMEOUT_MS).query(&[("digests", "1")]);
    let summaries: Vec<Summary> = api
        .ask_for(ask)
        .await
        .map_err(|refusal| refusal.into_error("list images"))?;
    let references = summaries
        .into_iter()
        .flat_map(|summary| summary.repo_digests.unwrap_or_default());
    let mut images: Vec<ImageReference> = references
        .filter(|reference| reference.starts_with(prefix))
        .filter_map(|reference| {
            let (repository, digest) = reference.split_once('@')?;
            Some(ImageReference {
                repository: repository.to_owned(),
                digest: digest.to_owned(),
            })
        })
        .collect();
    images.sort_by(|a, b| (&a.repository, &a.digest).cmp(&(&b.repository, &b.digest)));
    Ok(images)
}

/// Takes an image away; one that is not there is success.
pub(super) async fn remove(api: &Api, image: &ImageReference) -> Result<(), Error> {
    match api
        .ask(Ask::delete(format!("/images/{image}"), REMOVE_TIMEOUT_MS))
        .await
    {
        Ok(_) => Ok(()),
        Err(refusal) => match refusal.code() {
            Some(404) => Ok(()),
            Some(409) => Err(Error::InUse(image.to_string())),
            _ => Err(refusal.into_error("remove image")),
        },
    }
}

async fn pull(api: &Api, image: &ImageReference, login: &RegistryLogin) -> Result<(), Error> {
    let begun = Instant::now();
    let ask = Ask::post("/images/create", PULL_SILENCE_TIMEOUT_MS)
        .query(&[("fromImage", &image.repository), ("tag", &image.digest)])
        .login(login);
    let mut lines = api.stream(ask).await.map_err(|refusal| match refusal {
        Refusal::Status { message, .. } => failed(image, &message),
        other => other.into_error("pull image"),
    })?;
    loop {
        let left = Duration::from_millis(PULL_TIMEOUT_MS).saturating_sub(begun.elapsed());
        let wait = left.min(Duration::from_millis(PULL_SILENCE_TIMEOUT_MS));
        let line = tokio::time::timeout(wait, lines.next()).await.map_err(|_| {
            let timeout_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Error::Unknown {
                call: "pull image",
                timeout_ms,
            }
        })?;
        let Some(line) = line else { return Ok(()) };
        let line = line.map_err(|error| failed(image, &format!("the pull was cut off: {error}")))?;
        if let Ok(Progress { error: Some(why) }) = read(&line) {
            return Err(failed(image, &why));
        }
    }
}

fn info(inspected: Inspected) -> ImageInfo {
    let config = inspected.config;
    let port = |text: &String| text.strip_suffix("/tcp").and_then(|port| port.parse().ok());
    let exposed = config.as_ref().and_then(|config| config.exposed_ports.as_ref());
    let mut exposed_ports: Vec<u16> = exposed
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter_map(port)
        .collect();
    exposed_ports.sort_unstable();
    let (user, entrypoint, command) = config
        .map(|config| (config.user, config.entrypoint, config.cmd))
        .unwrap_or_default();
    ImageInfo {
        exposed_ports,
        command: entrypoint.into_iter().chain(command).flatten().collect(),
        user: user.unwrap_or_default(),
        size_bytes: inspected.size.unwrap_or(0),
    }
}

fn failed(image: &ImageReference, why: &str) -> Error {
    Error::Image {
        image: image.to_string(),
        why: why.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_read() {
        let text = r#"{"Id":"sha256:1","Size":9,"Config":{"User":"app","ExposedPorts":{"8080/tcp":{},"53/udp":{},
            "80/tcp":{}},"Cmd":["-v"],"Entrypoint":["/run"],"Env":null},"New":[1]}"#;
        let info = info(serde_json::from_str(text).unwrap());
        assert_eq!(info.exposed_ports, [80, 8080]);
        assert_eq!(
            (
                info.command.join(" ").as_str(),
                info.user.as_str(),
                info.size_bytes
            ),
            ("/run -v", "app", 9)
        );
    }
}
