//! Manifests as far as a registry must understand them: what kind they are and what they refer to.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::digest::Digest;

/// Largest manifest in bytes; Docker and containerd refuse larger ones too.
pub const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// The kinds of manifests that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaType {
    /// One image, OCI.
    #[serde(rename = "application/vnd.oci.image.manifest.v1+json")]
    OciManifest,
    /// Images for several platforms, OCI.
    #[serde(rename = "application/vnd.oci.image.index.v1+json")]
    OciIndex,
    /// One image, Docker schema 2.
    #[serde(rename = "application/vnd.docker.distribution.manifest.v2+json")]
    DockerManifest,
    /// Images for several platforms, Docker schema 2.
    #[serde(rename = "application/vnd.docker.distribution.manifest.list.v2+json")]
    DockerList,
}

impl MediaType {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::OciManifest,
        Self::OciIndex,
        Self::DockerManifest,
        Self::DockerList,
    ];

    /// As it stands in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// From a header's value, parameters left out.
    pub fn from_header(value: &str) -> Option<Self> {
        let bare = value.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|kind| kind.as_str() == bare)
    }

    /// Whether it lists other manifests.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

/// A reference to content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    #[serde(default)]
    pub size: u64,
    /// Where else it may be had; such layers are not pushed to registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// In an index: for which platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<serde_json::Value>,
}

/// A platform, in OCI's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// One image.
    Image {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
    /// Images for several platforms.
    Index {
        /// One manifest each.
        manifests: Vec<Descriptor>,
    },
}

impl Manifest {
    /// Reads a manifest of this kind.
    pub fn parse(kind: MediaType, bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &str| Error::ManifestInvalid(why.to_owned());
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|error| Error::ManifestInvalid(error.to_string()))?;
        if wire.schema_version != 2 {
            return Err(invalid("`schemaVersion` must be 2"));
        }
        if wire
            .media_type
            .as_deref()
            .is_some_and(|inner| inner != kind.as_str())
        {
            return Err(invalid("`mediaType` differs from the `Content-Type` header"));
        }
        if kind.is_index() {
            return Ok(Self::Index {
                manifests: wire.manifests,
            });
        }
        let config = wire.config.ok_or_else(|| invalid("`config` is missing"))?;
        Ok(Self::Image {
            config,
            layers: wire.layers,
        })
    }

    /// Blobs that must be there.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers): (_, &[Descriptor]) = match self {
            Self::Image { config, layers } => (Some(config), layers),
            Self::Index { .. } => (None, &[]),
        };
        config
            .into_iter()
            .chain(layers.iter().filter(|layer| layer.urls.is_empty()))
    }

    /// Manifests that must be there.
    pub fn manifests(&self) -> &[Descriptor] {
        match self {
            Self::Image { .. } => &[],
            Self::Index { manifests } => manifests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_must_and_refuses_the_rest() {
        let config = Digest::of(b"config");
        let layer = Digest::of(b"layer");
        let foreign = Digest::of(b"foreign");
        let json = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest.as_str(),
            "config": {"mediaType": "c", "digest": config, "size": 6},
            "layers": [
                {"mediaType": "l", "digest": layer, "size": 5},
                {"mediaType": "l", "digest": foreign, "size": 7, "urls": ["https://elsewhere.example/x"]},
            ],
        });
        let bytes = serde_json::to_vec(&json).unwrap();
        let manifest = Manifest::parse(MediaType::OciManifest, &bytes).unwrap();
        let blobs: Vec<_> = manifest.blobs().map(|blob| blob.digest).collect();
        assert_eq!(blobs, [config, layer]);
        assert!(Manifest::parse(MediaType::DockerManifest, &bytes).is_err());
        assert!(Manifest::parse(MediaType::OciManifest, b"{}").is_err());
        assert!(Manifest::parse(MediaType::OciManifest, b"\xff").is_err());
        assert_eq!(MediaType::from_header("application/json"), None);
        let header = format!("{}; charset=utf-8", MediaType::OciIndex.as_str());
        assert_eq!(MediaType::from_header(&header), Some(MediaType::OciIndex));
    }
}
