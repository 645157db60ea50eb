//! A root file system as an image in the registry.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::digest::{Digest, Hasher};
use crate::registry::{Error, MediaType, Reference, Repository, Store};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// `PATH` of the image.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This machine's architecture in OCI's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Puts a tar archive as the only layer of an image and gives its digest.
pub(super) async fn store_root(
    store: &Store,
    repository: &Repository,
    tags: &[Reference],
    tar: &Path,
) -> Result<Digest, Error> {
    let (layer, layer_size) = store_compressed(store, repository, tar).await?;
    let diff_id = digest_of(tar).await.map_err(failed)?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": [PATH], "Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "ferrovia: debian from packages"}],
    });
    let config = config.to_string().into_bytes();
    let config_digest = Digest::of(&config);
    let mut upload = store.begin_upload(repository, Some(config.len() as u64)).await?;
    upload.write(&config).await?;
    store.finish_upload(upload, config_digest).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciManifest.as_str(),
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer,
            "size": layer_size,
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut digest = Digest::of(&manifest);
    for tag in tags {
        digest = store
            .put_manifest(repository, tag, MediaType::OciManifest, &manifest)
            .await?;
    }
    Ok(digest)
}

/// Compressed by `gzip`, which every Debian has and which is quick in a build of ours without optimisation too.
async fn store_compressed(
    store: &Store,
    repository: &Repository,
    tar: &Path,
) -> Result<(Digest, u64), Error> {
    let input = std::fs::File::open(tar).map_err(failed)?;
    let mut gzip = Command::new("gzip")
        .args(["-n", "-6"])
        .stdin(input)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut output = gzip.stdout.take().ok_or(Error::Interrupted)?;
    let mut upload = store.begin_upload(repository, None).await?;
    upload.write_from(&mut output).await?;
    if !gzip.wait().await.map_err(failed)?.success() {
        return Err(Error::Interrupted);
    }
    let (digest, size) = (upload.digest(), upload.written_bytes());
    store.finish_upload(upload, digest).await?;
    Ok((digest, size))
}

async fn digest_of(path: &Path) -> std::io::Result<Digest> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::Io {
        what: "take a base image in",
        source,
    }
}
