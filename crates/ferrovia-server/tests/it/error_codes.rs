//! Every code that people are told has a page under `docs/error-codes`, and every page has a code. The codes are found
//! in the sources of all crates, by the ways in which they are written there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ferrovia_control::usecase;
use ferrovia_server::http::code;

/// What stands before a code, without white space. Not a word before it: the end of a longer name counts too.
const BEFORE: [&str; 13] = [
    "Report::new(",
    "Failure::new(",
    "Self::new(",
    "report(",
    "report_of(",
    "code(",
    "problem(",
    "warning(",
    "warn(",
    "note(",
    "code:",
    "CODE:&str=",
    "code=",
];
/// Files where a code stands first in a pair.
const PAIRS: [&str; 3] = [
    "ferrovia-store/src/seal/mod.rs",
    "ferrovia-store/src/embedded/error.rs",
    "ferrovia-build/src/tree/mod.rs",
];
/// The word of a doctor's finding that all is well.
const NO_CODE: [&str; 1] = ["ok"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sources of all crates without their tests and comments, by path below `crates`.
fn sources() -> BTreeMap<String, String> {
    let crates = root().join("crates");
    let mut found = BTreeMap::new();
    let mut directories: Vec<PathBuf> = std::fs::read_dir(&crates)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("src"))
        .collect();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let lines: Vec<&str> = lines.collect();
                let name = path.strip_prefix(&crates).unwrap().to_string_lossy().into_owned();
                found.insert(name, lines.join("\n"));
            }
        }
    }
    found
}

fn is_code(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(good) && !NO_CODE.contains(&text)
}

/// Whether the literal at `at` is told as a code.
fn is_told(path: &str, before: &str) -> bool {
    let tail: Vec<char> = before
        .chars()
        .rev()
        .filter(|c| !c.is_whitespace())
        .take(64)
        .collect();
    let mut tail: String = tail.into_iter().rev().collect();
    if PAIRS.contains(&path) && (tail.ends_with("=>(") || tail.ends_with("=>{(")) {
        return true;
    }
    // The subject of a finding comes before its code.
    if tail.ends_with(',') {
        let Some(open) = tail.rfind('(') else { return false };
        let calls = ["problem", "warning"];
        if !calls.iter().any(|call| tail[..open].ends_with(call)) || tail[open..].matches(',').count() != 1 {
            return false;
        }
        tail.truncate(open + 1);
    } else if tail.ends_with("problem(") || tail.ends_with("warning(") {
        return false;
    }
    BEFORE.iter().any(|before| tail.ends_with(before))
}

fn told() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in sources() {
        let mut parts = text.split('"');
        let mut before = parts.next().unwrap_or_default().to_owned();
        for (n, part) in parts.enumerate() {
            if n % 2 == 0 && is_code(part) && is_told(&path, &before) {
                found.insert(part.to_owned(), path.clone());
            }
            before.push('"');
            before.push_str(part);
        }
    }
    found
}

fn pages() -> BTreeSet<String> {
    let directory = root().join("docs/error-codes");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let code = name
            .strip_suffix(".md")
            .unwrap_or_else(|| panic!("`{name}` is no page"));
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(
            text.starts_with(&format!("# `{code}`\n")),
            "`{name}` begins with another code"
        );
        assert!(
            text.contains("\n## What to do\n") || text.contains("ferrovia"),
            "`{name}` does not say what to do"
        );
        found.insert(code.to_owned());
    }
    found
}

#[test]
fn every_code_has_a_page() {
    let mut codes = told();
    for name in usecase::code::ALL.iter().map(|code| code.name) {
        codes.insert(name.to_owned(), "usecase::code".to_owned());
    }
    for name in code::ALL.iter().map(|code| code.name) {
        codes.insert(name.to_owned(), "http::code".to_owned());
    }
    assert!(codes.len() > 120, "the codes were not found: {}", codes.len());
    let pages = pages();
    let missing: Vec<String> = codes
        .iter()
        .filter(|(code, _)| !pages.contains(*code))
        .map(|(code, path)| format!("`docs/error-codes/{code}.md` is missing ({path})"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_page_has_a_code() {
    let sources = sources();
    for page in pages() {
        let literal = format!("\"{page}\"");
        assert!(
            sources.values().any(|text| text.contains(&literal)),
            "nothing tells the code of `docs/error-codes/{page}.md`"
        );
    }
}
