//! The registry's address stands in the names of images: once there are any, it stays.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use ferrovia_build::durable;

use crate::command::Failure;

/// The file's name in the data directory.
const FILE: &str = "registry-address";

/// Keeps the address at the first start; later only the same is taken.
///
/// # Errors
/// When it is another than the images are named after, or the file cannot be read or written.
pub async fn hold(data: &Path, address: SocketAddr) -> Result<(), Failure> {
    let path = data.join(FILE);
    match tokio::fs::read_to_string(&path).await {
        Ok(known) if known.trim() == address.to_string() => Ok(()),
        Ok(known) => Err(format!(
            "the images of this installation are named after the registry at {known}, not {address}; start with \
             `--registry-listen={known}`",
            known = known.trim()
        )
        .into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(durable::write(&path, address.to_string().as_bytes()).await?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_address_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        hold(dir.path(), address(7071)).await.unwrap();
        hold(dir.path(), address(7071)).await.unwrap();
        let error = hold(dir.path(), address(7072)).await.unwrap_err().to_string();
        assert!(error.contains("--registry-listen=127.0.0.1:7071"), "{error}");
    }
}
