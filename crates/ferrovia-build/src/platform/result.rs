//! What a finished build gave, read from the registry.

use serde_json::Value;

use super::{PlatformBuilder, registry_failed};
use crate::digest::Digest;
use crate::registry::{Error, Manifest, Reference, Store};
use crate::{BuildError, BuildRequest, BuiltImage};

/// Largest configuration of an image, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

impl PlatformBuilder {
    pub(super) async fn result(
        &self,
        request: &BuildRequest,
        digest: Digest,
    ) -> Result<BuiltImage, BuildError> {
        let repository = Self::repository(request)?;
        let read = read(&self.parts.store, &repository, digest).await;
        let (size_bytes, config) = read.map_err(registry_failed)?;
        Ok(BuiltImage {
            image: self.reference(&repository, digest),
            size_bytes,
            config,
        })
    }
}

/// The size of an image's layers in bytes, and the `config` of its configuration.
async fn read(
    store: &Store,
    repository: &crate::registry::Repository,
    digest: Digest,
) -> Result<(u64, Value), Error> {
    use tokio::io::AsyncReadExt;

    let stored = store
        .find_manifest(repository, &Reference::Digest(digest))
        .await?
        .ok_or(Error::BlobUnknown(digest))?;
    let invalid = |why: &str| Error::ManifestInvalid(why.to_owned());
    let Manifest::Image { config, layers } = Manifest::parse(stored.media_type, &stored.bytes)? else {
        return Err(invalid("it lists images for several platforms"));
    };
    let (file, size) = store.open_blob(repository, config.digest).await?;
    if size > MAX_CONFIG_BYTES {
        return Err(invalid("its configuration is too large"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES)
        .read_to_end(&mut bytes)
        .await
        .map_err(|source| Error::Io {
            what: "read a configuration",
            source,
        })?;
    let mut whole: Value = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
    let config = whole.get_mut("config").map_or(Value::Null, Value::take);
    let config = if config.is_null() {
        serde_json::json!({})
    } else {
        config
    };
    Ok((layers.iter().map(|layer| layer.size).sum(), config))
}
