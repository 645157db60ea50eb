//! Sending a directory: the manifest, then the files that the project lacks, several at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ferrovia_api::client::Client;
use ferrovia_api::source::{Manifest, ManifestEntry};
use ferrovia_core::tree::EntryKind;
use futures_util::StreamExt;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::content::{Content, framed};
use super::scan::{Scan, scan_told, source_of};
use crate::failure::Failure;
use crate::printer::{Printer, span};

/// Requests that send contents at once.
const PARALLEL: usize = 4;
/// Most contents in one request.
const BATCH_FILES: usize = 500;
/// Contents of this many bytes together make a request; a larger file is alone in one.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// How often a directory that changes under the upload is read again.
const MAX_SCANS: u32 = 3;
/// How often the sending of one request is tried.
const MAX_SENDS: u32 = 3;

/// Sends what a directory was found to hold; the digest of the tree.
pub async fn upload(
    client: &Client,
    project: &str,
    root: &Path,
    scan: Scan,
    printer: &Printer,
) -> Result<String, Failure> {
    let mut scan = scan;
    for _ in 1..MAX_SCANS {
        match try_upload(client, project, root, scan, printer).await {
            Err(failure) if failure.report.code == "source_changed" => {
                printer.murmur("a file changed while it was sent; reading the directory again");
                scan = scan_told(root, printer).await?;
            }
            result => return result,
        }
    }
    try_upload(client, project, root, scan, printer).await
}

async fn try_upload(
    client: &Client,
    project: &str,
    root: &Path,
    Scan { manifest, skipped }: Scan,
    printer: &Printer,
) -> Result<String, Failure> {
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
        let wanted = status.missing.iter().filter_map(|digest| {
            let (path, size) = files.get(digest)?;
            Some(Content {
                digest: digest.clone(),
                path: source_of(root, path),
                size: *size,
            })
        });
        send_all(client, project, wanted.collect(), printer).await?;
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
    contents: Vec<Content>,
    printer: &Printer,
) -> Result<(), Failure> {
    let bytes: u64 = contents.iter().map(|content| content.size).sum();
    let count = contents.len();
    let files = match count {
        1 => "1 file".to_owned(),
        more => format!("{more} files"),
    };
    let what = format!("{files}, {} kB", bytes.div_ceil(1000));
    if bytes > BATCH_BYTES && !printer.is_terminal() {
        // There is no bar to look at, and it takes a while.
        printer.murmur(format!("sending {what}"));
    }
    let begun = Instant::now();
    let bar = bar(bytes, printer);
    let mut sends = stream::iter(batches(contents))
        .map(|batch| send(client, project, batch, bar.clone()))
        .buffer_unordered(PARALLEL);
    while let Some(sent) = sends.next().await {
        sent?;
    }
    bar.finish_and_clear();
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    printer.murmur(format!("sent {what} in {}", span(took_ms)));
    if printer.is_json() {
        printer.json(&json!({ "event": "uploaded", "files": count, "bytes": bytes }));
    }
    Ok(())
}

/// Contents in requests of a good size.
fn batches(contents: Vec<Content>) -> Vec<Vec<Content>> {
    let mut batches: Vec<Vec<Content>> = Vec::new();
    let mut bytes = 0;
    for content in contents {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_FILES && bytes + content.size <= BATCH_BYTES => {
                bytes += content.size;
                batch.push(content);
            }
            _ => {
                bytes = content.size;
                batches.push(vec![content]);
            }
        }
    }
    batches
}

async fn send(client: &Client, project: &str, batch: Vec<Content>, bar: ProgressBar) -> Result<(), Failure> {
    let bytes: u64 = batch.iter().map(|content| content.size).sum();
    let mut tries = 1;
    loop {
        let body = reqwest::Body::wrap_stream(framed(batch.clone()));
        match client.send_contents(project, body).await {
            Ok(_) => {
                bar.inc(bytes);
                return Ok(());
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: u64) -> Content {
        Content {
            digest: String::new(),
            path: "x".into(),
            size,
        }
    }

    #[test]
    fn requests_have_a_good_size() {
        let sizes = |sizes: Vec<u64>| -> Vec<usize> {
            batches(sizes.into_iter().map(content).collect())
                .iter()
                .map(Vec::len)
                .collect()
        };
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes(vec![1; 1001]), [500, 500, 1]);
        assert_eq!(sizes(vec![BATCH_BYTES, 1, BATCH_BYTES * 3, 1]), [1, 1, 1, 1]);
    }
}
