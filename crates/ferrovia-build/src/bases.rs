//! Base images: official ones where a registry answers, else made by the platform from Debian packages.
//!
//! The table of what there is and how it is made is [`ferrovia_core::bases`]; here is the doing. A base is fetched or
//! made when it is first needed, once, whoever else waits for it, and lies in the platform's registry below `bases/`:
//! later builds need nobody outside for it. One of its own is made again only on demand ([`Bases::refresh`]); an
//! official one is looked up once a day, so that a patched base is taken by the next deploy, and by nothing before.

mod apt;
mod background;
mod debian;
mod image;
mod made;
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
use tokio::sync::Mutex;

pub use self::image::architecture;
use self::made::Made;
pub use self::recipe::recipe_hash;
pub use self::standing::{BaseStanding, Standing, standing};
use crate::BuildError;
use crate::buildkit::canary::Canary;
use crate::buildkit::daemon::Buildkit;
use crate::digest::Digest;
use crate::fetch::Client;
use crate::narrator::Narrator;
use crate::registry::{Access, Grant, Scope, Store};

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
    /// Getting it goes on when the caller goes away.
    pub async fn ensure(
        self: &Arc<Self>,
        key: &str,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let origin = self.origin().await;
        let base = match origin {
            Origin::Official => official_of(key)?,
            Origin::Made => recipe_of(key)?,
        };
        self.in_background(base, origin, narrator).await
    }

    /// Makes a base again, with the packages of today.
    pub async fn refresh(
        self: &Arc<Self>,
        key: &str,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let base = recipe_of(key)?;
        let _turn = self.take_turn(base, narrator).await;
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
    pub async fn canary(self: &Arc<Self>, narrator: &Narrator<'_>) -> Result<(Canary, Grant), BuildError> {
        let foundation = self.ensure(FOUNDATION, narrator).await?;
        Ok(self.canary_from(foundation))
    }

    fn canary_from(&self, foundation: BaseImage) -> (Canary, Grant) {
        let grant = self.access.grant("canary", self.scope(false));
        let canary = Canary {
            image: foundation.image,
            logins: vec![(self.options.registry.to_string(), grant.login().clone())],
        };
        (canary, grant)
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
