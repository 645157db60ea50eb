//! Small images made by hand.

use std::io::Write;

use ferrovia_build::digest::Digest;
use ferrovia_build::registry::{MediaType, Reference, Repository, Store};
use serde_json::json;

/// An image with one layer that holds one file.
pub struct Image {
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn with_file(name: &str, content: &[u8]) -> Self {
        Self::for_architecture(name, content, "amd64")
    }

    pub fn for_architecture(name: &str, content: &[u8], architecture: &str) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, content).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = gzip.finish().unwrap();
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/hello"], "ExposedPorts": {"8080/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]},
        }))
        .unwrap();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest.as_str(),
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&layer),
                "size": layer.len(),
            }],
        }))
        .unwrap();
        Self {
            config,
            layer,
            manifest,
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Puts the image in a store directly.
    pub async fn store(&self, store: &Store, repository: &str, reference: &str) -> Digest {
        let repository: Repository = repository.parse().unwrap();
        let reference: Reference = reference.parse().unwrap();
        for blob in [&self.config, &self.layer] {
            put_blob(store, &repository, blob).await;
        }
        store
            .put_manifest(&repository, &reference, MediaType::OciManifest, &self.manifest)
            .await
            .unwrap()
    }
}

pub async fn put_blob(store: &Store, repository: &Repository, bytes: &[u8]) -> Digest {
    let mut upload = store.begin_upload(repository, None).await.unwrap();
    upload.write(bytes).await.unwrap();
    let digest = Digest::of(bytes);
    store.finish_upload(upload, digest).await.unwrap();
    digest
}
