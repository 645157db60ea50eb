//! The OpenAPI document (`openapi/v1.json`), made from the handlers.
//!
//! A test of ferrovia-server makes and compares it, so that this crate need not be built with the whole server.

use std::process::Command;

/// The variable that lets the test write the document.
const UPDATE: &str = "FERROVIA_UPDATE_OPENAPI";

/// Writes the document anew; with `check` only compares.
///
/// # Errors
/// When it differs, or does not compile.
pub fn run(check: bool) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--quiet", "--package", "ferrovia-server", "--test", "it"]);
    command.args(["--", "--exact", "documents::the_openapi_document_is_current"]);
    if check {
        command.env_remove(UPDATE);
    } else {
        command.env(UPDATE, "1");
    }
    let status = command
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    match (status.success(), check) {
        (true, _) => Ok(()),
        (false, true) => {
            Err("`openapi/v1.json` is not what the handlers say: run `cargo xtask openapi`".to_owned())
        }
        (false, false) => Err("`openapi/v1.json` could not be written".to_owned()),
    }
}
