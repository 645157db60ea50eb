//! The `/etc/resolv.conf` of replicas: one file per bridge, mounted read-only.
//!
//! Docker's own resolver is kept out: it would answer with other environments' names, and dies with dockerd. The file
//! is the same for every replica of a bridge and never changes once written: a mount holds the file, not its name.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ferrovia_core::network::Bridge;
use tokio::fs;
use tokio::io::AsyncWriteExt;

/// The domain that names are completed with.
const SEARCH_DOMAIN: &str = "ferrovia.internal";
/// Everybody in the container may read it.
const FILE_MODE: u32 = 0o644;

/// Writes the file of a bridge, unless it is there.
pub(super) async fn ensure(directory: &Path, bridge: &Bridge) -> io::Result<PathBuf> {
    let path = directory.join(format!("resolv-{}.conf", bridge.interface));
    let text = format!(
        "nameserver {}\nsearch {SEARCH_DOMAIN}\noptions ndots:1 timeout:2 attempts:2\n",
        bridge.gateway
    );
    if fs::read_to_string(&path).await.is_ok_and(|there| there == text) {
        return Ok(path);
    }
    fs::create_dir_all(directory).await?;
    let draft = directory.join(format!(
        ".resolv-{}.conf.{}",
        bridge.interface,
        std::process::id()
    ));
    let mut file = fs::File::create(&draft).await?;
    file.write_all(text.as_bytes()).await?;
    file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))
        .await?;
    file.sync_all().await?;
    fs::rename(&draft, &path).await?;
    fs::File::open(directory).await?.sync_all().await?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use ferrovia_core::network::AddressPlan;

    use super::*;

    #[tokio::test]
    async fn the_gateway_answers_names() {
        let directory = tempfile::tempdir().unwrap();
        let bridge = AddressPlan::default().bridge(1).unwrap();
        for _ in 0..2 {
            let path = ensure(&directory.path().join("engine"), &bridge).await.unwrap();
            let text = fs::read_to_string(&path).await.unwrap();
            assert!(
                text.starts_with("nameserver 10.210.4.1\nsearch ferrovia.internal\n"),
                "{text}"
            );
            assert_eq!(
                fs::metadata(&path).await.unwrap().permissions().mode() & 0o777,
                FILE_MODE
            );
        }
    }
}
