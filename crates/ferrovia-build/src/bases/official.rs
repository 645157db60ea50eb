//! Official images as bases: looked up once a day, kept in the platform's registry.

use std::path::PathBuf;
use std::time::Duration;

use ferrovia_core::bases::Base;
use ferrovia_core::error::Class;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BaseImage, Bases, PREFIX, failed, file_name};
use crate::digest::Digest;
use crate::fetch::{FetchError, ImageName};
use crate::narrator::Narrator;
use crate::registry::Repository;
use crate::{BuildError, durable};

/// How long a digest stands for a tag, in hours.
const LOOKED_UP_HOURS: i64 = 24;
/// How long the lookup may take where an older digest would do, in milliseconds.
const LOOKUP_TIMEOUT_MS: u64 = 20_000;

/// What an official image was when it was looked up, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LookedUp {
    pub(super) image: String,
    pub(super) digest: Digest,
    pub(super) at: Timestamp,
}

impl Bases {
    /// The digest that an official image has now, as far as is known: a day old at most where its registry answers.
    pub(super) async fn official_digest(&self, base: &Base) -> Result<Digest, BuildError> {
        let known = self.looked_up(base).await;
        let now = Timestamp::now();
        let fresh =
            |known: &&LookedUp| now.duration_since(known.at) < SignedDuration::from_hours(LOOKED_UP_HOURS);
        if let Some(known) = known.as_ref().filter(fresh) {
            return Ok(known.digest);
        }
        let image = name_of(base)?;
        let limit = Duration::from_millis(LOOKUP_TIMEOUT_MS);
        let found = match tokio::time::timeout(limit, self.client.resolve(&image)).await {
            Ok(found) => found,
            Err(_) => Err(FetchError::Unreachable("it takes too long".to_owned())),
        };
        match (found, known) {
            (Ok(found), _) => {
                let looked_up = LookedUp {
                    image: base.official.to_owned(),
                    digest: found.digest,
                    at: now,
                };
                let text = serde_json::to_vec_pretty(&looked_up).unwrap_or_default();
                self.keep_looked_up(base, &text)
                    .await
                    .map_err(|error| failed(base, &error))?;
                Ok(found.digest)
            }
            (Err(error), Some(known)) => {
                tracing::warn!(base = base.official, %error, "a base image is used as it was, since it cannot be looked up");
                Ok(known.digest)
            }
            (Err(error), None) => Err(error.into_build_error(base.official)),
        }
    }

    pub(super) async fn has_official(&self, base: &Base) -> bool {
        let Some(known) = self.looked_up(base).await else {
            return false;
        };
        let repository = format!("{PREFIX}{}", base.name).parse();
        match repository {
            Ok(repository) => self
                .store
                .holds_image(&repository, known.digest)
                .await
                .unwrap_or(false),
            Err(_) => false,
        }
    }

    pub(super) async fn ensure_official(
        &self,
        base: &'static Base,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let _turn = self.take_turn(base, narrator).await;
        let digest = self.official_digest(base).await?;
        let repository: Repository = format!("{PREFIX}{}", base.name)
            .parse()
            .map_err(|error| failed(base, &error))?;
        let held = self.store.holds_image(&repository, digest).await;
        if !held.map_err(|error| failed(base, &error))? {
            let narrator = narrator.step(format!("base {}", base.key()));
            narrator.say(&format!("fetched from its registry, once: `{}`", base.official));
            let mut image = name_of(base)?;
            image.digest = Some(digest);
            let wrong = |error: FetchError| error.into_build_error(base.official);
            let resolved = self.client.resolve(&image).await.map_err(wrong)?;
            self.client
                .copy(&image, &resolved, &self.store, &repository, &narrator)
                .await
                .map_err(wrong)?;
        }
        Ok(self.image(base, digest))
    }

    fn official_record(&self, base: &Base) -> PathBuf {
        self.options
            .data_directory
            .join(format!("official-{}.json", file_name(base)))
    }

    /// What was looked up last, if it is the image that the table names now.
    async fn looked_up(&self, base: &Base) -> Option<LookedUp> {
        let bytes = tokio::fs::read(self.official_record(base)).await.ok()?;
        let known: LookedUp = serde_json::from_slice(&bytes).ok()?;
        (known.image == base.official).then_some(known)
    }

    async fn keep_looked_up(&self, base: &Base, text: &[u8]) -> std::io::Result<()> {
        durable::ensure_directory(&self.options.data_directory).await?;
        durable::write(&self.official_record(base), text).await
    }
}

fn name_of(base: &Base) -> Result<ImageName, BuildError> {
    base.official.parse().map_err(|error| BuildError {
        class: Class::Bug,
        ..failed(base, &error)
    })
}
