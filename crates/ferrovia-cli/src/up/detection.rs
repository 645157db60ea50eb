//! What a directory would be built as, found on this side: before anything is made, and for `detect`.
//!
//! The same code as the server's, on what would be sent. Versions are those of the official base images; a server that
//! makes its own bases may have others.

use std::io::Read;
use std::path::Path;

use ferrovia_api::Report;
use ferrovia_core::bases::{Origin, available};
use ferrovia_core::detect::{Detection, Refusal, Request, SourceView, detect as decide};
use ferrovia_core::settings::BuildSettings;
use ferrovia_core::tree::Manifest;

use super::scan::source_of;
use crate::failure::Failure;

/// Refusals that the server need not share: it may have other versions.
const SERVER_KNOWS: [&str; 1] = ["version_unavailable"];

/// What a directory is, with no settings made; a start command may come by a setting.
pub fn detect(root: &Path, manifest: &Manifest) -> Result<Result<Detection, Box<Refusal>>, Failure> {
    let view = SourceView::load(manifest, "", |path, most| {
        let mut head = Vec::new();
        let file = std::fs::File::open(source_of(root, path))?;
        file.take(most as u64).read_to_end(&mut head)?;
        Ok::<_, std::io::Error>(head)
    })
    .map_err(|error| {
        Failure::new(
            "scan_failed",
            format!("`{}` cannot be read: {error}", root.display()),
        )
    })?;
    Ok(decide(&Request {
        view: &view,
        settings: &BuildSettings::default(),
        tools: &available(Origin::Official),
        variables: &[],
        allow_no_start: true,
    }))
}

/// Refuses a directory of which a service without settings could not be made.
pub fn check(root: &Path, manifest: &Manifest) -> Result<(), Failure> {
    match detect(root, manifest)? {
        Err(refusal) if !SERVER_KNOWS.contains(&refusal.report.code.as_str()) => {
            let report = wire(refusal.report);
            let again = "nothing was created; `ferrovia up DIRECTORY` takes one below, `ferrovia link --create` makes a \
                         service to set settings of";
            let hint = match report.hint {
                Some(hint) => format!("{hint} ({again})"),
                None => again.to_owned(),
            };
            Err(Failure::new(&report.code, report.message).hint(hint))
        }
        _ => Ok(()),
    }
}

/// A report of the domain as it is printed.
pub fn wire(report: ferrovia_core::error::Report) -> Report {
    let ferrovia_core::error::Report {
        code,
        message,
        hint,
        log,
    } = report;
    Report {
        code,
        message,
        hint,
        log,
    }
}
