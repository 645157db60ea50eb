//! The metadata of queries (`crates/ferrovia-store/.sqlx`): with it everybody compiles without a database.
//!
//! The `query!` macros write it themselves when they are compiled against a database and told where to. So this
//! starts a private PostgreSQL, gives it the schema by `psql`, compiles ferrovia-store against it, and takes over what
//! the macros wrote. Neither sqlx-cli nor a compiling ferrovia-store is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use ferrovia_testkit::postgres::Server;

const CRATE: &str = "crates/ferrovia-store";

/// Writes the metadata anew; with `check` only compares.
///
/// # Errors
/// What differs, or what PostgreSQL or the compiler said.
pub fn run(check: bool) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the workspace has no directory")?;
    let crate_dir = root.join(CRATE);
    let server = Server::start();
    migrate(&server, &crate_dir.join("migrations"))?;
    let wanted = compile(&server, root, &crate_dir)?;
    let checked_in = crate_dir.join(".sqlx");
    fs::create_dir_all(&checked_in).map_err(|error| format!("{}: {error}", checked_in.display()))?;
    let there = read(&checked_in)?;
    let stale: Vec<_> = wanted
        .iter()
        .filter(|(name, text)| there.get(*name) != Some(text))
        .collect();
    let left_over: Vec<_> = there.keys().filter(|name| !wanted.contains_key(*name)).collect();
    if check && !(stale.is_empty() && left_over.is_empty()) {
        return Err(format!(
            "{} queries have no or other metadata in `{CRATE}/.sqlx`, {} are left over: run `cargo xtask sqlx`",
            stale.len(),
            left_over.len()
        ));
    }
    for (name, text) in &stale {
        let path = checked_in.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for name in &left_over {
        let path = checked_in.join(name);
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    println!(
        "{} queries; {} written, {} removed",
        wanted.len(),
        stale.len(),
        left_over.len()
    );
    Ok(())
}

fn migrate(server: &Server, migrations: &Path) -> Result<(), String> {
    let mut files: Vec<PathBuf> = entries(migrations)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    for file in files {
        let output = Command::new(server.bin().join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--single-transaction",
                "--set=ON_ERROR_STOP=1",
                "--file",
            ])
            .arg(&file)
            .arg(server.url("postgres"))
            .output()
            .map_err(|error| format!("`psql` does not run: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "{}: {}",
                file.display(),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
    Ok(())
}

/// What the macros write when the crate is compiled against the server, by file name.
fn compile(server: &Server, root: &Path, crate_dir: &Path) -> Result<BTreeMap<String, String>, String> {
    let out = root.join("target/sqlx");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    // The compiler does not know that the macros read a database: only a newer file makes it run again.
    let lib = crate_dir.join("src/lib.rs");
    fs::File::options()
        .append(true)
        .open(&lib)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(|error| format!("{}: {error}", lib.display()))?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["check", "--package", "ferrovia-store", "--lib"])
        .current_dir(root)
        .env("DATABASE_URL", server.url("postgres"))
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &out)
        .status()
        .map_err(|error| format!("`cargo` does not run: {error}"))?;
    if !status.success() {
        return Err("ferrovia-store does not compile against its schema".to_owned());
    }
    read(&out)
}

fn read(dir: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    for path in entries(dir)? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        files.insert(name, text);
    }
    Ok(files)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(|error| error.to_string()))
        .collect()
}
