//! What stands in the repository beside the code: a page for every code that people are told.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_code_has_its_page() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for path in sources(&own.join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for call in ["Report::new(", " report("] {
            for argument in text.split(call).skip(1) {
                let Some(rest) = argument.trim_start().strip_prefix('"') else {
                    continue;
                };
                let code = rest.split('"').next().unwrap();
                let page = own.join(format!("../../docs/error-codes/{code}.md"));
                assert!(page.exists(), "`{code}` of `{}` has no page", path.display());
                found += 1;
            }
        }
    }
    assert!(found >= 40, "{found} codes");
}
