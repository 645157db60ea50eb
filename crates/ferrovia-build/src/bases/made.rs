//! Bases that the platform makes: the foundation from Debian's archive, every other from a recipe on top of it.

use std::path::PathBuf;
use std::sync::Arc;

use ferrovia_core::bases::{self, Base};
use serde::{Deserialize, Serialize};

use super::seed::Seed;
use super::{
    BaseImage, Bases, FOUNDATION, PREFIX, debian, failed, file_name, image, recipe, recipe_hash, recipe_of,
    unknown, unreadable_authority,
};
use crate::buildkit::daemon::Lease;
use crate::buildkit::secrets::Mask;
use crate::buildkit::solve::{Compression, Job};
use crate::certificates::{self, SECRET_ID};
use crate::digest::Digest;
use crate::narrator::Narrator;
use crate::registry::{Reference, Repository};
use crate::{BuildError, durable};

/// What was made, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) recipe: Digest,
    pub(super) digest: Digest,
    /// Grows when it is made again on demand.
    pub(super) revision: u32,
    pub(super) made_at: jiff::Timestamp,
}

impl Bases {
    pub(super) async fn ensure_base(
        self: &Arc<Self>,
        base: &'static Base,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let _turn = self.take_turn(base, narrator).await;
        let kept = self.kept(base).await;
        if let Some(made) = &kept
            && made.recipe == recipe_hash(base)
        {
            return Ok(self.image(base, made.digest));
        }
        let revision = kept.map_or(0, |made| made.revision);
        Box::pin(self.make(base, revision, narrator)).await
    }

    pub(super) async fn make(
        self: &Arc<Self>,
        base: &'static Base,
        revision: u32,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let narrator = narrator.step(format!("base {}", base.key()));
        let hash = recipe_hash(base);
        // A base that is asked for again must not come out of the directory where the old one lies.
        let seed = self.options.seed_directory.as_ref().filter(|_| revision == 0);
        let seed = seed.map(|root| Seed::new(root, &file_name(base), hash));
        let _turn = match &seed {
            Some(seed) => Some(seed.turn().await.map_err(|error| failed(base, &error))?),
            None => None,
        };
        let (repository, tags) = self.places(base)?;
        let found = match &seed {
            Some(seed) => seed
                .import(&self.store, &repository, &tags)
                .await
                .map_err(|error| failed(base, &error))?,
            None => None,
        };
        let digest = match found {
            Some(digest) => digest,
            None => {
                narrator.say("made from Debian packages, once");
                let digest = match base.recipe.and_then(|recipe| recipe.parent) {
                    None => self.make_foundation(base, &repository, &tags, &narrator).await?,
                    Some(parent) => {
                        self.make_from(base, parent, &repository, &tags, &narrator)
                            .await?
                    }
                };
                narrator.say("made");
                digest
            }
        };
        if let (Some(seed), None) = (&seed, found) {
            let manifest = self
                .store
                .find_manifest(&repository, &Reference::Digest(digest))
                .await;
            if let Ok(Some(manifest)) = manifest
                && let Err(error) = seed.export(&self.store, &repository, &manifest).await
            {
                tracing::warn!(base = base.key(), %error, "a made base is not shared");
            }
        }
        let made = Made {
            recipe: hash,
            digest,
            revision,
            made_at: jiff::Timestamp::now(),
        };
        self.keep(base, &made)
            .await
            .map_err(|error| failed(base, &error))?;
        Ok(self.image(base, digest))
    }

    async fn make_foundation(
        &self,
        base: &Base,
        repository: &Repository,
        tags: &[Reference],
        narrator: &Narrator<'_>,
    ) -> Result<Digest, BuildError> {
        let directory = self.options.data_directory.join("work");
        durable::ensure_directory(&directory)
            .await
            .map_err(|error| failed(base, &error))?;
        let tar = directory.join(format!("{}.tar", uuid::Uuid::now_v7().simple()));
        let _gone = Remove(tar.clone());
        let packages = base.recipe.map_or(&[][..], |recipe| recipe.packages);
        let extra = self.options.extra_ca_file.as_deref();
        debian::make(
            base.line,
            packages,
            &debian::archives_of_host(),
            extra,
            &tar,
            narrator,
        )
        .await?;
        image::store_root(&self.store, repository, tags, &tar)
            .await
            .map_err(|error| failed(base, &error))
    }

    async fn make_from(
        self: &Arc<Self>,
        base: &Base,
        parent: &str,
        repository: &Repository,
        tags: &[Reference],
        narrator: &Narrator<'_>,
    ) -> Result<Digest, BuildError> {
        let recipe = base.recipe.ok_or_else(|| unknown(&base.key()))?;
        let parent = self.ensure_base(recipe_of(parent)?, narrator).await?;
        let mut copied = Vec::new();
        for copy in recipe.copies {
            copied.push(self.ensure_base(recipe_of(copy.from)?, narrator).await?.image);
        }
        let foundation = self.ensure_base(recipe_of(FOUNDATION)?, narrator).await?;
        let (canary, _grant) = self.canary_from(foundation);
        let lease = self.kit.acquire(canary).await?;
        let id = format!("base-{}", uuid::Uuid::now_v7().simple());
        let directory = self.options.data_directory.join("work").join(&id);
        durable::ensure_directory(&directory)
            .await
            .map_err(|error| failed(base, &error))?;
        let _gone = Remove(directory.clone());
        let dockerfile = recipe::dockerfile(&recipe, &parent.image, &copied);
        std::fs::write(directory.join("Dockerfile"), dockerfile).map_err(|error| failed(base, &error))?;
        let tag = tags.first().map(ToString::to_string).unwrap_or_default();
        let mut job = Job::new(id, "bases", &directory);
        job.output = Some(format!("{}/{repository}:{tag}", self.options.registry));
        job.no_cache = true;
        if is_built_from_only(base) {
            job.compression = Compression::Zstd;
        }
        self.run(&lease, job, narrator).await?;
        let stored = match tags.first() {
            Some(tag) => self.store.find_manifest(repository, tag).await,
            None => Ok(None),
        };
        let stored = stored.map_err(|error| failed(base, &error))?;
        let stored = stored.ok_or_else(|| failed(base, &"its image was not pushed"))?;
        for tag in tags {
            let put = self
                .store
                .put_manifest(repository, tag, stored.media_type, &stored.bytes);
            put.await.map_err(|error| failed(base, &error))?;
        }
        Ok(stored.digest)
    }

    async fn run(&self, lease: &Lease, mut job: Job, narrator: &Narrator<'_>) -> Result<(), BuildError> {
        let grant = self.access.grant("bases", self.scope(true));
        job.logins = vec![(self.options.registry.to_string(), grant.login().clone())];
        if let Some(extra) = &self.options.extra_ca_file {
            let place = self.options.data_directory.join("ca");
            let bundle = certificates::write_bundle(extra, &place).await;
            let bundle = bundle.map_err(|error| unreadable_authority(extra, &error))?;
            job.secret_files = vec![(SECRET_ID.to_owned(), bundle)];
        }
        let mut sink = |line: crate::buildkit::progress::Line| narrator.say(&line.text);
        let solved = job.run(lease, Mask::default(), &mut sink).await;
        solved
            .map(drop)
            .map_err(crate::buildkit::failure::SolveError::into_build_error)
    }

    /// Repository and tags: of today first, then the line.
    fn places(&self, base: &Base) -> Result<(Repository, Vec<Reference>), BuildError> {
        let repository: Repository = format!("{PREFIX}{}", base.name)
            .parse()
            .map_err(|error| failed(base, &error))?;
        let day = jiff::Timestamp::now().strftime("%Y%m%d");
        let tags = [format!("{}-{day}", base.line), base.line.to_owned()];
        let tags: Result<Vec<Reference>, _> = tags.iter().map(|tag| tag.parse()).collect();
        Ok((repository, tags.map_err(|error| failed(base, &error))?))
    }

    fn record(&self, base: &Base) -> PathBuf {
        self.options
            .data_directory
            .join(format!("{}.json", file_name(base)))
    }

    /// What was made of a base, if the registry still holds it.
    pub(super) async fn kept(&self, base: &Base) -> Option<Made> {
        let bytes = tokio::fs::read(self.record(base)).await.ok()?;
        let made: Made = serde_json::from_slice(&bytes).ok()?;
        let repository = format!("{PREFIX}{}", base.name).parse().ok()?;
        let held = self.store.holds_image(&repository, made.digest).await.ok()?;
        held.then_some(made)
    }

    async fn keep(&self, base: &Base, made: &Made) -> std::io::Result<()> {
        durable::ensure_directory(&self.options.data_directory).await?;
        let text = serde_json::to_vec_pretty(made).unwrap_or_default();
        durable::write(&self.record(base), &text).await
    }
}

/// A file or directory that goes when this does.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // What stays is swept with the next work there.
        let _ = match self.0.is_dir() {
            true => std::fs::remove_dir_all(&self.0),
            false => std::fs::remove_file(&self.0),
        };
    }
}

/// Whether plans only build from it, and applications run on another.
fn is_built_from_only(base: &Base) -> bool {
    bases::BASES
        .iter()
        .any(|other| other.name.strip_suffix("-runtime") == Some(base.name))
        || matches!(base.name, "go" | "rust")
}
