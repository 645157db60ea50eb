//! The OpenAPI document is what the code is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ferrovia_server::http::openapi;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `cargo xtask openapi` sets this.
const UPDATE: &str = "FERROVIA_UPDATE_OPENAPI";

#[test]
fn the_openapi_document_is_current() {
    let path = root().join("openapi/v1.json");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, openapi::text()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == openapi::text(),
        "`openapi/v1.json` is not what the handlers say: run `cargo xtask openapi`"
    );
}

/// Two types of one name silently overwrite each other in the document.
#[test]
fn no_two_schemas_have_one_name() {
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut directories = vec![
        root().join("crates/ferrovia-api/src"),
        root().join("crates/ferrovia-server/src"),
    ];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("ToSchema)]") {
                let rest = &text[at..];
                let named = rest.lines().find_map(|line| {
                    let line = line.trim();
                    line.strip_prefix("pub struct ")
                        .or_else(|| line.strip_prefix("pub enum "))
                });
                let Some(named) = named else { continue };
                let name: String = named.chars().take_while(|c| c.is_alphanumeric()).collect();
                if let Some(other) = seen.insert(name.clone(), path.clone()) {
                    panic!(
                        "`{name}` is a schema in {} and in {}",
                        other.display(),
                        path.display()
                    );
                }
            }
        }
    }
    assert!(seen.len() > 40, "the schemas were not found: {}", seen.len());
}

#[test]
fn every_reference_leads_somewhere_and_operations_have_names() {
    let document: Value = serde_json::from_str(openapi::text()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.insert(reference);
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{reference}");
    }
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{method} {path}: `{name}` twice");
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{method} {path}"
            );
        }
    }
}
