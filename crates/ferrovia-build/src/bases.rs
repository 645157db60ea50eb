//! Base images: official ones where a registry answers, else made by the platform from Debian packages.
//!
//! The table of what there is and how it is made is [`ferrovia_core::bases`]; here is the doing. A base is fetched or
//! made when it is first needed, once, whoever else waits for it, and lies in the platform's registry below `bases/`:
//! later builds need nobody outside for it. One of its own is made again only on demand ([`Bases::refresh`]); an
//! official one is looked up once a day, so that a patched base is taken by the next deploy, and by nothing before.

mod apt;
mod debian;
mod image;
mod official;
mod origin;
mod recipe;
mod seed;
mod standing;
pub mod substitute;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use ferrovia_core::bases::{self, Base, Origin};
use ferrovia_core::error::{Class, Report};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use self::image::architecture;
pub use self::recipe::recipe_hash;
use self::seed::Seed;
pub use self::standing::{BaseStanding, Standing, standing};
use crate::buildkit::canary::Canary;
use crate::buildkit::daemon::{Buildkit, Lease};
use crate::buildkit::secrets::Mask;
use crate::buildkit::solve::{Compression, Job};
use crate::certificates::{self, SECRET_ID};
use crate::digest::Digest;
use crate::fetch::Client;
use crate::narrator::Narrator;
use crate::registry::{Access, Grant, Reference, Repository, Scope, Store};
use crate::{BuildError, durable};

/// Where bases lie in the registry.
pub const PREFIX: &str = "bases/";
/// The base that every other stands on, and that the canary starts from.
pub const FOUNDATION: &str = "debian:trixie";

/// A base that is not used any more is left for this long: a build may have begun with it.
const OLD: std::time::Duration = std::time::Duration::from_hours(24);

/// What the platform's own bases need to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is kept: which base was made from which recipe.
    pub data_directory: PathBuf,
    /// Where the platform's registry listens.
    pub registry: SocketAddr,
    /// A certificate authority that is trusted beside the system's.
    pub extra_ca_file: Option<PathBuf>,
    /// A directory of made bases that is shared with other installations.
    pub seed_directory: Option<PathBuf>,
    /// Where bases come from; none: official ones if a registry answers.
    pub origin: Option<Origin>,
}

/// A base that can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Its name: `HOST/NAME@sha256:…`.
    pub image: String,
    /// Its digest.
    pub digest: Digest,
}

/// What was made, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    recipe: Digest,
    digest: Digest,
    /// Grows when it is made again on demand.
    revision: u32,
    made_at: jiff::Timestamp,
}

/// The platform's own bases.
pub struct Bases {
    options: Options,
    store: Arc<Store>,
    access: Access,
    kit: Arc<Buildkit>,
    client: Client,
    turns: StdMutex<HashMap<String, Arc<Mutex<()>>>>,
    origin: Mutex<Option<origin::Decided>>,
}

impl Bases {
    /// The bases of an installation.
    pub fn new(
        options: Options,
        store: Arc<Store>,
        access: Access,
        kit: Arc<Buildkit>,
        client: Client,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            store,
            access,
            kit,
            client,
            turns: StdMutex::default(),
            origin: Mutex::default(),
        })
    }

    /// What stands for a base in the key of an image: an official one's digest; of one that is made its recipe and how
    /// often it was made again, known before it is made, so that a build finds its image before and after.
    pub async fn identity(&self, key: &str) -> Result<String, BuildError> {
        if self.origin().await == Origin::Official {
            let digest = self.official_digest(official_of(key)?).await?;
            return Ok(format!("official:{digest}"));
        }
        let base = recipe_of(key)?;
        let revision = self.kept(base).await.map_or(0, |made| made.revision);
        Ok(format!("made:{}:{revision}", recipe_hash(base).hex()))
    }

    /// Whether the base of this key is there, so that nothing has to be fetched or made for it.
    pub async fn has(&self, key: &str) -> bool {
        let Some(base) = bases::find(key) else {
            return false;
        };
        match self.origin().await {
            Origin::Official => self.has_official(base).await,
            Origin::Made => self
                .kept(base)
                .await
                .is_some_and(|made| made.recipe == recipe_hash(base)),
        }
    }

    /// The base of this key, fetched or made when it is not there.
    pub async fn ensure(&self, key: &str, narrator: &Narrator<'_>) -> Result<BaseImage, BuildError> {
        match self.origin().await {
            Origin::Official => self.ensure_official(official_of(key)?, narrator).await,
            Origin::Made => self.ensure_base(recipe_of(key)?, narrator).await,
        }
    }

    async fn ensure_base(
        &self,
        base: &'static Base,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let turn = self.turn(base);
        let _turn = turn.lock().await;
        let kept = self.kept(base).await;
        if let Some(made) = &kept
            && made.recipe == recipe_hash(base)
        {
            return Ok(self.image(base, made.digest));
        }
        let revision = kept.map_or(0, |made| made.revision);
        Box::pin(self.make(base, revision, narrator)).await
    }

    /// Makes a base again, with the packages of today.
    pub async fn refresh(&self, key: &str, narrator: &Narrator<'_>) -> Result<BaseImage, BuildError> {
        let base = recipe_of(key)?;
        let turn = self.turn(base);
        let _turn = turn.lock().await;
        let revision = self.kept(base).await.map_or(0, |made| made.revision + 1);
        Box::pin(self.make(base, revision, narrator)).await
    }

    /// Takes bases out of the registry that are neither what was made nor what was looked up last; how many.
    pub async fn sweep(&self) -> Result<usize, BuildError> {
        let wrong = registry_failed;
        let used: Vec<String> = standing::everything(&self.options.data_directory);
        let mut swept = 0;
        for (repository, digest, pushed) in self.store.manifests().await.map_err(wrong)? {
            let old = pushed.elapsed().is_ok_and(|age| age > OLD);
            if repository.as_str().starts_with(PREFIX) && old && !used.contains(&digest.to_string()) {
                self.store
                    .delete_manifest(&repository, digest)
                    .await
                    .map_err(wrong)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// What the canary starts from.
    pub async fn canary(&self, narrator: &Narrator<'_>) -> Result<(Canary, Grant), BuildError> {
        let foundation = self.ensure(FOUNDATION, narrator).await?;
        let grant = self.access.grant("canary", self.scope(false));
        let canary = Canary {
            image: foundation.image,
            logins: vec![(self.options.registry.to_string(), grant.login().clone())],
        };
        Ok((canary, grant))
    }

    fn scope(&self, push: bool) -> Scope {
        let prefix = vec![PREFIX.to_owned()];
        let (push, pull) = if push {
            (prefix, Vec::new())
        } else {
            (Vec::new(), prefix)
        };
        Scope::Repositories { push, pull }
    }

    async fn make(
        &self,
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
        &self,
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
        let (canary, _grant) = self.canary(narrator).await?;
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

    fn image(&self, base: &Base, digest: Digest) -> BaseImage {
        BaseImage {
            image: format!("{}/{PREFIX}{}@{digest}", self.options.registry, base.name),
            digest,
        }
    }

    fn turn(&self, base: &Base) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(base.key()).or_default())
    }

    fn record(&self, base: &Base) -> PathBuf {
        self.options
            .data_directory
            .join(format!("{}.json", file_name(base)))
    }

    /// What was made of a base, if the registry still holds it.
    async fn kept(&self, base: &Base) -> Option<Made> {
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

fn file_name(base: &Base) -> String {
    format!("{}-{}", base.name, base.line)
}

fn official_of(key: &str) -> Result<&'static Base, BuildError> {
    bases::find(key).ok_or_else(|| unknown(key))
}

fn recipe_of(key: &str) -> Result<&'static Base, BuildError> {
    bases::find(key)
        .filter(|base| base.recipe.is_some())
        .ok_or_else(|| unknown(key))
}

fn unknown(key: &str) -> BuildError {
    let has = bases::BASES
        .iter()
        .filter(|base| base.recipe.is_some())
        .map(Base::key);
    let has: Vec<String> = has.map(|key| format!("`{key}`")).collect();
    BuildError {
        report: Report::new(
            "base_image_unreachable",
            format!("the base image `{key}` cannot be made here, and no registry answers"),
        )
        .with_hint(format!("these can: {}", has.join(", "))),
        class: Class::Invalid,
    }
}

pub(crate) fn registry_failed(error: crate::registry::Error) -> BuildError {
    BuildError {
        class: error.class(),
        report: Report::new(
            "registry_failed",
            format!("the platform's registry does not work: {error}"),
        )
        .with_hint("see `ferroviad doctor`: is the disk full, is the data directory writable"),
    }
}

fn failed(base: &Base, error: &dyn std::fmt::Display) -> BuildError {
    BuildError {
        report: Report::new(
            "base_image_not_made",
            format!("the base image `{}` could not be made: {error}", base.key()),
        )
        .with_hint("deploy again; when it happens again, see `ferroviad doctor`"),
        class: Class::Transient,
    }
}

fn unreadable_authority(file: &Path, error: &std::io::Error) -> BuildError {
    BuildError {
        report: Report::new(
            "extra_ca_unreadable",
            format!(
                "the extra certificate authority `{}` cannot be read ({error})",
                file.display()
            ),
        )
        .with_hint("correct the setting `build.extra_ca_file`"),
        class: Class::Unavailable,
    }
}
