//! Automation of this repository, in its own language: `cargo xtask ci | tidy | sqlx | openapi`.

mod deny;
mod openapi;
mod sqlx;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK\n\n  \
    ci              everything that decides whether a change lands: `script/test`\n  \
    tidy            the direction of dependencies, their licences and versions, the sizes of files, the map\n  \
    sqlx [--check]  writes (or compares) the metadata of the queries of ferrovia-store\n  \
    openapi [--check]  writes (or compares) the OpenAPI document";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["ci"] => ci(),
        ["tidy"] => tidy::run(),
        ["openapi"] => openapi::run(false),
        ["openapi", "--check"] => openapi::run(true),
        ["sqlx"] => sqlx::run(false),
        ["sqlx", "--check"] => sqlx::run(true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = std::process::Command::new(root.join("script/test"))
        .status()
        .map_err(|error| format!("`script/test` cannot be started: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`script/test` failed ({status})"))
}
