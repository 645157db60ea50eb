//! Sending a directory: the manifest, then the files that the project lacks, several at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferrovia_api::client::Client;
use ferrovia_api::source::{Manifest, ManifestEntry};
use ferrovia_core::tree::EntryKind;
use futures_util::StreamExt;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::scan::{Scan, scan, source_of};
use crate::failure::Failure;
use crate::printer::Printer;

/// Files that are sent at once.
const PARALLEL: usize = 8;
/// How often a directory that changes under the upload is read again.
const MAX_SCANS: u32 = 3;
/// How often the sending of one file is tried.
const MAX_SENDS: u32 = 3;
/// A file up to this size is read whole; a larger one is streamed. In bytes.
const WHOLE_BYTES: u64 = 1024 * 1024;

/// Sends what a directory holds; the digest of the tree.
pub async fn upload(
    client: &Client,
    project: &str,
    root: &Path,
    printer: &Printer,
) -> Result<String, Failure> {
    for _ in 1..MAX_SCANS {
        match try_upload(client, project, root, printer).await {
            Err(failure) if failure.report.code == "blob_mismatch" => {
                printer.murmur("a file changed while it was sent; reading the directory again");
            }
            result => return result,
        }
    }
    try_upload(client, project, root, printer).await
}

async fn try_upload(
    client: &Client,
    project: &str,
    root: &Path,
    printer: &Printer,
) -> Result<String, Failure> {
    let from = root.to_owned();
    let Scan { manifest, skipped } = tokio::task::spawn_blocking(move || scan(&from))
        .await
        .map_err(|error| Failure::new("scan_failed", error.to_string()))??;
    for path in skipped {
        printer.murmur(format!("`{path}` is not sent: it is no file, link or directory"));
    }
    let wire = wire_manifest(&manifest);
    let mut status = client.offer_tree(project, &wire).await?;
    if !status.complete {
        let files: BTreeMap<String, (String, u64)> = manifest
            .entries()
            .iter()
            .filter_map(|entry| match &entry.kind {
                EntryKind::File { digest, size, .. } => {
                    Some((digest.to_string(), (entry.path.clone(), *size)))
                }
                _ => None,
            })
            .collect();
        let wanted: Vec<(String, PathBuf, u64)> = status
            .missing
            .iter()
            .filter_map(|digest| {
                let (path, size) = files.get(digest)?;
                Some((digest.clone(), source_of(root, path), *size))
            })
            .collect();
        send_all(client, project, wanted, printer).await?;
        status = client.offer_tree(project, &wire).await?;
    }
    if !status.complete {
        return Err(
            Failure::new("tree_incomplete", "the server lacks files that were sent").hint("run it again"),
        );
    }
    Ok(status.digest)
}

fn wire_manifest(manifest: &ferrovia_core::tree::Manifest) -> Manifest {
    let entries = manifest
        .entries()
        .iter()
        .map(|entry| {
            let path = entry.path.clone();
            match &entry.kind {
                EntryKind::File {
                    executable,
                    digest,
                    size,
                } => ManifestEntry::File {
                    path,
                    executable: *executable,
                    digest: digest.to_string(),
                    size: *size,
                },
                EntryKind::Symlink { target } => ManifestEntry::Symlink {
                    path,
                    target: target.clone(),
                },
                EntryKind::Directory => ManifestEntry::Directory { path },
            }
        })
        .collect();
    Manifest { entries }
}

async fn send_all(
    client: &Client,
    project: &str,
    files: Vec<(String, PathBuf, u64)>,
    printer: &Printer,
) -> Result<(), Failure> {
    let bytes: u64 = files.iter().map(|(_, _, size)| size).sum();
    let count = files.len();
    let bar = bar(bytes, printer);
    let mut sends = stream::iter(files)
        .map(|(digest, path, size)| {
            let bar = bar.clone();
            async move {
                send(client, project, &digest, &path, size).await?;
                bar.inc(size);
                Ok::<(), Failure>(())
            }
        })
        .buffer_unordered(PARALLEL);
    while let Some(sent) = sends.next().await {
        sent?;
    }
    bar.finish_and_clear();
    printer.murmur(format!("sent {count} files, {} kB", bytes.div_ceil(1000)));
    if printer.is_json() {
        printer.json(&json!({ "event": "uploaded", "files": count, "bytes": bytes }));
    }
    Ok(())
}

async fn send(client: &Client, project: &str, digest: &str, path: &Path, size: u64) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            "scan_failed",
            format!("`{}` cannot be read: {error}", path.display()),
        )
    };
    let mut tries = 1;
    loop {
        let sent = if size <= WHOLE_BYTES {
            let content = tokio::fs::read(path).await.map_err(unreadable)?;
            client
                .send_blob(project, digest, content.len() as u64, content)
                .await
        } else {
            let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
            let body = reqwest::Body::wrap_stream(ReaderStream::new(file));
            client.send_blob(project, digest, size, body).await
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(error) if error.is_retryable() && tries < MAX_SENDS => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn bar(bytes: u64, printer: &Printer) -> ProgressBar {
    let target = if printer.is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    if let Ok(style) = ProgressStyle::with_template("sending {bar:30} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar
}
